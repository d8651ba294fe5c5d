//! The manifest of a dataset: everything that all shards have in common.

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use stackelberg_data::hash::Hash;
use stackelberg_decoding::{Method, Options, Settings};
use stackelberg_engine::reward::TextFormat;

use crate::error::Error;

/// The content of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`Manifest::FORMAT`].
    pub format: String,
    /// Version of the program that wrote it.
    pub version: String,
    /// The policy.
    pub model: Identity,
    /// The reward; `None` if samples have no rewards.
    pub reward: Option<Identity>,
    /// Width `d` of the hidden states; `None` if they are not stored.
    pub hidden: Option<usize>,
    /// Number of samples per prompt; `None` if it differs between prompts.
    pub samples: Option<usize>,
    /// Settings of sampling, see [`settings`].
    pub settings: Map<String, Value>,
    /// Number of prompts per shard.
    pub prompts_per_shard: usize,
    /// The prompts.
    pub prompts: Prompts,
}

/// Identity of a model or a reward.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Name for display.
    pub name: String,
    /// Fingerprint of a model, or SHA-256 of a file.
    pub hash: String,
}

/// The prompts of a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prompts {
    /// SHA-256 of all ids and texts.
    pub hash: String,
    /// All ids, in order.
    pub ids: Vec<String>,
}

impl Prompts {
    /// Prompts from pairs of id and text, in order.
    pub fn new<'a>(prompts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut hash = Hash::new();
        let mut ids = Vec::new();
        for (id, text) in prompts {
            hash.update(json!([id, text]).to_string());
            ids.push(id.to_owned());
        }
        Self { hash: hash.hex(), ids }
    }
}

/// All settings of sampling that affect the samples, by their names on the command line.
pub fn settings(settings: &Settings, format: TextFormat, system: Option<&str>) -> Map<String, Value> {
    let base = Settings { method: Method::Base, ..settings.clone() };
    // Candidates are shown in traces alone.
    let options = Options { method: None, candidates: None, ..Options::used(&base) };
    let mut map = match json!(options) {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    map.insert("prompt_format".to_owned(), json!(format.name()));
    map.insert("system".to_owned(), json!(system));
    map
}

impl Manifest {
    /// Value of [`Manifest::format`].
    pub const FORMAT: &str = "stackelberg-rollouts-1";

    /// Reads a manifest.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let file = path.display().to_string();
        let text = std::fs::read(path).map_err(|e| stackelberg_data::Error::read(path, e))?;
        let wrong = |problem: String| Error::Dataset { file: file.clone(), problem };
        let mut reader = serde_json::Deserializer::from_slice(&text);
        let manifest: Self = serde_path_to_error::deserialize(&mut reader)
            .map_err(|e| wrong(format!("not a manifest of rollouts: {}: {}", e.path(), e.inner())))?;
        if manifest.format != Self::FORMAT {
            let problem =
                format!("format is '{}', this version reads {}", manifest.format, Self::FORMAT);
            return Err(wrong(problem));
        }
        manifest.check(&file)?;
        Ok(manifest)
    }

    pub(super) fn check(&self, file: &str) -> Result<(), Error> {
        let wrong =
            |problem: &str| Error::Dataset { file: file.to_owned(), problem: problem.to_owned() };
        if self.prompts.ids.is_empty() {
            return Err(wrong("the dataset is empty: it has no prompts"));
        }
        if self.prompts_per_shard == 0 {
            return Err(wrong("prompts_per_shard is 0: it must be at least 1"));
        }
        if self.samples == Some(0) {
            return Err(wrong("samples is 0: it must be at least 1"));
        }
        if self.hidden == Some(0) {
            return Err(wrong("hidden is 0: the width of hidden states is at least 1"));
        }
        Ok(())
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.prompts.ids.len().div_ceil(self.prompts_per_shard)
    }

    /// Numbers of the prompts of a shard.
    pub fn prompts_of(&self, shard: usize) -> Range<usize> {
        let from = shard * self.prompts_per_shard;
        from..(from + self.prompts_per_shard).min(self.prompts.ids.len())
    }

    /// The manifest without the prompts' ids, as stored in each shard.
    pub(crate) fn summary(&self) -> Value {
        let mut value = json!(self);
        if let Some(prompts) = value["prompts"].as_object_mut() {
            prompts.remove("ids");
        }
        value
    }
}

/// The first field in which two summaries differ, with both values. Fields `name` are for display and are ignored.
pub(crate) fn difference(was: &Value, is: &Value) -> Option<(String, Value, Value)> {
    differing("", was, is)
}

fn differing(field: &str, was: &Value, is: &Value) -> Option<(String, Value, Value)> {
    if let (Value::Object(old), Value::Object(new)) = (was, is) {
        let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        return keys.into_iter().filter(|key| *key != "name").find_map(|key| {
            let inner = if field.is_empty() { key.clone() } else { format!("{field}.{key}") };
            differing(&inner, &was[key], &is[key])
        });
    }
    (was != is).then(|| (field.to_owned(), was.clone(), is.clone()))
}
