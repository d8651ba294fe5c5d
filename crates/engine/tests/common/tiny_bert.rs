//! A tiny folder of the BERT family.
#![allow(dead_code, reason = "not every test uses all of it")]

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::tiny::choose_kernel;

/// A tiny encoder. Its weights are sines, as in the script that made the reference values.
pub struct Tiny {
    pub family: &'static str,
    pub prefix: &'static str,
    /// Names of a norm's weight and bias.
    pub norm: [&'static str; 2],
    /// Tensors whose names begin with this are left out.
    pub without: &'static str,
    /// Fields that override the configuration.
    pub config: Value,
}

/// A complete BERT.
pub const BERT: Tiny =
    Tiny { family: "bert", prefix: "", norm: ["weight", "bias"], without: "-", config: Value::Null };

impl Tiny {
    /// Writes the folder.
    pub fn write(&self) -> tempfile::TempDir {
        choose_kernel();
        let folder = tempfile::tempdir().unwrap();
        let roberta = self.family == "roberta";
        let mut config = json!({
            "architectures": [if roberta { "RobertaModel" } else { "BertModel" }],
            "model_type": self.family, "hidden_size": 12, "num_attention_heads": 3,
            "intermediate_size": 20, "num_hidden_layers": 2, "vocab_size": 40,
            "max_position_embeddings": 20, "type_vocab_size": if roberta { 1 } else { 2 },
            "hidden_act": if roberta { "gelu_new" } else { "gelu" },
            "layer_norm_eps": if roberta { 1e-5 } else { 1e-12 }, "pad_token_id": i32::from(roberta),
        });
        for (key, value) in self.config.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        put(&folder, "config.json", config);
        let vocabulary: HashMap<String, usize> = (0..40).map(|i| (format!("w{i}"), i)).collect();
        let special =
            |id: usize| json!({"id": format!("w{id}"), "ids": [id], "tokens": [format!("w{id}")]});
        put(
            &folder,
            "tokenizer.json",
            json!({
                "version": "1.0", "added_tokens": [], "normalizer": null, "decoder": null,
                "pre_tokenizer": {"type": "WhitespaceSplit"},
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [
                        {"SpecialToken": {"id": "w2", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                        {"SpecialToken": {"id": "w3", "type_id": 0}},
                    ],
                    "pair": [], "special_tokens": {"w2": special(2), "w3": special(3)},
                },
                "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
                "padding": {
                    "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "w0",
                },
                "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"},
            }),
        );
        self.weights(&folder.path().join("model.safetensors"), if roberta { 1 } else { 2 });
        folder
    }

    fn weights(&self, path: &Path, types: usize) {
        let mut tensors: Vec<(String, Vec<usize>)> = vec![
            ("embeddings.word_embeddings.weight".into(), vec![40, 12]),
            ("embeddings.position_embeddings.weight".into(), vec![20, 12]),
            ("embeddings.token_type_embeddings.weight".into(), vec![types, 12]),
        ];
        let mut norms = vec!["embeddings".to_owned()];
        let mut linears = vec![("pooler.dense".to_owned(), 12, 12)];
        for layer in 0..2 {
            let part = |name: &str| format!("encoder.layer.{layer}.{name}");
            norms.extend([part("attention.output"), part("output")]);
            for name in ["self.query", "self.key", "self.value", "output.dense"] {
                linears.push((part(&format!("attention.{name}")), 12, 12));
            }
            linears.push((part("intermediate.dense"), 20, 12));
            linears.push((part("output.dense"), 12, 20));
        }
        for norm in norms {
            tensors
                .extend(["weight", "bias"].map(|part| (format!("{norm}.LayerNorm.{part}"), vec![12])));
        }
        for (name, n, k) in linears {
            tensors.extend([(format!("{name}.weight"), vec![n, k]), (format!("{name}.bias"), vec![n])]);
        }
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        for (name, shape) in tensors.iter().filter(|(name, _)| !name.starts_with(self.without)) {
            let (start, phase) = (data.len(), name.bytes().map(f64::from).sum::<f64>());
            for i in 0..shape.iter().product::<usize>() {
                let sine = (0.37 * i as f64 + phase).sin();
                let value =
                    if name.ends_with("LayerNorm.weight") { 1.0 + 0.1 * sine } else { 0.4 * sine };
                data.extend_from_slice(&(value as f32).to_le_bytes());
            }
            let [weight, bias] = self.norm.map(|part| format!("LayerNorm.{part}"));
            let stored = name.replace("LayerNorm.weight", &weight).replace("LayerNorm.bias", &bias);
            let offsets = [start, data.len()];
            let stored = format!("{}{stored}", self.prefix);
            header.insert(stored, json!({"dtype": "F32", "shape": shape, "data_offsets": offsets}));
        }
        let header = Value::Object(header).to_string();
        fs::write(path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat())
            .unwrap();
    }
}

/// Writes JSON into a folder.
pub fn put(folder: &tempfile::TempDir, name: &str, value: Value) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, value.to_string()).unwrap();
}
