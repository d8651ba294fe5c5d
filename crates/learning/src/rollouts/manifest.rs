//! What all shards of a dataset have in common.

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use stackelberg_data::hash::Hash;
use stackelberg_engine::reward::TextFormat;

use crate::error::Error;

/// The manifest of a dataset, as its `manifest.json` has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`Manifest::FORMAT`].
    pub format: String,
    /// Version of the program that wrote it.
    pub version: String,
    /// The policy.
    pub model: Identity,
    /// The reward, if there is one.
    pub reward: Option<Identity>,
    /// Width of the hidden states, `d`; `None` where they are not kept.
    pub hidden: Option<usize>,
    /// Samples per prompt; `None` where prompts may differ in it.
    pub samples: Option<usize>,
    /// How samples were drawn, see [`settings`].
    pub settings: Map<String, Value>,
    /// Prompts per shard.
    pub prompts_per_shard: usize,
    /// The prompts.
    pub prompts: Prompts,
}

/// A model or a reward.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Its name, for people.
    pub name: String,
    /// Tells it from any other: a model's fingerprint, a file's SHA-256.
    pub hash: String,
}

/// The prompts of a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prompts {
    /// SHA-256 of all ids and texts.
    pub hash: String,
    /// Their ids, in order.
    pub ids: Vec<String>,
}

impl Prompts {
    /// Prompts by id and text, in order.
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

/// All of the sampling that decides what is drawn, by the names of the command line.
pub fn settings(
    settings: &stackelberg_decoding::Settings,
    format: TextFormat,
    system: Option<&str>,
) -> Map<String, Value> {
    let sampling = &settings.sampling;
    let pairs = [
        ("max_new_tokens", json!(settings.max_new_tokens)),
        ("min_p", json!(sampling.min_p)),
        ("no_eos", json!(settings.no_eos)),
        ("prompt_format", json!(format.name())),
        ("repetition_penalty", json!(sampling.repetition_penalty)),
        ("seed", json!(settings.seed)),
        ("stop", json!(settings.stop)),
        ("system", json!(system)),
        ("temperature", json!(sampling.temperature)),
        ("top_k", json!(sampling.top_k)),
        ("top_p", json!(sampling.top_p)),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

impl Manifest {
    /// What `format` says.
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

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.prompts.ids.len().div_ceil(self.prompts_per_shard)
    }

    /// The prompts of a shard, by number.
    pub fn prompts_of(&self, shard: usize) -> Range<usize> {
        let from = shard * self.prompts_per_shard;
        from..(from + self.prompts_per_shard).min(self.prompts.ids.len())
    }

    /// The manifest less the prompts' ids, as shards repeat it.
    pub(crate) fn summary(&self) -> Value {
        let mut value = json!(self);
        if let Some(prompts) = value["prompts"].as_object_mut() {
            prompts.remove("ids");
        }
        value
    }
}

/// The first field in which two summaries differ, with both values. Names are for people and may differ.
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
