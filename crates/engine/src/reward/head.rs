//! Linear heads on hidden states or embeddings.

use std::path::{Path, PathBuf};

use candle_core::Tensor;

use super::file::{HeadFile, fits};
use super::project::{dot, project};
use crate::checkpoint::Checkpoint;
use crate::encoder::Pooling;
use crate::error::{Error, Result};
use crate::text_format::TextFormat;

/// The model whose outputs a head reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backbone {
    /// The policy's own hidden states. Such a head can guide the policy.
    #[default]
    Policy,
    /// Embeddings of whole texts with this pooling, see [`EmbeddedHead`](super::EmbeddedHead).
    Embedder(Pooling),
}

/// A linear head: `reward = (w · h + b - mean) / std`, where `h` is a hidden state after the final norm or an embedding.
#[derive(Debug, Clone)]
pub struct Head {
    weight: Vec<f32>,
    bias: f32,
    /// Fingerprint of the model that the head was trained on, if it is known.
    pub base: Option<String>,
    /// Name of that model, if it is known.
    pub base_name: Option<String>,
    /// The kind of that model.
    pub backbone: Backbone,
    /// The layout of the texts that the head was trained on.
    pub text_format: TextFormat,
    /// Mean of the raw scores over the training responses.
    pub mean: f64,
    /// Standard deviation of the raw scores over the training responses: the unit of rewards.
    pub std: f64,
    path: PathBuf,
}

impl Head {
    /// A head with these weights `[d]` for raw text, without bias and base model, with mean 0 and standard deviation 1.
    pub fn new(weight: Vec<f32>) -> Self {
        Self {
            weight,
            bias: 0.0,
            base: None,
            base_name: None,
            backbone: Backbone::Policy,
            text_format: TextFormat::Raw,
            mean: 0.0,
            std: 1.0,
            path: PathBuf::from("head"),
        }
    }

    /// Loads a safetensors file with `score.weight` `[1, d]` and optionally `score.bias` `[1]`. Its metadata must have
    /// `format=stackelberg-head` and may have `base`, `base_name`, `text_format`, `reward_mean` and `reward_std`. A head
    /// on an embedder also has `backbone=embedder` and `pooling`.
    ///
    /// # Errors
    /// The file is missing, truncated or not a head; a value is not finite.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(path, &std::fs::read(path).map_err(Error::read(path))?)
    }

    /// As [`Head::load`], from memory. Error messages name the file `path`.
    ///
    /// # Errors
    /// As [`Head::load`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let file = HeadFile::open(path, bytes)?;
        if file.text("format") != Some("stackelberg-head") {
            return Err(file.error("not a reward head: its metadata lack format=stackelberg-head (a model is given as its folder)"));
        }
        let weight = file.floats("score.weight")?.map(|(_, values)| values).filter(|w| !w.is_empty());
        let weight = weight.ok_or_else(|| file.missing("score.weight"))?;
        let mean = file.number("reward_mean")?.unwrap_or(0.0);
        let std = file.number("reward_std")?.unwrap_or(1.0);
        if std <= 0.0 {
            return Err(file.error(format!("reward_std is {std}: it must be above zero")));
        }
        Ok(Self {
            weight,
            bias: file.floats("score.bias")?.and_then(|(_, b)| b.first().copied()).unwrap_or(0.0),
            base: file.text("base").map(str::to_owned),
            base_name: file.text("base_name").map(str::to_owned),
            backbone: backbone(&file)?,
            text_format: file
                .text("text_format")
                .unwrap_or("raw")
                .parse()
                .map_err(|e: String| file.error(e))?,
            mean,
            std,
            path: path.to_owned(),
        })
    }

    /// Width of the hidden states or embeddings, `d`.
    pub fn width(&self) -> usize {
        self.weight.len()
    }

    /// Checks that the head was trained on this policy.
    ///
    /// # Errors
    /// The head reads embeddings, has another width, or was trained on another model.
    pub fn fits(&self, policy: &Checkpoint) -> Result<()> {
        if let Backbone::Embedder(_) = self.backbone {
            let of = self.base_name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
            let what = format!("a head on an embedder{of}, not on the hidden states of a policy");
            return Err(self.wrong(what));
        }
        fits(&self.path, self.width(), self.base.as_deref(), policy)
    }

    /// Rewards of hidden states `[n, d]`.
    ///
    /// # Errors
    /// The hidden states have another width or dtype.
    pub fn score(&self, hidden: &Tensor) -> Result<Vec<f64>> {
        Ok(project(hidden, &self.weight)?.into_iter().map(|score| self.scaled(score)).collect())
    }

    /// Rewards of embeddings of width `d`.
    pub(super) fn score_rows(&self, rows: &[Vec<f32>]) -> Vec<f64> {
        rows.iter().map(|row| self.scaled(dot(row, &self.weight))).collect()
    }

    fn scaled(&self, score: f64) -> f64 {
        (score + f64::from(self.bias) - self.mean) / self.std
    }

    pub(super) fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::reward(&self.path, what)
    }
}

fn backbone(file: &HeadFile<'_>) -> Result<Backbone> {
    match file.text("backbone") {
        None | Some("policy") => Ok(Backbone::Policy),
        Some("embedder") => {
            let pooling = file.text("pooling").unwrap_or(Pooling::Mean.name());
            Ok(Backbone::Embedder(pooling.parse().map_err(|e: String| file.error(e))?))
        }
        Some(other) => {
            Err(file.error(format!("unknown backbone '{other}': known are policy and embedder")))
        }
    }
}
