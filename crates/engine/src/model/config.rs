//! What a decoder of the Llama family looks like, read from `config.json` or from GGUF metadata.

use std::path::Path;

use candle_core::quantized::gguf_file::{Content, Value};
use serde::Deserialize;

use super::weights::Weights;
use crate::error::{Error, Result};

/// Shape of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Width of the hidden states, `d`.
    pub hidden: usize,
    /// Width of the feed-forward layers.
    pub intermediate: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Size of the vocabulary.
    pub vocabulary: usize,
    /// Most tokens that the model was made for.
    pub context: usize,
    /// Added to the mean square in RMSNorm.
    pub norm_eps: f64,
    /// Base of the rotary position embedding.
    pub rope_theta: f64,
    /// How Llama 3 stretches rotary frequencies.
    pub rope_scaling: Option<Llama3Scaling>,
    /// Whether the output layer is the embedding table.
    pub tied: bool,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
}

/// `rope_scaling` of type `llama3`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Llama3Scaling {
    /// Low frequencies are divided by this.
    pub factor: f64,
    /// Wavelengths above `original context / this` are scaled in full.
    pub low_freq_factor: f64,
    /// Wavelengths below `original context / this` are left alone.
    pub high_freq_factor: f64,
    /// The context that the model was first trained for.
    #[serde(rename = "original_max_position_embeddings")]
    pub original_context: f64,
}

/// Architectures by the names that Hugging Face gives them.
pub(crate) const SUPPORTED: &str = "LlamaForCausalLM, LlamaForSequenceClassification, MistralForCausalLM \
                                    (HF), llama (GGUF)";

/// `config.json`, as far as it matters here.
#[derive(Deserialize)]
struct Hf {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<serde_json::Value>,
    /// Newer files keep the two above together in here.
    rope_parameters: Option<serde_json::Value>,
    #[serde(default)]
    tie_word_embeddings: bool,
    eos_token_id: Option<OneOrMany>,
    sliding_window: Option<usize>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    hidden_act: Option<String>,
    id2label: Option<serde_json::Map<String, serde_json::Value>>,
    num_labels: Option<usize>,
}

/// `eos_token_id` is a number here and a list there.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl OneOrMany {
    pub(crate) fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

/// A model folder's architecture besides its shape.
pub(crate) struct Architecture {
    pub(crate) config: Config,
    /// Labels of a `*ForSequenceClassification`; `None` for a causal language model.
    pub(crate) labels: Option<usize>,
    /// Metadata of a GGUF file: its tokenizer is there too.
    pub(crate) gguf: Option<Content>,
}

/// Opens an HF folder or a GGUF file: what it says of itself, and its tensors.
///
/// # Errors
/// Files missing, cut short or malformed; another architecture.
pub(crate) fn open(path: &Path) -> Result<(Architecture, Weights)> {
    if path.is_dir() {
        return Ok((Config::from_hf(&path.join("config.json"))?, Weights::open_hf(path)?));
    }
    let (weights, content) = Weights::open_gguf(path)?;
    let config = Config::from_gguf(path, &content)?;
    Ok((Architecture { config, labels: None, gguf: Some(content) }, weights))
}

impl Config {
    /// Reads `config.json`.
    fn from_hf(path: &Path) -> Result<Architecture> {
        let text = std::fs::read_to_string(path).map_err(Error::read(path))?;
        let raw: serde_json::Value = serde_json::from_str(&text).map_err(|e| Error::invalid(path, e))?;
        let name = raw["architectures"][0].as_str().unwrap_or("(none named)").to_owned();
        let classifier = name == "LlamaForSequenceClassification";
        if !classifier && !matches!(name.as_str(), "LlamaForCausalLM" | "MistralForCausalLM") {
            return Err(Error::Architecture {
                path: path.to_owned(),
                found: name,
                supported: SUPPORTED,
            });
        }
        let hf: Hf = serde_json::from_value(raw).map_err(|e| Error::invalid(path, e))?;
        let refuse = |what: &str| Err(Error::invalid(path, what));
        if hf.sliding_window.is_some_and(|window| window < hf.max_position_embeddings) {
            return refuse("sliding-window attention is not supported");
        }
        if hf.attention_bias || hf.mlp_bias {
            return refuse("biases in attention or feed-forward layers are not supported");
        }
        if hf.hidden_act.as_deref().is_some_and(|act| act != "silu") {
            return refuse("an activation other than silu is not supported");
        }
        let labels = hf.num_labels.or(hf.id2label.as_ref().map(serde_json::Map::len)).unwrap_or(2);
        let config = Self {
            hidden: hf.hidden_size,
            intermediate: hf.intermediate_size,
            layers: hf.num_hidden_layers,
            heads: hf.num_attention_heads,
            kv_heads: hf.num_key_value_heads.unwrap_or(hf.num_attention_heads),
            head_dim: hf.head_dim.unwrap_or(hf.hidden_size / hf.num_attention_heads.max(1)),
            vocabulary: hf.vocab_size,
            context: hf.max_position_embeddings,
            norm_eps: hf.rms_norm_eps,
            rope_theta: hf
                .rope_theta
                .or(hf.rope_parameters.as_ref().and_then(|rope| rope["rope_theta"].as_f64()))
                .unwrap_or(10_000.0),
            rope_scaling: rope_scaling(path, hf.rope_scaling.or(hf.rope_parameters))?,
            tied: hf.tie_word_embeddings,
            eos: hf.eos_token_id.map_or_else(Vec::new, OneOrMany::into_vec),
        };
        config.check(path)?;
        Ok(Architecture { config, labels: classifier.then_some(labels), gguf: None })
    }

    /// Reads the metadata of a GGUF file.
    fn from_gguf(path: &Path, content: &Content) -> Result<Self> {
        let get = |key: &str| content.metadata.get(key);
        let architecture = get("general.architecture").and_then(|v| v.to_string().ok());
        let architecture = architecture.map_or("(none named)", String::as_str);
        if architecture != "llama" {
            let found = architecture.to_owned();
            return Err(Error::Architecture { path: path.to_owned(), found, supported: SUPPORTED });
        }
        let missing = |key: &str| Error::invalid(path, format!("the metadata lacks '{key}'"));
        let number =
            |key: &str| get(key).and_then(as_u64).map(|n| n as usize).ok_or_else(|| missing(key));
        let real = |key: &str| get(key).and_then(|v| v.to_f32().ok()).map(f64::from);
        let scaling = get("llama.rope.scaling.type").and_then(|v| v.to_string().ok());
        if let Some(kind) = scaling.filter(|kind| *kind != "none") {
            return Err(Error::invalid(path, format!("rope scaling of type '{kind}' is not supported")));
        }
        let heads = number("llama.attention.head_count")?;
        let hidden = number("llama.embedding_length")?;
        let embedding = content.tensor_infos.get("token_embd.weight");
        let rows = embedding.and_then(|info| info.shape.dims().first().copied());
        let config = Self {
            hidden,
            intermediate: number("llama.feed_forward_length")?,
            layers: number("llama.block_count")?,
            heads,
            kv_heads: number("llama.attention.head_count_kv").unwrap_or(heads),
            head_dim: number("llama.attention.key_length").unwrap_or(hidden / heads.max(1)),
            vocabulary: rows.ok_or_else(|| Error::MissingTensor {
                path: path.to_owned(),
                name: "token_embd.weight".into(),
            })?,
            context: number("llama.context_length")?,
            norm_eps: real("llama.attention.layer_norm_rms_epsilon")
                .ok_or_else(|| missing("llama.attention.layer_norm_rms_epsilon"))?,
            rope_theta: real("llama.rope.freq_base").unwrap_or(10_000.0),
            // GGUF stores the scaled frequencies as a tensor (`rope_freqs.weight`) instead.
            rope_scaling: None,
            tied: !content.tensor_infos.contains_key("output.weight"),
            eos: get("tokenizer.ggml.eos_token_id")
                .and_then(as_u64)
                .map(|id| id as u32)
                .into_iter()
                .collect(),
        };
        config.check(path)?;
        Ok(config)
    }

    /// Nonsense in a configuration would otherwise surface as a panic much later.
    fn check(&self, path: &Path) -> Result<()> {
        let sizes = [
            ("hidden size", self.hidden),
            ("intermediate size", self.intermediate),
            ("number of layers", self.layers),
            ("number of heads", self.heads),
            ("number of key-value heads", self.kv_heads),
            ("head size", self.head_dim),
            ("vocabulary size", self.vocabulary),
            ("context length", self.context),
        ];
        if let Some((name, size)) = sizes.into_iter().find(|(_, size)| *size == 0 || *size > 1 << 24) {
            return Err(Error::invalid(path, format!("the {name} is {size}")));
        }
        if self.heads.saturating_mul(self.head_dim) > 1 << 24 {
            let (heads, dim) = (self.heads, self.head_dim);
            return Err(Error::invalid(path, format!("{heads} heads of size {dim} are too many")));
        }
        if !self.heads.is_multiple_of(self.kv_heads) || !self.head_dim.is_multiple_of(2) {
            let (heads, kv, dim) = (self.heads, self.kv_heads, self.head_dim);
            return Err(Error::invalid(
                path,
                format!("{heads} heads of size {dim} cannot share {kv} key-value heads"),
            ));
        }
        Ok(())
    }

    /// Inverse frequencies of the rotary embedding, `[head_dim / 2]`.
    pub(crate) fn frequencies(&self) -> Vec<f32> {
        let dim = self.head_dim as f64;
        let plain = (0..self.head_dim / 2).map(|i| self.rope_theta.powf(-2.0 * i as f64 / dim));
        let Some(scaling) = self.rope_scaling else { return plain.map(|f| f as f32).collect() };
        let Llama3Scaling { factor, low_freq_factor: low, high_freq_factor: high, original_context } =
            scaling;
        let scaled = plain.map(|f| {
            let turns = original_context * f / std::f64::consts::TAU;
            let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            f * (smooth + (1.0 - smooth) / factor)
        });
        scaled.map(|f| f as f32).collect()
    }
}

fn rope_scaling(path: &Path, value: Option<serde_json::Value>) -> Result<Option<Llama3Scaling>> {
    let Some(value) = value.filter(|v| !v.is_null()) else { return Ok(None) };
    let kind = value["rope_type"].as_str().or(value["type"].as_str()).unwrap_or("default");
    match kind {
        "default" => Ok(None),
        "llama3" => {
            let scaling = serde_json::from_value(value.clone());
            scaling.map(Some).map_err(|e| Error::invalid(path, format!("rope_scaling: {e}")))
        }
        other => {
            let what =
                format!("rope_scaling of type '{other}' is not supported; 'llama3' and 'default' are");
            Err(Error::invalid(path, what))
        }
    }
}

/// Any integer of a GGUF value.
pub(crate) fn as_u64(value: &Value) -> Option<u64> {
    match value {
        Value::U8(n) => Some(u64::from(*n)),
        Value::U16(n) => Some(u64::from(*n)),
        Value::U32(n) => Some(u64::from(*n)),
        Value::U64(n) => Some(*n),
        Value::I8(n) => u64::try_from(*n).ok(),
        Value::I16(n) => u64::try_from(*n).ok(),
        Value::I32(n) => u64::try_from(*n).ok(),
        Value::I64(n) => u64::try_from(*n).ok(),
        _ => None,
    }
}
