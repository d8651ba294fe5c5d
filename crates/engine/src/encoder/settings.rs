//! The settings that sentence-transformers stores beside a model.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::pooling::Pooling;
use crate::error::{Error, Result};

/// The settings of a folder.
pub(super) struct Settings {
    /// `None` if the folder does not specify it.
    pub(super) pooling: Option<Pooling>,
    pub(super) max_tokens: Option<usize>,
    pub(super) lower_case: bool,
}

impl Settings {
    /// Reads `modules.json`, the pooling that it names, `sentence_bert_config.json` and `tokenizer_config.json`, as far
    /// as they exist.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let sentence: Value = optional_json(&folder.join("sentence_bert_config.json"))?;
        let tokenizer: Value = optional_json(&folder.join("tokenizer_config.json"))?;
        // Some tokenizers have the value 1e30, which means that there is no limit.
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

/// The pooling among the modules after the encoder. Modules other than pooling and normalisation would change the
/// embeddings and are refused.
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

/// The pooling that is switched on.
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

pub(super) fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(Error::read(path))?;
    serde_json::from_str(&text).map_err(|e| Error::invalid(path, e))
}
