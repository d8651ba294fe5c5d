//! Tokenizers that are built from GGUF metadata equal the `tokenizer.json` of the same model, on nasty texts.
//!
//! `../tokenizers/make.py` has made the expected tokens with the tokenizers library of Python.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::gguf_file::Value;
use serde::Deserialize;
use serde_json::Value as Json;
use stackelberg_engine::{Checkpoint, Dtype, TextStream, Tokenizer};

use crate::common::tiny_gguf::{kinds, texts, write_gguf};

#[derive(Deserialize)]
struct Expected {
    gguf: Metadata,
    /// Text, tokens, and their text without and with special tokens.
    texts: Vec<(String, Vec<u32>, String, String)>,
}

/// What a GGUF file says about the tokenizer beside its tokens.
#[derive(Deserialize)]
struct Metadata {
    model: String,
    bos: String,
    pre: Option<String>,
    prefix: Option<bool>,
    family: Option<String>,
}

/// Writes the GGUF file of a `tokenizer.json`, as llama.cpp's converter does.
fn convert(json: &Json, said: &Metadata, path: &Path) {
    let mut tokens: Vec<(String, u64)> = json["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(token, id)| (token.clone(), id.as_u64().unwrap()))
        .collect();
    let mut types: HashMap<&str, i32> = HashMap::new();
    for added in json["added_tokens"].as_array().unwrap() {
        let (text, id) = (added["content"].as_str().unwrap(), added["id"].as_u64().unwrap());
        types.insert(text, if added["special"] == true { 3 } else { 4 });
        if tokens.iter().all(|(_, known)| *known != id) {
            tokens.push((text.to_owned(), id));
        }
    }
    tokens.sort_by_key(|(_, id)| *id);
    assert!((0..).zip(&tokens).all(|(i, (_, id))| i == *id));
    let tokens: Vec<&str> = tokens.iter().map(|(token, _)| token.as_str()).collect();
    let is_byte = |token: &str| token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
    let types: Vec<i32> = tokens
        .iter()
        .map(|token| match *token {
            "<unk>" => 2,
            token if is_byte(token) => 6,
            token => types.get(token).copied().unwrap_or(1),
        })
        .collect();
    let merges: Vec<(&str, &str)> = json["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()))
        .collect();
    let text = |text: &str| Value::String(text.to_owned());
    let bos = tokens.iter().position(|token| *token == said.bos).unwrap();
    let mut metadata = vec![
        ("tokenizer.ggml.model", text(&said.model)),
        ("tokenizer.ggml.tokens", texts(&tokens)),
        ("tokenizer.ggml.token_type", kinds(&types)),
        ("tokenizer.ggml.bos_token_id", Value::U32(bos as u32)),
    ];
    metadata.extend(said.pre.as_ref().map(|pre| ("tokenizer.ggml.pre", text(pre))));
    metadata.extend(said.family.as_ref().map(|name| ("general.name", text(name))));
    metadata.extend(said.prefix.map(|flag| ("tokenizer.ggml.add_space_prefix", Value::Bool(flag))));
    if said.model == "gpt2" {
        let merges: Vec<String> = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
        let merges: Vec<&str> = merges.iter().map(String::as_str).collect();
        metadata.push(("tokenizer.ggml.merges", texts(&merges)));
    } else {
        // The earlier a piece is merged, the higher its score; tokens of users have a low one.
        let mut scores: HashMap<String, f32> = HashMap::new();
        for (rank, (left, right)) in merges.iter().enumerate() {
            scores.entry(format!("{left}{right}")).or_insert(-(rank as f32));
        }
        let score = |(token, kind): (&&str, &i32)| match kind {
            1 => scores.get(*token).copied().unwrap_or(-1e6),
            _ => -1000.0,
        };
        let scores = tokens.iter().zip(&types).map(score).map(Value::F32).collect();
        metadata.push(("tokenizer.ggml.scores", Value::Array(scores)));
    }
    write_gguf(path, tokens.len(), &metadata);
}

/// The text that a stream returns for tokens.
fn streamed(tokenizer: &Arc<Tokenizer>, tokens: &[u32]) -> String {
    let mut stream = TextStream::new(tokenizer);
    tokens.iter().map(|token| stream.push(*token).unwrap()).collect()
}

fn holds(name: &str) {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tokenizers"));
    let file = folder.join(format!("{name}.tokenizer.json"));
    let json = std::fs::read_to_string(&file).unwrap();
    let expected = std::fs::read_to_string(folder.join(format!("{name}.expected.json"))).unwrap();
    let expected: Expected = serde_json::from_str(&expected).unwrap();
    assert!(expected.texts.len() > 120);
    let to = tempfile::tempdir().unwrap();
    let path = to.path().join("model.gguf");
    convert(&serde_json::from_str(&json).unwrap(), &expected.gguf, &path);
    let built = Arc::new(Checkpoint::load(&path, Dtype::F32).unwrap().text.tokenizer);
    let read = Arc::new(Tokenizer::from_file(&file).unwrap());
    assert_eq!(read.difference(&built), None);
    let mut wrong = Vec::new();
    for (from, tokenizer) in [("tokenizer.json", &read), ("GGUF", &built)] {
        for (text, ids, plain, special) in &expected.texts {
            let found = tokenizer.encode(text, true).unwrap();
            if found != *ids {
                let named =
                    |ids: &[u32]| ids.iter().map(|id| tokenizer.token(*id).unwrap()).collect::<Vec<_>>();
                wrong.push(format!("{from}, {text:?}:\n  {:?}\n  not {:?}", named(&found), named(ids)));
            }
            for (expected, special) in [(plain, false), (special, true)] {
                let decoded = tokenizer.decode(ids, special).unwrap();
                if decoded != *expected {
                    wrong.push(format!("{from}, {text:?}: decoded {decoded:?}, not {expected:?}"));
                }
            }
            let whole = streamed(tokenizer, ids);
            if whole != *plain && !plain.ends_with('\u{fffd}') {
                wrong.push(format!("{from}, {text:?}: streamed {whole:?}, not {plain:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{name}: {} differences\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_family_is_as_its_tokenizer_json() {
    for name in ["gpt-2", "smollm", "qwen2", "llama-bpe", "gpt-4o", "llama", "gemma", "phi3"] {
        holds(name);
    }
}
