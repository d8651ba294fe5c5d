//! What the metadata of a GGUF file say about its tokens.

use candle_core::quantized::gguf_file::Value;
use stackelberg_engine::reward::TextFormat;
use stackelberg_engine::{Checkpoint, Dtype};

use crate::common::tiny_gguf::{kinds, texts, write_gguf};

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
