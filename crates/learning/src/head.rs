//! A reward head as a file: safetensors with metadata, written whole or not at all, the same bytes
//! every time.

use std::collections::BTreeMap;
use std::path::Path;

use stackelberg_engine::reward::{Backbone, TextFormat};

use crate::error::Error;
use crate::fit::Fit;
use crate::tensors::{Named, to_bytes};
use stackelberg_data::atomic::stage;

/// A linear reward head: `reward(h) = (weight·h + bias - reward_mean) / reward_std`.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// `score.weight`, shape 1 by d.
    pub weight: Vec<f32>,
    /// `score.bias`, shape 1; left out of the file if `None`.
    pub bias: Option<f32>,
    /// Hash of the model whose hidden states the head reads.
    pub base: Option<String>,
    /// That model's name, for people.
    pub base_name: Option<String>,
    /// What kind of model that is.
    pub backbone: Backbone,
    /// What text the head was trained on.
    pub text_format: TextFormat,
    /// Mean raw score over the training responses.
    pub reward_mean: f64,
    /// Standard deviation of the same, positive.
    pub reward_std: f64,
    /// Further metadata, under any other keys.
    pub extra: BTreeMap<String, String>,
}

/// Metadata keys a head writes itself.
const OWN: [&str; 8] =
    ["format", "base", "base_name", "backbone", "pooling", "text_format", "reward_mean", "reward_std"];

impl Head {
    /// The head of a fit, of no model yet.
    pub fn new(fit: &Fit, text_format: TextFormat) -> Self {
        Self {
            weight: fit.weight.clone(),
            bias: (fit.bias != 0.0).then_some(fit.bias),
            base: None,
            base_name: None,
            backbone: Backbone::Policy,
            text_format,
            reward_mean: fit.reward_mean,
            reward_std: fit.reward_std,
            extra: BTreeMap::new(),
        }
    }

    /// The file's bytes. Tensors F32 little-endian; metadata `format=stackelberg-head`, `text_format`,
    /// `reward_mean`, `reward_std`, `base` and `base_name` where known, `backbone=embedder` and `pooling` of a head on one, and [`Head::extra`], in the
    /// order of their keys.
    ///
    /// # Errors
    /// A number that is NaN or infinite, a `reward_std` that is not positive, no weight at all, an extra
    /// key that is the head's own.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        self.check()?;
        let weight = ("score.weight", vec![1, self.weight.len()], &self.weight[..]);
        let bias = self.bias.iter().map(|bias| ("score.bias", vec![1], std::slice::from_ref(bias)));
        let tensors: Vec<Named<'_>> = std::iter::once(weight).chain(bias).collect();
        Ok(to_bytes(&self.metadata(), &tensors))
    }

    /// Writes the head to `path`, which ends in `.safetensors`, and `card` (Markdown, see
    /// [`Card::render`](crate::Card::render)) beside it under the same stem with `.md`. Both are
    /// complete on disk before either replaces what was there.
    ///
    /// # Errors
    /// As [`Head::to_bytes`]; another ending; a place that cannot be written.
    pub fn save(&self, path: &Path, card: &str) -> Result<(), Error> {
        if path.extension().is_none_or(|e| e != "safetensors") {
            return Err(Error::Extension { file: path.display().to_string() });
        }
        let bytes = self.to_bytes()?;
        let beside = path.with_extension("md");
        let card = stage(&beside, card.as_bytes())?;
        let head = stage(path, &bytes)?;
        card.finish()?;
        Ok(head.finish()?)
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        let mut metadata = self.extra.clone();
        let mut insert = |key: &str, value: String| metadata.insert(key.to_owned(), value);
        insert("format", "stackelberg-head".to_owned());
        insert("text_format", self.text_format.to_string());
        insert("reward_mean", self.reward_mean.to_string());
        insert("reward_std", self.reward_std.to_string());
        if let Backbone::Embedder(pooling) = self.backbone {
            insert("backbone", "embedder".to_owned());
            insert("pooling", pooling.to_string());
        }
        for (key, value) in [("base", &self.base), ("base_name", &self.base_name)] {
            value.iter().for_each(|value| drop(insert(key, value.clone())));
        }
        metadata
    }

    fn check(&self) -> Result<(), Error> {
        if let Some(key) = self.extra.keys().find(|key| OWN.contains(&key.as_str())) {
            return Err(Error::ReservedKey { key: key.clone() });
        }
        if self.weight.is_empty() {
            return Err(Error::Shape { values: 0, width: 0 });
        }
        let weights = self.weight.iter().enumerate();
        let numbers = weights.map(|(i, &w)| (format!("score.weight[{i}]"), f64::from(w)));
        let bias = self.bias.iter().map(|&b| ("score.bias".to_owned(), f64::from(b)));
        let scale =
            [("reward_mean".to_owned(), self.reward_mean), ("reward_std".to_owned(), self.reward_std)];
        if let Some((what, value)) = numbers.chain(bias).chain(scale).find(|(_, v)| !v.is_finite()) {
            return Err(Error::HeadNumber { what, value });
        }
        if self.reward_std <= 0.0 {
            return Err(Error::Setting { name: "reward_std", value: self.reward_std, must: "positive" });
        }
        Ok(())
    }
}
