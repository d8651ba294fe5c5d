//! What an embedder looks like: its shape, from `config.json`, and how a text's states become one, from the
//! files that sentence-transformers puts beside it.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Pooling;
use crate::error::{Error, Result};
use crate::kernel::Activation;

/// How the families name their tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    Bert,
    DistilBert,
}

/// Shape of an encoder of the BERT family.
pub(super) struct Config {
    pub(super) names: Names,
    /// Width of the hidden states, `d`.
    pub(super) hidden: usize,
    /// Width of the embeddings; ELECTRA's are brought to `d` by a layer.
    pub(super) embedding: usize,
    pub(super) intermediate: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) vocabulary: usize,
    /// Rows of the table of positions.
    pub(super) positions: usize,
    /// Row of a text's first token in it.
    pub(super) first_position: usize,
    /// Kinds of text, of which the first is read; none for DistilBERT.
    pub(super) types: usize,
    pub(super) norm_eps: f32,
    pub(super) activation: Activation,
}

/// How a folder wants its texts read.
pub(super) struct Reading {
    /// `None`: nothing is said.
    pub(super) pooling: Option<Pooling>,
    pub(super) max_tokens: Option<usize>,
    pub(super) lower_case: bool,
}

const SUPPORTED: &str =
    "Bert, Roberta, XLMRoberta, Camembert, Electra, DistilBert, each Model or ForSequenceClassification";

/// `config.json`, as far as it matters here.
#[derive(Deserialize)]
struct Hf {
    #[serde(alias = "dim")]
    hidden_size: usize,
    embedding_size: Option<usize>,
    #[serde(alias = "hidden_dim")]
    intermediate_size: usize,
    #[serde(alias = "n_layers")]
    num_hidden_layers: usize,
    #[serde(alias = "n_heads")]
    num_attention_heads: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: Option<usize>,
    layer_norm_eps: Option<f32>,
    #[serde(alias = "activation")]
    hidden_act: String,
    position_embedding_type: Option<String>,
    pad_token_id: Option<usize>,
}

impl Config {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let value: Value = json(&path)?;
        let said = |key: &str| value[key].as_str().map(str::to_owned);
        let found = value["architectures"][0].as_str().map(str::to_owned).or_else(|| said("model_type"));
        let found = found.unwrap_or_else(|| "none named".to_owned());
        let family = said("model_type").unwrap_or_else(|| match () {
            () if found.starts_with("XLMRoberta") || found.starts_with("Roberta") => {
                "roberta".to_owned()
            }
            () if found.starts_with("Bert") => "bert".to_owned(),
            () if found.starts_with("DistilBert") => "distilbert".to_owned(),
            () if found.starts_with("Electra") => "electra".to_owned(),
            () => found.clone(),
        });
        let roberta = match family.as_str() {
            "bert" | "electra" | "distilbert" => false,
            "roberta" | "xlm-roberta" | "camembert" => true,
            _ => return Err(Error::Architecture { path, found, supported: SUPPORTED.to_owned() }),
        };
        let names = if family == "distilbert" { Names::DistilBert } else { Names::Bert };
        let hf: Hf = serde_json::from_value(value).map_err(|e| Error::invalid(&path, e))?;
        let activation = Activation::named(&hf.hidden_act).ok_or_else(|| {
            let what =
                format!("hidden_act is '{}': known are gelu, gelu_new, silu and relu", hf.hidden_act);
            Error::invalid(&path, what)
        })?;
        if let Some(kind) = hf.position_embedding_type.as_deref().filter(|kind| *kind != "absolute") {
            let what = format!("position_embedding_type is '{kind}': only absolute is supported");
            return Err(Error::invalid(&path, what));
        }
        let usual_types = if names == Names::DistilBert { 0 } else { 2 };
        let config = Self {
            names,
            hidden: hf.hidden_size,
            embedding: hf.embedding_size.filter(|_| family == "electra").unwrap_or(hf.hidden_size),
            intermediate: hf.intermediate_size,
            layers: hf.num_hidden_layers,
            heads: hf.num_attention_heads,
            vocabulary: hf.vocab_size,
            positions: hf.max_position_embeddings,
            // RoBERTa counts from behind the padding token's number.
            first_position: if roberta { hf.pad_token_id.unwrap_or(1).saturating_add(1) } else { 0 },
            types: hf.type_vocab_size.filter(|_| usual_types > 0).unwrap_or(usual_types),
            norm_eps: hf.layer_norm_eps.unwrap_or(1e-12),
            activation,
        };
        config.check(&path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let sizes = [
            ("hidden_size", self.hidden),
            ("intermediate_size", self.intermediate),
            ("num_attention_heads", self.heads),
            ("vocab_size", self.vocabulary),
            ("embedding_size", self.embedding),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(Error::invalid(path, format!("{name} is 0")));
        }
        if !self.hidden.is_multiple_of(self.heads) {
            let (hidden, heads) = (self.hidden, self.heads);
            let what =
                format!("hidden_size is {hidden}, not a multiple of num_attention_heads, {heads}");
            return Err(Error::invalid(path, what));
        }
        if self.positions <= self.first_position {
            let what =
                format!("max_position_embeddings is {}: there is no room for text", self.positions);
            return Err(Error::invalid(path, what));
        }
        Ok(())
    }
}

impl Reading {
    /// Reads `modules.json`, the pooling it names, `sentence_bert_config.json` and `tokenizer_config.json`,
    /// where they are there.
    pub(super) fn of(folder: &Path) -> Result<Self> {
        let sentence: Value = optional_json(&folder.join("sentence_bert_config.json"))?;
        let tokenizer: Value = optional_json(&folder.join("tokenizer_config.json"))?;
        // Some tokenizers say 1e30 where they mean that they know no limit.
        let limit = |value: &Value| value.as_u64().and_then(|limit| usize::try_from(limit).ok());
        Ok(Self {
            pooling: pooling(folder)?,
            max_tokens: limit(&sentence["max_seq_length"]).or(limit(&tokenizer["model_max_length"])),
            lower_case: sentence["do_lower_case"].as_bool().unwrap_or(false),
        })
    }
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// What the modules behind the encoder say; other modules than pooling and normalisation would change the
/// numbers, and are refused.
fn pooling(folder: &Path) -> Result<Option<Pooling>> {
    let path = folder.join("modules.json");
    if !path.is_file() {
        return Ok(None);
    }
    let modules: Vec<Module> = json(&path)?;
    let mut pooling = None;
    for Module { path: place, kind } in &modules {
        match kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" if place.is_empty() => {}
            "Pooling" if !place.contains("..") => pooling = Some(mode(&folder.join(place))?),
            "Normalize" => {}
            _ => {
                let what = format!(
                    "the module '{kind}' in '{place}' is not supported: only Transformer (beside this file), \
                     Pooling and Normalize are"
                );
                return Err(Error::invalid(&path, what));
            }
        }
    }
    Ok(pooling)
}

/// The one pooling that is switched on.
fn mode(folder: &Path) -> Result<Pooling> {
    let path = folder.join("config.json");
    let value: Value = json(&path)?;
    let mut on: Vec<String> = match &value["pooling_mode"] {
        Value::String(mode) => vec![mode.clone()],
        Value::Array(modes) => {
            modes.iter().map(|mode| mode.as_str().unwrap_or("?").to_owned()).collect()
        }
        _ => Vec::new(),
    };
    let fields = value.as_object().into_iter().flatten();
    let flags = fields.filter(|(key, value)| key.starts_with("pooling_mode_") && **value == true);
    on.extend(flags.map(|(key, _)| key["pooling_mode_".len()..].to_owned()));
    match on.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["mean" | "mean_tokens"] => Ok(Pooling::Mean),
        ["cls" | "cls_token"] => Ok(Pooling::Cls),
        [] => Err(Error::invalid(&path, "no pooling_mode is switched on: mean or cls is needed")),
        _ => {
            let what =
                format!("pooling by {}: only mean or cls, one of them, is supported", on.join(" and "));
            Err(Error::invalid(&path, what))
        }
    }
}

fn optional_json(path: &Path) -> Result<Value> {
    if path.is_file() { json(path) } else { Ok(Value::Null) }
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(Error::read(path))?;
    serde_json::from_str(&text).map_err(|e| Error::invalid(path, e))
}
