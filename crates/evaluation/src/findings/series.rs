//! The measured answers of one setting.

use std::fmt;

use stackelberg_decoding::Method;

use crate::compare::mean;
use crate::metrics::{Measured, Metric};

/// The setting that limits how far guidance moves the policy.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub enum Knob {
    /// The strength λ = 1/β.
    Strength(f64),
    /// The KL divergence from the base policy that each step may have, in nats. It replaces strength and bound.
    KlBudget(f64),
}

impl Knob {
    /// The strength, or the budget in nats.
    pub fn value(self) -> f64 {
        match self {
            Self::Strength(value) | Self::KlBudget(value) => value,
        }
    }
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strength(strength) => write!(f, "λ {strength}"),
            Self::KlBudget(nats) => write!(f, "{nats} nats a step"),
        }
    }
}

/// All answers of one setting.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// The decoding method, if it is known.
    pub method: Option<Method>,
    /// The method. Tables and legends group rows and curves by it.
    pub group: String,
    /// Method and shaping: the name of a curve.
    pub curve: String,
    /// How far guidance may go; `None` for methods without guidance.
    pub knob: Option<Knob>,
    /// How the rewards that guide were perturbed; `None` if they were not.
    pub perturbation: Option<String>,
    /// Whether the main table shows it: it has no knob, or the sweep selected its knob.
    pub kept: bool,
    /// Whether its shaping is the one that the sweep used.
    pub vanilla: bool,
    /// The mean number of tokens that the policy generates per prompt, over all samples that an answer is chosen from.
    pub generated: Option<f64>,
    /// The mean number of tokens that are run through the policy per prompt, candidates and unchosen samples included.
    pub tokens_run: Option<f64>,
    /// The mean number of candidate tokens that are scored per prompt, for methods that guide each step.
    pub scored: Option<f64>,
    /// The measured answers: one list per seed, each in the order of the prompts.
    pub seeds: Vec<Vec<Measured>>,
}

impl Series {
    /// One value per prompt: the mean over the seeds. A value that is missing for a seed gives NaN.
    pub fn values(&self, metric: &Metric) -> Vec<f64> {
        let prompts = self.seeds.first().map_or(0, Vec::len);
        let of_prompt = |prompt: usize| {
            let seeds: Vec<f64> = self.seeds.iter().map(|seed| metric.of(&seed[prompt])).collect();
            mean(&seeds)
        };
        (0..prompts).map(of_prompt).collect()
    }
}
