//! A tiny GGUF file of the Llama family with the weights of nothing, for what its metadata say.

use std::path::Path;

use candle_core::quantized::gguf_file::{Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

const D: usize = 8;

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
    super::tiny::choose_kernel();
    let tensor = |shape: &[usize]| {
        let ones = Tensor::ones(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        QTensor::quantize(&ones, GgmlDType::F32).unwrap()
    };
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), tensor(&[tokens, D])),
        ("output_norm.weight".to_owned(), tensor(&[D])),
    ];
    for part in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
        tensors.push((format!("blk.0.{part}.weight"), tensor(&[D, D])));
    }
    for part in ["attn_norm", "ffn_norm"] {
        tensors.push((format!("blk.0.{part}.weight"), tensor(&[D])));
    }
    let sizes = [
        ("llama.context_length", 64),
        ("llama.embedding_length", D as u32),
        ("llama.block_count", 1),
        ("llama.feed_forward_length", D as u32),
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
