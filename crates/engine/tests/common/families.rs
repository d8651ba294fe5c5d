//! The tiny checkpoints of all families (see `families/make.py`), and the outputs of transformers for them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use stackelberg_engine::{Model, Tensor};
use tempfile::TempDir;

use super::tiny::choose_kernel;

/// Decoders.
pub const FAMILIES: [&str; 12] = [
    "llama",
    "mistral",
    "qwen2",
    "qwen2-yarn",
    "qwen3",
    "gemma2",
    "gemma2-scaled",
    "gemma3",
    "phi3",
    "smollm3",
    "olmo2",
    "gpt2",
];

/// Encoders that classify.
pub const ENCODERS: [&str; 8] = [
    "bert",
    "roberta",
    "distilbert",
    "electra",
    "deberta",
    "deberta-v2",
    "modernbert",
    "modernbert-biased",
];

/// The outputs of transformers for a family's checkpoint.
#[derive(Deserialize)]
pub struct Expected {
    pub tokens: Vec<u32>,
    /// After the final norm, of the last token.
    pub hidden: Vec<f32>,
    /// Of the last three positions.
    pub logits: Vec<Vec<f32>>,
    pub score: Option<f32>,
    pub classifier: Option<String>,
}

pub fn folder(family: &str) -> PathBuf {
    choose_kernel();
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families").join(family)
}

pub fn expected(family: &str) -> Expected {
    serde_json::from_str(&fs::read_to_string(folder(family).join("expected.json")).unwrap()).unwrap()
}

/// The folder of a family's classifier with one label: the body and the head as two shards of one model.
pub fn sharded_classifier(family: &str, classifier: &str) -> TempDir {
    let shards = tempfile::tempdir().unwrap();
    for file in ["model.safetensors", "score.safetensors"] {
        fs::copy(folder(family).join(file), shards.path().join(file)).unwrap();
    }
    let index = json!({"weight_map": {"a": "model.safetensors", "b": "score.safetensors"}});
    fs::write(shards.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let config = fs::read_to_string(folder(family).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["architectures"] = json!([classifier]);
    config["num_labels"] = 1.into();
    fs::write(shards.path().join("config.json"), config.to_string()).unwrap();
    shards
}

pub fn rows(tensor: &Tensor) -> Vec<Vec<f32>> {
    tensor.to_vec2().unwrap()
}

/// The greatest difference, relative to 1 plus the size of what is expected.
pub fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let apart = |(a, b): (&f32, &f32)| {
        assert!(a.is_finite(), "{a}");
        (a - b).abs() / (1.0 + b.abs())
    };
    found.iter().zip(expected).map(apart).fold(0.0, f32::max)
}

/// Distances of the last hidden state and of the logits from those of transformers.
pub fn distances(model: &Model, expected: &Expected) -> (f32, f32) {
    let (_, hidden) = model.prefill(&expected.tokens).unwrap();
    let n = expected.tokens.len();
    let logits = rows(&model.logits(&hidden.narrow(0, n - 3, 3).unwrap()).unwrap());
    let last = rows(&hidden).pop().unwrap();
    let worst = logits.iter().zip(&expected.logits).map(|(a, b)| distance(a, b)).fold(0.0, f32::max);
    (distance(&last, &expected.hidden), worst)
}
