//! A linear head on the policy's own hidden states.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use candle_core::Tensor;
use safetensors::{Dtype, SafeTensors};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::reward::project;

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

/// `reward = (w · h + b - mean) / std`, with `h` a hidden state after the final norm.
#[derive(Debug, Clone)]
pub struct Head {
    weight: Vec<f32>,
    bias: f32,
    /// Fingerprint of the model that it was trained on, if it says so.
    pub base: Option<String>,
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
            text_format: TextFormat::Raw,
            mean: 0.0,
            std: 1.0,
            path: PathBuf::from("head"),
        }
    }

    /// Reads a safetensors file with `score.weight` `[1, d]`, optionally `score.bias` `[1]`, and metadata
    /// `format=stackelberg-head`, optionally `base`, `text_format`, `reward_mean`, `reward_std`.
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
        let broken = |e| Error::reward(path, format!("not a whole safetensors file ({e})"));
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
        let metadata: HashMap<String, String> = header.metadata().clone().unwrap_or_default();
        if metadata.get("format").map(String::as_str) != Some("stackelberg-head") {
            let what = "no reward head: its metadata lack format=stackelberg-head";
            return Err(Error::reward(path, what));
        }
        let tensors = SafeTensors::deserialize(bytes).map_err(broken)?;
        let floats = |name: &str| -> Result<Option<Vec<f32>>> {
            let Ok(tensor) = tensors.tensor(name) else { return Ok(None) };
            if tensor.dtype() != Dtype::F32 {
                return Err(Error::reward(
                    path,
                    format!("{name} must be F32, not {:?}", tensor.dtype()),
                ));
            }
            let values: Vec<f32> =
                tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            match values.iter().position(|v| !v.is_finite()) {
                Some(i) => Err(Error::reward(path, format!("{name}[{i}] is {}", values[i]))),
                None => Ok(Some(values)),
            }
        };
        let weight = floats("score.weight")?.filter(|w| !w.is_empty());
        let weight =
            weight.ok_or_else(|| Error::reward(path, "the tensor 'score.weight' is missing"))?;
        let number = |key: &str, default: f64| -> Result<f64> {
            let Some(text) = metadata.get(key) else { return Ok(default) };
            let parsed = text.parse::<f64>().ok().filter(|x| x.is_finite());
            parsed.ok_or_else(|| Error::reward(path, format!("{key} is '{text}', not a number")))
        };
        let (mean, std) = (number("reward_mean", 0.0)?, number("reward_std", 1.0)?);
        if std <= 0.0 {
            return Err(Error::reward(path, format!("reward_std is {std}: it must be above zero")));
        }
        let format = metadata.get("text_format").map_or("raw", String::as_str);
        Ok(Self {
            weight,
            bias: floats("score.bias")?.and_then(|b| b.first().copied()).unwrap_or(0.0),
            base: metadata.get("base").cloned(),
            text_format: format.parse().map_err(|e| Error::reward(path, e))?,
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
    /// Another width, or another base model.
    pub fn fits(&self, policy: &Checkpoint) -> Result<()> {
        let (width, hidden) = (self.width(), policy.model.config().hidden);
        if width != hidden {
            let what = format!("reads hidden states of width {width}, the policy's have {hidden}");
            return Err(Error::reward(&self.path, what));
        }
        match &self.base {
            Some(base) if *base != policy.fingerprint => {
                let what = format!(
                    "was trained on the model {base:.12}, not on this policy ({:.12}): train one for it",
                    policy.fingerprint
                );
                Err(Error::reward(&self.path, what))
            }
            _ => Ok(()),
        }
    }

    /// Rewards of hidden states `[n, d]`.
    ///
    /// # Errors
    /// Another width or type.
    pub fn score(&self, hidden: &Tensor) -> Result<Vec<f64>> {
        let scores = project(hidden, &self.weight)?;
        Ok(scores
            .into_iter()
            .map(|score| (score + f64::from(self.bias) - self.mean) / self.std)
            .collect())
    }
}
