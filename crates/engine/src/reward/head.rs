//! A linear head on the policy's own hidden states.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use candle_core::Tensor;

use crate::checkpoint::Checkpoint;
use crate::embedder::Pooling;
use crate::error::{Error, Result};
use crate::reward::file::{HeadFile, fits};
use crate::reward::{dot, project};

/// How prompt and response are laid out as text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TextFormat {
    /// Prompt and response as they are, one after the other.
    #[default]
    Raw,
    /// The policy's chat template around the prompt, the response behind it.
    Chat,
}

impl TextFormat {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Chat => "chat",
        }
    }
}

impl std::fmt::Display for TextFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for TextFormat {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let known = [Self::Raw, Self::Chat].into_iter().find(|format| format.name() == name);
        known.ok_or_else(|| format!("unknown text format '{name}': known are raw and chat"))
    }
}

/// Whose states a head reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backbone {
    /// Those of the policy itself: it can guide.
    #[default]
    Policy,
    /// Embeddings of whole texts, pooled so: see [`EmbeddedHead`](super::EmbeddedHead).
    Embedder(Pooling),
}

/// `reward = (w · h + b - mean) / std`, with `h` a hidden state after the final norm, or an embedding.
#[derive(Debug, Clone)]
pub struct Head {
    weight: Vec<f32>,
    bias: f32,
    /// Fingerprint of the model that it was trained on, if it says so.
    pub base: Option<String>,
    /// That model's name, if it says so.
    pub base_name: Option<String>,
    /// What kind of model that is.
    pub backbone: Backbone,
    /// How the text was laid out that it was trained on.
    pub text_format: TextFormat,
    /// Mean of the raw scores over the training responses.
    pub mean: f64,
    /// Their standard deviation: rewards are reported in this unit.
    pub std: f64,
    path: PathBuf,
}

impl Head {
    /// A head of these weights `[d]` for raw text: no bias, no base model, rewards in their own unit.
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

    /// Reads a safetensors file with `score.weight` `[1, d]`, optionally `score.bias` `[1]`, and metadata
    /// `format=stackelberg-head`, optionally `base`, `base_name`, `text_format`, `reward_mean`, `reward_std`;
    /// of a head on an embedder `backbone=embedder` and `pooling`.
    ///
    /// # Errors
    /// The file is missing, cut short or no head; a value in it is not finite.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(path, &std::fs::read(path).map_err(Error::read(path))?)
    }

    /// The same from memory; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`Head::load`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let file = HeadFile::open(path, bytes)?;
        if file.text("format") != Some("stackelberg-head") {
            return Err(file.error("no reward head: its metadata lack format=stackelberg-head (a model is given as its folder)"));
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

    /// Width of the hidden states it reads.
    pub fn width(&self) -> usize {
        self.weight.len()
    }

    /// Checks that it was trained on this policy.
    ///
    /// # Errors
    /// It reads an embedder; another width, or another base model.
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
    /// Another width or type.
    pub fn score(&self, hidden: &Tensor) -> Result<Vec<f64>> {
        Ok(project(hidden, &self.weight)?.into_iter().map(|score| self.scaled(score)).collect())
    }

    /// Rewards of embeddings, each of the head's width.
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
