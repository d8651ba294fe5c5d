//! Settings of a training run.

use serde_json::{Map, Value, json};
use stackelberg_shaping::{Rule, Shaping};

use crate::error::Error;
use crate::rollouts::{Dataset, shaping_settings};

/// Largest width of a layer, and the largest number of epochs and of samples per step.
const MOST: usize = 1 << 16;

/// Settings of a training run. Equal settings and data give equal bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How the rewards of each prompt are shaped.
    pub shaping: Shaping,
    /// Coefficient of the smoothness term in the loss.
    pub coef: f64,
    /// Widths `h₁` and `h₂`; `None` means the width `d` of the hidden states. The paper uses 8192 and `d`.
    pub widths: [Option<usize>; 2],
    /// Learning rate of Adam.
    pub learning_rate: f64,
    /// Number of samples per step.
    pub batch: usize,
    /// Maximum number of epochs.
    pub epochs: usize,
    /// Training ends after this number of epochs without a better validation error.
    pub patience: usize,
    /// Share of the prompts in the validation set, between 0 and 1.
    pub validation: f64,
    /// Largest norm of the gradient; larger gradients are scaled down to it.
    pub clip: f64,
    /// Seed of the initial weights, the split and the order of the samples.
    pub seed: u64,
    /// Bytes of hidden states in memory. If the dataset is larger, this also determines which samples can share a
    /// batch.
    pub memory: usize,
}

impl Settings {
    /// The settings of the paper, but with a narrower head, for this shaping.
    pub fn new(shaping: Shaping) -> Self {
        Self {
            shaping,
            coef: 1.0,
            widths: [None; 2],
            learning_rate: 1e-4,
            batch: 64,
            epochs: 15,
            patience: 5,
            validation: 0.05,
            clip: 1.0,
            seed: 0,
            memory: 1 << 30,
        }
    }

    /// The largest possible shaped reward, if all shaped rewards are non-negative and bounded; otherwise `None`.
    pub fn bound(&self) -> Option<f64> {
        match self.shaping.rule {
            Rule::Meanstd => None,
            // All other rules of bounded span have the minimum 0.
            _ => self.shaping.span(1),
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let require = |name, value: f64, holds: bool, must| match holds {
            true => Ok(()),
            false => Err(Error::Setting { name, value, must }),
        };
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let count = |name, value: usize| {
            let holds = (1..=MOST).contains(&value);
            require(name, value as f64, holds, "between 1 and 65536")
        };
        require("lr", self.learning_rate, positive(self.learning_rate), "above zero, and finite")?;
        require("clip", self.clip, positive(self.clip), "above zero, and finite")?;
        let share = self.validation > 0.0 && self.validation < 1.0;
        require("validation", self.validation, share, "above 0 and below 1")?;
        count("batch-size", self.batch)?;
        count("epochs", self.epochs)?;
        count("patience", self.patience)?;
        for (name, width) in ["width", "second-width"].into_iter().zip(self.widths) {
            let Some(width) = width else { continue };
            let fits = (1..=MOST).contains(&width);
            require(name, width as f64, fits, "between 1 and 65536")?;
        }
        require("coef", self.coef, self.coef >= 0.0 && self.coef.is_finite(), "zero or more, and finite")
    }

    /// All settings that determine the head, except the maximum number of epochs, by their names on the command line.
    pub(super) fn summary(&self, dataset: &Dataset) -> Map<String, Value> {
        let pairs = [
            ("batch-size", json!(self.batch)),
            ("clip", json!(self.clip)),
            ("coef", json!(self.coef)),
            ("lr", json!(self.learning_rate)),
            ("memory", json!(self.memory)),
            ("patience", json!(self.patience)),
            ("rollouts", dataset.manifest().summary()),
            ("seed", json!(self.seed)),
            ("shaping", shaping_settings(&self.shaping)),
            ("validation", json!(self.validation)),
            ("widths", json!(self.widths)),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
