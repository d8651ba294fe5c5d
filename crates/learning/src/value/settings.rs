//! Settings of a training run.

use serde_json::{Map, Value, json};
use stackelberg_shaping::{Rule, Shaping};

use crate::error::Error;
use crate::rollouts::{Dataset, shaping_settings};

/// Widest layer.
const WIDEST: usize = 1 << 16;

/// How a value head is trained. Equal settings and data give equal bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How rewards are shaped, prompt by prompt.
    pub shaping: Shaping,
    /// How much smoothness along the text counts in the loss.
    pub coef: f64,
    /// `h₁` and `h₂`; `None`: as wide as the hidden states, `d`. The paper has 8192 and `d`.
    pub widths: [Option<usize>; 2],
    /// Adam's step size.
    pub learning_rate: f64,
    /// Samples per step.
    pub batch: usize,
    /// Most passes over the training samples.
    pub epochs: usize,
    /// Epochs without a better validation error after which training ends.
    pub patience: usize,
    /// Share of the prompts that validates.
    pub validation: f64,
    /// Longest gradient; longer ones are shortened to it.
    pub clip: f64,
    /// Decides the weights to begin with, the split and the order.
    pub seed: u64,
    /// Bytes of hidden states held at once. Decides which samples may share a batch where the dataset is
    /// larger.
    pub memory: usize,
}

impl Settings {
    /// The paper's, but for the narrower head; for this shaping.
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

    /// The most that a shaped reward can be, where none is below 0: `None` if there is no such bound.
    pub fn bound(&self) -> Option<f64> {
        match self.shaping.rule {
            Rule::Meanstd => None,
            // Of all other rules, those of bounded span begin at 0.
            _ => self.shaping.span(1),
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let require = |name, value: f64, holds: bool, must| match holds {
            true => Ok(()),
            false => Err(Error::Setting { name, value, must }),
        };
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let count = |name, value: usize| require(name, value as f64, value > 0, "at least 1");
        require("lr", self.learning_rate, positive(self.learning_rate), "above zero, and finite")?;
        require("clip", self.clip, positive(self.clip), "above zero, and finite")?;
        let share = self.validation > 0.0 && self.validation < 1.0;
        require("validation", self.validation, share, "above 0 and below 1")?;
        count("batch-size", self.batch)?;
        count("epochs", self.epochs)?;
        count("patience", self.patience)?;
        for (name, width) in ["width", "second-width"].into_iter().zip(self.widths) {
            let Some(width) = width else { continue };
            let fits = (1..=WIDEST).contains(&width);
            require(name, width as f64, fits, "between 1 and 65536")?;
        }
        require("coef", self.coef, self.coef >= 0.0 && self.coef.is_finite(), "zero or more, and finite")
    }

    /// All that decides the head, but for the most epochs, by the names of the command line.
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
