//! Tiny GGUF files of the Llama family: with the weights of nothing, for what their metadata say, or with weights in blocks.

use std::path::Path;

use candle_core::quantized::gguf_file::{Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

const D: usize = 8;
/// Width of models whose weights are in blocks, of which the largest have 256 weights.
const WIDE: usize = 256;

/// The types of blocks that the kernels keep.
pub const BLOCKS: [GgmlDType; 8] = [
    GgmlDType::Q5K,
    GgmlDType::Q4K,
    GgmlDType::Q5_0,
    GgmlDType::Q6K,
    GgmlDType::Q4_1,
    GgmlDType::Q4_0,
    GgmlDType::Q5_1,
    GgmlDType::Q8_0,
];

/// Texts as a value.
pub fn texts(texts: &[&str]) -> Value {
    Value::Array(texts.iter().map(|text| Value::String((*text).to_owned())).collect())
}

/// Token types as a value.
pub fn kinds(kinds: &[i32]) -> Value {
    Value::Array(kinds.iter().map(|kind| Value::I32(*kind)).collect())
}

/// Writes a file with these metadata and an embedding for each token.
pub fn write_gguf(path: &Path, tokens: usize, metadata: &[(&str, Value)]) {
    let ones = |shape: &[usize]| {
        let ones = Tensor::ones(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        QTensor::quantize(&ones, GgmlDType::F32).unwrap()
    };
    write_model(path, D, tokens, metadata, &mut |shape, _| ones(shape));
}

/// Writes a file without a tokenizer whose matrices have random weights. Their types are repeated in this order: the
/// embedding, queries, keys, values, the attention's output, gate, up and down.
pub fn write_blocks(path: &Path, tokens: usize, types: &[GgmlDType]) {
    let mut types = types.iter().cycle();
    let mut state = 7u64;
    let mut next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    write_model(path, WIDE, tokens, &[], &mut |shape, matrix| {
        let numbers: Vec<f32> = (0..shape.iter().product()).map(&mut next).collect();
        // Rows of about length one, so that hidden states stay as large as they are.
        let size = if matrix { 1.7 / (WIDE as f32).sqrt() } else { 1.0 };
        let numbers: Vec<f32> = numbers.into_iter().map(|x| x * size).collect();
        let tensor = Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap();
        let kind = if matrix { *types.next().unwrap() } else { GgmlDType::F32 };
        QTensor::quantize(&tensor, kind).unwrap()
    });
}

/// Writes a file whose tensors `tensor` makes from their shapes; its second argument says whether it is a matrix.
fn write_model(
    path: &Path,
    d: usize,
    tokens: usize,
    metadata: &[(&str, Value)],
    tensor: &mut dyn FnMut(&[usize], bool) -> QTensor,
) {
    super::tiny::choose_kernel();
    let mut tensors = vec![("token_embd.weight".to_owned(), tensor(&[tokens, d], true))];
    for part in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
        tensors.push((format!("blk.0.{part}.weight"), tensor(&[d, d], true)));
    }
    for norm in ["blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"] {
        tensors.push((format!("{norm}.weight"), tensor(&[d], false)));
    }
    let sizes = [
        ("llama.context_length", 512),
        ("llama.embedding_length", d as u32),
        ("llama.block_count", 1),
        ("llama.feed_forward_length", d as u32),
        ("llama.attention.head_count", 2),
    ];
    let mut all = vec![
        ("general.architecture", Value::String("llama".to_owned())),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
    ];
    all.extend(sizes.map(|(key, size)| (key, Value::U32(size))));
    all.extend(metadata.iter().cloned());
    let all: Vec<(&str, &Value)> = all.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, t)| (&name[..], t)).collect();
    write(&mut std::fs::File::create(path).unwrap(), &all, &tensors).unwrap();
}
