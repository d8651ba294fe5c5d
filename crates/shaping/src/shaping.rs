//! Applies a shaping rule with its settings.

use crate::error::{Error, require};
use crate::follower::{STRENGTH, valid_strength};
use crate::rule::{Budget, Rule};
use crate::samples::Samples;
use crate::threshold::Threshold;

/// Smallest divisor, in reward units: the guard of the paper's code against division by zero.
const TINY: f64 = 1e-6;

/// A rule with all settings. A rule ignores the settings that it does not use, but all must be valid. The default is
/// `srs` with strength 1, bound 2 and alpha 1: with an exponent `B/beta` of 2 nats, the threshold still lies among the rewards
/// of ten samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shaping {
    /// How rewards are shaped.
    pub rule: Rule,
    /// `lambda = 1/beta`, in 1/reward units: the weight of shaped rewards against the base policy. 0 means no guidance.
    pub strength: f64,
    /// `B`, the largest shaped reward, in reward units. 0 means no guidance.
    pub bound: f64,
    /// Steepness of the soft rules, in 1/reward units ([`Rule::SrsStd`]: no unit).
    pub alpha: f64,
    /// Largest shaped reward of [`Rule::Cap`], in reward units.
    pub cap: f64,
    /// Largest factor by which [`Rule::Minmax`] stretches rewards.
    pub stretch: f64,
    /// Quantile of the rewards, in `[0, 1]`, that is `ref` of [`Rule::Par`] and [`Rule::LogSigmoid`].
    pub ref_quantile: f64,
    /// Which bound and exponent take effect.
    pub budget: Budget,
    /// Largest exponent `c` in [`Budget::ReferenceOffline`], in nats.
    pub exponent_cap: f64,
}

impl Default for Shaping {
    fn default() -> Self {
        Self {
            rule: Rule::Srs,
            strength: 1.0,
            bound: 2.0,
            alpha: 1.0,
            cap: 1.0,
            stretch: 1.01,
            ref_quantile: 0.5,
            budget: Budget::Paper,
            exponent_cap: 2.0,
        }
    }
}

/// Shaped rewards with the bound and the threshold that produced them.
#[derive(Debug, Clone, PartialEq)]
pub struct Shaped {
    /// One shaped reward per response, in the order of the rewards.
    pub values: Vec<f64>,
    /// The bound that took effect; `None` for rules without one.
    pub bound: Option<f64>,
    /// The threshold; `None` for rules without one.
    pub threshold: Option<Threshold>,
}

impl Shaping {
    /// Shapes the rewards.
    ///
    /// # Errors
    /// A setting is outside its range.
    pub fn apply(&self, samples: &Samples<'_>) -> Result<Shaped, Error> {
        self.check()?;
        let bound = self.effective_bound(samples);
        let threshold = match self.rule.has_threshold() {
            true => Some(Threshold::new(samples, self.exponent(bound))?),
            false => None,
        };
        let m = threshold.map_or(0.0, |t| t.value);
        let each = |shape: &dyn Fn(f64) -> f64| samples.rewards().iter().map(|&r| shape(r)).collect();
        let values: Vec<f64> = match self.rule {
            Rule::Raw => samples.rewards().to_vec(),
            Rule::Hard => each(&|r| if threshold.is_some_and(|t| t.pays(r)) { bound } else { 0.0 }),
            Rule::Srs => each(&|r| bound * sigmoid(self.alpha * (r - m))),
            Rule::SrsStd => {
                let std = samples.std().max(TINY);
                each(&|r| bound * sigmoid(self.alpha * ((r - m) / std)))
            }
            Rule::MeanSoft => {
                let mean = samples.mean();
                each(&|r| bound * sigmoid(self.alpha * (r - mean)))
            }
            Rule::Minmax => {
                let (min, range) = (samples.min(), samples.range().max(TINY));
                each(&|r| (bound * ((r - min) / range)).min(bound))
            }
            Rule::Meanstd => {
                let (mean, std) = (samples.mean(), samples.std().max(TINY));
                each(&|r| (r - mean) / std)
            }
            Rule::Cap => each(&|r| (r - samples.min()).clamp(0.0, self.cap)),
            Rule::LogSigmoid => {
                let at = samples.quantile(self.ref_quantile);
                each(&|r| log_sigmoid(r - at))
            }
            Rule::Par => {
                let at = samples.quantile(self.ref_quantile);
                each(&|r| sigmoid(r - at))
            }
        };
        Ok(Shaped { values, bound: self.rule.has_bound().then_some(bound), threshold })
    }

    /// The largest difference between two shaped rewards of `k` responses under this rule, for any rewards; `None` if
    /// there is no limit. In greedy decoding, a candidate whose logit is lower by more than `strength` times this
    /// cannot be chosen.
    pub fn span(&self, k: usize) -> Option<f64> {
        match self.rule {
            Rule::Hard | Rule::Srs | Rule::SrsStd | Rule::MeanSoft | Rule::Minmax => Some(self.bound),
            Rule::Cap => Some(self.cap),
            Rule::Par => Some(1.0),
            // Largest distance of two of k values of variance 1: the other k - 2 are in the middle.
            Rule::Meanstd => Some((2.0 * k as f64).sqrt()),
            Rule::Raw | Rule::LogSigmoid => None,
        }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// The first setting outside its range.
    pub fn check(&self) -> Result<(), Error> {
        let positive = |v: f64| v > 0.0 && v.is_finite();
        let from_zero = |v: f64| v >= 0.0 && v.is_finite();
        require("strength", self.strength, valid_strength(self.strength), STRENGTH)?;
        require("bound", self.bound, from_zero(self.bound), "zero or more, and finite")?;
        require("alpha", self.alpha, positive(self.alpha), "above zero, and finite")?;
        require("cap", self.cap, from_zero(self.cap), "zero or more, and finite")?;
        require("stretch", self.stretch, positive(self.stretch), "above zero, and finite")?;
        let quantile = (0.0..=1.0).contains(&self.ref_quantile);
        require("ref-quantile", self.ref_quantile, quantile, "between 0 and 1")?;
        require("exponent-cap", self.exponent_cap, self.exponent_cap >= 0.0, "zero or more")
    }

    /// The bound that takes effect on these rewards.
    pub(crate) fn effective_bound(&self, samples: &Samples<'_>) -> f64 {
        self.bound.min(self.bound_cap(samples))
    }

    /// The largest bound that takes effect on these rewards; infinite if there is no limit.
    pub(crate) fn bound_cap(&self, samples: &Samples<'_>) -> f64 {
        match self.rule {
            Rule::Minmax => self.stretch * samples.range(),
            _ => self.budget.bound_cap(samples.range()),
        }
    }

    /// The exponent `c` of the threshold, in nats.
    pub(crate) fn exponent(&self, effective_bound: f64) -> f64 {
        (effective_bound * self.strength).min(self.budget.exponent_cap(self.exponent_cap))
    }
}

/// `1 / (1 + exp(-x))` without overflow.
fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

/// `ln sigmoid(x)` without overflow.
fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}
