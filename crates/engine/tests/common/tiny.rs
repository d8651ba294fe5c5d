//! A tiny checkpoint of the Llama family with random weights, in the files of Hugging Face.
#![allow(dead_code, reason = "not every test uses all of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use stackelberg_engine::kernel::{self, Variant};

/// Chooses the kernel that `STACKELBERG_KERNEL` names, if this processor has it. Tests must call it before they run a
/// kernel; [`Tiny::write`] does.
pub fn choose_kernel() {
    let Ok(name) = std::env::var("STACKELBERG_KERNEL") else { return };
    if Variant::available().iter().any(|variant| variant.name() == name) {
        kernel::choose(&name).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Hidden size, heads, key-value heads, feed-forward size, layers, vocabulary.
pub const D: usize = 16;
const HEADS: usize = 4;
const KV: usize = 2;
const INNER: usize = 24;
const LAYERS: usize = 2;
pub const VOCABULARY: usize = 40;

/// The properties in which the checkpoints differ.
pub struct Tiny {
    pub seed: u64,
    /// Labels of a sequence classifier; `None` for a language model.
    pub labels: Option<usize>,
    pub config: Value,
    /// The last word of the vocabulary.
    pub last_word: &'static str,
    /// Number of weight files.
    pub shards: usize,
    /// Whether the score row is NaN.
    pub broken_score: bool,
}

impl Default for Tiny {
    fn default() -> Self {
        Self {
            seed: 1,
            labels: None,
            config: json!({}),
            last_word: "w39",
            shards: 1,
            broken_score: false,
        }
    }
}

impl Tiny {
    /// Writes the checkpoint into a folder.
    pub fn write(&self, folder: &Path) {
        choose_kernel();
        fs::create_dir_all(folder).unwrap();
        let architecture =
            if self.labels.is_some() { "LlamaForSequenceClassification" } else { "LlamaForCausalLM" };
        let mut config = json!({
            "architectures": [architecture], "hidden_size": D, "intermediate_size": INNER,
            "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV,
            "vocab_size": VOCABULARY, "max_position_embeddings": 400, "rms_norm_eps": 1e-5,
            "rope_theta": 1000.0, "tie_word_embeddings": false, "eos_token_id": [2, 3],
            "num_labels": self.labels,
        });
        for (key, value) in self.config.as_object().unwrap() {
            config[key] = value.clone();
        }
        fs::write(folder.join("config.json"), config.to_string()).unwrap();
        fs::write(folder.join("tokenizer.json"), self.tokenizer().to_string()).unwrap();

        let tensors: Vec<(String, Vec<usize>)> = self.shapes().into_iter().collect();
        if self.shards == 1 {
            self.save(&folder.join("model.safetensors"), &tensors);
            return;
        }
        let mut map = BTreeMap::new();
        for (i, part) in tensors.chunks(tensors.len().div_ceil(self.shards)).enumerate() {
            let name = format!("model-{i:05}.safetensors");
            self.save(&folder.join(&name), part);
            part.iter().for_each(|(tensor, _)| drop(map.insert(tensor.clone(), name.clone())));
        }
        fs::write(folder.join("model.safetensors.index.json"), json!({ "weight_map": map }).to_string())
            .unwrap();
    }

    fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let mut shapes = BTreeMap::new();
        let dim = D / HEADS;
        for layer in 0..LAYERS {
            for (part, shape) in [
                ("self_attn.q_proj", vec![HEADS * dim, D]),
                ("self_attn.k_proj", vec![KV * dim, D]),
                ("self_attn.v_proj", vec![KV * dim, D]),
                ("self_attn.o_proj", vec![D, HEADS * dim]),
                ("mlp.gate_proj", vec![INNER, D]),
                ("mlp.up_proj", vec![INNER, D]),
                ("mlp.down_proj", vec![D, INNER]),
                ("input_layernorm", vec![D]),
                ("post_attention_layernorm", vec![D]),
            ] {
                shapes.insert(format!("model.layers.{layer}.{part}.weight"), shape);
            }
        }
        shapes.insert("model.embed_tokens.weight".into(), vec![VOCABULARY, D]);
        shapes.insert("model.norm.weight".into(), vec![D]);
        match self.labels {
            Some(labels) => shapes.insert("score.weight".into(), vec![labels, D]),
            None => shapes.insert("lm_head.weight".into(), vec![VOCABULARY, D]),
        };
        shapes
    }

    /// One word, one token: `w0 w1 ...`.
    fn tokenizer(&self) -> Value {
        let mut vocabulary: BTreeMap<String, usize> =
            (0..VOCABULARY).map(|i| (format!("w{i}"), i)).collect();
        vocabulary.remove("w39");
        vocabulary.insert(self.last_word.to_owned(), VOCABULARY - 1);
        json!({
            "version": "1.0", "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
            "truncation": null, "padding": null,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"},
        })
    }

    /// Writes tensors. The values of a tensor depend on its name and the seed, not on the file that it is in.
    fn save(&self, path: &Path, tensors: &[(String, Vec<usize>)]) {
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        for (name, shape) in tensors {
            let start = data.len();
            let mut state = name.bytes().fold(self.seed ^ 0x9e37_79b9_7f4a_7c15, |h, b| {
                (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
            });
            for _ in 0..shape.iter().product::<usize>() {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let value = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
                let value = if name.contains("norm") { 1.0 + 0.1 * value } else { 0.6 * value };
                let value = if self.broken_score && name == "score.weight" { f32::NAN } else { value };
                data.extend_from_slice(&value.to_le_bytes());
            }
            header.insert(
                name.clone(),
                json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}),
            );
        }
        let header = Value::Object(header).to_string();
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        fs::write(path, bytes).unwrap();
    }
}
