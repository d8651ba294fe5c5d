//! What the metadata of a GGUF file say about its tokens, and its weights in blocks.

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use stackelberg_engine::reward::TextFormat;
use stackelberg_engine::{Checkpoint, Dtype, Model};

use crate::common::tiny_gguf::{BLOCKS, kinds, texts, write_blocks, write_gguf};

/// A vocabulary of SentencePiece: bytes are left out, as the texts of the tests need none but a line break.
const TOKENS: [&str; 13] = [
    "<unk>",
    "<s>",
    "</s>",
    "<0x0A>",
    "▁",
    "H",
    "i",
    "Hi",
    "▁Hi",
    "<|user|>",
    "<|end|>",
    "<|assistant|>",
    "<|endoftext|>",
];
const KINDS: [i32; 13] = [2, 3, 3, 6, 1, 1, 1, 1, 1, 3, 3, 3, 3];

fn load(more: &[(&str, Value)]) -> Checkpoint {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tiny.gguf");
    let scores = (0..TOKENS.len()).map(|i| Value::F32(-10.0 + i as f32)).collect();
    let metadata = [
        ("tokenizer.ggml.model", Value::String("llama".to_owned())),
        ("tokenizer.ggml.tokens", texts(&TOKENS)),
        ("tokenizer.ggml.token_type", kinds(&KINDS)),
        ("tokenizer.ggml.scores", Value::Array(scores)),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
    ];
    write_gguf(&file, TOKENS.len(), &[&metadata[..], more].concat());
    Checkpoint::load(&file, Dtype::F32).unwrap()
}

/// The file names no end at all: control tokens that are known to end a turn do.
#[test]
fn known_control_tokens_end_a_text() {
    assert_eq!(load(&[]).eos, [2, 10, 12]);
    assert_eq!(load(&[("tokenizer.ggml.eos_token_id", Value::U32(9))]).eos, [2, 9, 10, 12]);
}

/// Control tokens of Phi-3 take the white space behind them with them, as in llama.cpp.
#[test]
fn control_tokens_of_phi_3_strip_what_follows() {
    const TEXT: &str = "<|user|>\nHi<|end|>\n<|assistant|>\n";
    let tokens = |more: &[(&str, Value)], text: &str| load(more).tokens(text, TextFormat::Chat).unwrap();
    let named = |name: &str| [("general.name", Value::String(name.to_owned()))];
    for name in ["Phi3", "phi-3-mini", "Phi 3 Mini 4k Instruct"] {
        assert_eq!(tokens(&named(name), TEXT), [9, 8, 10, 11], "{name}");
        // These do not.
        assert_eq!(tokens(&named(name), "<|endoftext|>\nHi"), [12, 4, 3, 7]);
        assert_eq!(tokens(&named(name), "<s>\nHi</s>\nHi"), [1, 4, 3, 7, 2, 8]);
    }
    assert_eq!(tokens(&named("tiny"), TEXT), [9, 4, 3, 7, 10, 4, 3, 11, 4, 3]);
}

/// A model whose matrices have these types, in f32 and native.
fn both(types: &[GgmlDType]) -> [Model; 2] {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tiny.gguf");
    write_blocks(&file, 96, types);
    [Dtype::F32, Dtype::Native].map(|dtype| Model::load(&file, dtype).unwrap())
}

/// The mean distance of the logits of two models, over the mean size of the first one's.
fn distance([exact, found]: &[Model; 2]) -> f32 {
    let tokens: Vec<u32> = (0..60).map(|i| i * 7 % 96).collect();
    let logits = |model: &Model| -> Vec<f32> {
        let hidden = model.prefill(&tokens).unwrap().1;
        model.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let (exact, found) = (logits(exact), logits(found));
    let size: f32 = exact.iter().map(|x| x.abs()).sum();
    exact.iter().zip(&found).map(|(a, b)| (a - b).abs()).sum::<f32>() / size
}

/// With `native`, only the inputs of layers are rounded, whatever the type. Memory is that of the file, but Q4K and Q5K need
/// half a byte more per 32 weights.
#[test]
fn blocks_are_kept() {
    for kind in BLOCKS {
        let models = both(&[kind]);
        let distance = distance(&models);
        println!("{kind:?}: {distance:.4}");
        assert!(distance > 1e-5 && distance < 0.02, "{kind:?}: {distance}");
        let numbers = (96 + 7 * 256) * 256;
        let more = if matches!(kind, GgmlDType::Q4K | GgmlDType::Q5K) { numbers / 64 } else { 0 };
        let stored = numbers / kind.block_size() * kind.type_size();
        assert_eq!(models[1].bytes(), stored + more, "{kind:?}");
    }
}

/// Other types of blocks are rounded to int8, and tensors that are not in blocks to bf16.
#[test]
fn other_types_are_rounded() {
    for types in
        [&[GgmlDType::Q2K][..], &[GgmlDType::F16], &[GgmlDType::Q2K, GgmlDType::F16, GgmlDType::Q4_0]]
    {
        let models = both(types);
        let distance = distance(&models);
        assert!(distance > 1e-5 && distance < 0.02, "{types:?}: {distance}");
    }
}
