//! The safetensors file of a reward head. Equal heads give equal bytes.

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
    /// `score.weight`, `[d]`; stored with shape `[1, d]`.
    pub weight: Vec<f32>,
    /// `score.bias`; stored with shape `[1]`, or not at all if `None`.
    pub bias: Option<f32>,
    /// Hash of the model whose hidden states are the head's features.
    pub base: Option<String>,
    /// Name of that model, for display.
    pub base_name: Option<String>,
    /// Kind of that model.
    pub backbone: Backbone,
    /// Format of the texts that the head was trained on.
    pub text_format: TextFormat,
    /// Mean raw score of the training responses.
    pub reward_mean: f64,
    /// Standard deviation of these scores, positive.
    pub reward_std: f64,
    /// Additional metadata. Reserved keys are rejected.
    pub extra: BTreeMap<String, String>,
}

/// Reserved metadata keys.
const OWN: [&str; 8] =
    ["format", "base", "base_name", "backbone", "pooling", "text_format", "reward_mean", "reward_std"];

impl Head {
    /// The head of a fit, without a base model.
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

    /// The bytes of the file: F32 tensors, and metadata in the order of the keys. The metadata are
    /// `format=stackelberg-head`, `text_format`, `reward_mean`, `reward_std`; `base` and `base_name` if known;
    /// `backbone=embedder` and `pooling` for embedders; and [`Head::extra`].
    ///
    /// # Errors
    /// A number is NaN or infinite, `reward_std` is not positive, the weight is empty, or a key of `extra` is reserved.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        self.check()?;
        let weight = ("score.weight", vec![1, self.weight.len()], &self.weight[..]);
        let bias = self.bias.iter().map(|bias| ("score.bias", vec![1], std::slice::from_ref(bias)));
        let tensors: Vec<Named<'_>> = std::iter::once(weight).chain(bias).collect();
        Ok(to_bytes(&self.metadata(), &tensors))
    }

    /// Writes the head to `path`, which must end in `.safetensors`, and `card` (Markdown, see
    /// [`Card::render`](crate::Card::render)) to the same path with extension `.md`. Both files are complete on disk
    /// before either replaces an existing file.
    ///
    /// # Errors
    /// As [`Head::to_bytes`]; the path has another extension or cannot be written.
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
