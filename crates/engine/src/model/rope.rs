//! Rotary position embeddings, and how they are scaled to longer contexts than a model was first trained for.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::kernel::Rotary;

/// `rope_scaling` of type `llama3`.
#[derive(Deserialize)]
struct Llama3 {
    factor: f64,
    low_freq_factor: f64,
    high_freq_factor: f64,
    original_max_position_embeddings: f64,
}

/// `rope_scaling` of type `yarn` (Peng et al. 2023, section 3).
#[derive(Deserialize)]
struct Yarn {
    factor: f64,
    original_max_position_embeddings: Option<f64>,
    attention_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    truncate: Option<bool>,
}

/// `rope_scaling` of type `longrope` (Ding et al. 2024).
#[derive(Deserialize)]
struct Long {
    short_factor: Vec<f64>,
    long_factor: Vec<f64>,
    original_max_position_embeddings: Option<f64>,
    attention_factor: Option<f64>,
}

/// A rotation, and the context that it is valid for, if that is not the model's whole context.
pub(super) struct Stretched {
    pub(super) rotary: Rotary,
    pub(super) context: Option<usize>,
}

/// The parameters of a rotation.
pub(super) struct Rope<'a> {
    /// The file that error messages name.
    pub(super) path: &'a Path,
    /// Base of the frequencies.
    pub(super) theta: f64,
    /// How many numbers of a head are rotated.
    pub(super) width: usize,
    /// Width of a head.
    pub(super) head_dim: usize,
    /// The model's context in tokens.
    pub(super) context: usize,
    /// The context that the model was first trained for, if it is given outside of `rope_scaling`.
    pub(super) original: Option<f64>,
}

/// The unscaled frequencies `θ^(-2i/n)` for `n = width`.
pub(crate) fn plain(theta: f64, width: usize) -> Vec<f64> {
    (0..width / 2).map(|i| theta.powf(-2.0 * i as f64 / width as f64)).collect()
}

pub(crate) fn rotary(frequencies: impl IntoIterator<Item = f64>, factor: f64) -> Rotary {
    Rotary { frequencies: frequencies.into_iter().map(|f| f as f32).collect(), factor: factor as f32 }
}

impl Rope<'_> {
    /// The rotation according to `rope_scaling`.
    ///
    /// # Errors
    /// The type is not supported, or its parameters are missing or out of range.
    pub(super) fn scaled(&self, scaling: &Value) -> Result<Stretched> {
        let Self { theta, width, head_dim, .. } = *self;
        // No head is wider than 65536 numbers.
        let even = width.is_multiple_of(2) && width <= head_dim.min(1 << 16);
        if !(even && theta.is_finite() && theta > 1.0) {
            let what =
                format!("rope rotates {width} of {head_dim} numbers of a head with the base {theta}");
            return Err(Error::invalid(self.path, what));
        }
        let whole = |rotary| Ok(Stretched { rotary, context: None });
        let plain = plain(theta, width);
        let kind = scaling["rope_type"].as_str().or(scaling["type"].as_str()).unwrap_or("default");
        match kind {
            "default" => whole(rotary(plain, 1.0)),
            "linear" => {
                let factor = scaling["factor"].as_f64().unwrap_or(f64::NAN);
                self.positive(&[factor])?;
                whole(rotary(plain.iter().map(|f| f / factor), 1.0))
            }
            "llama3" => whole(self.llama3(&self.read(scaling)?, &plain)?),
            "yarn" => whole(self.yarn(&self.read(scaling)?, &plain)?),
            "longrope" | "su" => self.long(&self.read(scaling)?, &plain),
            other => Err(self.error(format!(
                "type '{other}' is not supported; default, linear, llama3, yarn and longrope are"
            ))),
        }
    }

    fn llama3(&self, scaling: &Llama3, plain: &[f64]) -> Result<Rotary> {
        let Llama3 { factor, low_freq_factor: low, high_freq_factor: high, .. } = *scaling;
        let original = scaling.original_max_position_embeddings;
        self.positive(&[factor, low, high - low, original])?;
        let scaled = plain.iter().map(|f| {
            let turns = original * f / std::f64::consts::TAU;
            let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            f * (smooth + (1.0 - smooth) / factor)
        });
        Ok(rotary(scaled, 1.0))
    }

    /// High frequencies are unchanged, low frequencies are divided by the factor, and between them the change is linear.
    fn yarn(&self, scaling: &Yarn, plain: &[f64]) -> Result<Rotary> {
        let factor = scaling.factor;
        let original = scaling.original_max_position_embeddings.or(self.original);
        let original = original.unwrap_or(self.context as f64);
        let (fast, slow) = (scaling.beta_fast.unwrap_or(32.0), scaling.beta_slow.unwrap_or(1.0));
        self.positive(&[factor, original, fast, slow])?;
        // The index of the pair that makes this number of turns within the original context.
        let pair = |turns: f64| {
            let width = self.width as f64;
            width * (original / (turns * std::f64::consts::TAU)).ln() / (2.0 * self.theta.ln())
        };
        let (mut low, mut high) = (pair(fast), pair(slow));
        if scaling.truncate.unwrap_or(true) {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, mut high) = (low.max(0.0), high.min(self.width as f64 - 1.0));
        if high <= low {
            high = low + 0.001;
        }
        let scaled = plain.iter().enumerate().map(|(i, f)| {
            let slow = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            f * (1.0 - slow) + f / factor * slow
        });
        let attention = scaling.attention_factor.unwrap_or(1.0 + 0.1 * factor.max(1.0).ln());
        self.positive(&[attention])?;
        Ok(rotary(scaled, attention))
    }

    /// Uses the factors for short contexts. The factors for long contexts would change the results for short texts, so
    /// the context ends at the length where they would begin to apply.
    fn long(&self, scaling: &Long, plain: &[f64]) -> Result<Stretched> {
        let original = scaling.original_max_position_embeddings.or(self.original);
        let original = original
            .ok_or_else(|| self.error("longrope needs original_max_position_embeddings".to_owned()))?;
        if scaling.short_factor.len() != plain.len() || scaling.long_factor.len() != plain.len() {
            let (short, long, n) = (scaling.short_factor.len(), scaling.long_factor.len(), plain.len());
            return Err(self.error(format!("{short} short and {long} long factors for {n} pairs")));
        }
        self.positive(&scaling.short_factor)?;
        self.positive(&[original])?;
        let stretch = self.context as f64 / original;
        let usual = if stretch <= 1.0 { 1.0 } else { (1.0 + stretch.ln() / original.ln()).sqrt() };
        let scaled = plain.iter().zip(&scaling.short_factor).map(|(f, factor)| f / factor);
        let rotary = rotary(scaled, scaling.attention_factor.unwrap_or(usual));
        Ok(Stretched { rotary, context: Some(original as usize) })
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, scaling: &Value) -> Result<T> {
        serde_json::from_value(scaling.clone()).map_err(|e| self.error(e.to_string()))
    }

    fn positive(&self, numbers: &[f64]) -> Result<()> {
        match numbers.iter().find(|x| !(x.is_finite() && **x > 0.0)) {
            Some(number) => {
                Err(self.error(format!("{number} is given where a positive number is needed")))
            }
            None => Ok(()),
        }
    }

    fn error(&self, what: String) -> Error {
        Error::invalid(self.path, format!("rope_scaling: {what}"))
    }
}
