//! One prompt's shaping with all its statistics, in one call.

use std::fmt;

use crate::error::Error;
use crate::follower::Follower;
use crate::interval::{Confidence, Interval};
use crate::kl_budget::KlBudget;
use crate::samples::Samples;
use crate::shaping::{Shaped, Shaping};

/// Shaped rewards, the follower's response to them, and warnings.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The settings used: as given, or solved for a KL budget.
    pub shaping: Shaping,
    /// Shaped rewards, bound and threshold.
    pub shaped: Shaped,
    /// Confidence interval of the threshold; `None` for rules without a threshold and for responses that were not drawn
    /// at random.
    pub interval: Option<Interval>,
    /// `E_rho[r]`: the utility without guidance.
    pub base_utility: f64,
    /// The follower of the unshaped rewards at the same strength.
    pub raw: Follower,
    /// The follower of the shaped rewards.
    pub follower: Follower,
    /// Reasons to doubt these numbers.
    pub warnings: Vec<Warning>,
}

/// A reason to doubt a result.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// All rewards are equal, so that shaping has no effect.
    AllEqual,
    /// Only one sample reaches the threshold. Not reported for weighted or enumerated responses, of which one can
    /// have most of the mass.
    OneAbove,
    /// The interval has no high end.
    NoHighEnd,
    /// The KL budget is larger than the rule can spend on these rewards.
    Saturated {
        /// The KL that the rule reaches, in nats.
        kl: f64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::AllEqual => write!(f, "all rewards are equal: nothing to shape"),
            Warning::OneAbove => write!(
                f,
                "only one response reaches the threshold: \
                 the base policy hardly ever produces a preferred response here"
            ),
            Warning::NoHighEnd => {
                write!(f, "too few responses lie above the threshold to bound it from above")
            }
            Warning::Saturated { kl } => {
                write!(f, "the KL budget cannot be spent: this rule reaches at most {kl:.6} nats here")
            }
        }
    }
}

impl Report {
    /// Shapes the rewards and computes all statistics. With `kl_budget` (nats), first solves for the bound or, for
    /// rules without one, the strength. With `confidence`, adds an interval for the threshold.
    ///
    /// # Errors
    /// As [`Shaping::apply`], [`KlBudget::solve`] and [`Follower::respond`].
    pub fn new(
        shaping: &Shaping,
        samples: &Samples<'_>,
        kl_budget: Option<f64>,
        confidence: Option<&Confidence>,
    ) -> Result<Self, Error> {
        let solved = kl_budget.map(|nats| KlBudget::solve(shaping, samples, nats)).transpose()?;
        let shaping = solved.map_or(*shaping, |s| s.shaping);
        let shaped = shaping.apply(samples)?;
        let follower = Follower::respond(samples, &shaped.values, shaping.strength)?;
        let raw = Follower::respond(samples, samples.rewards(), shaping.strength)?;
        let base_utility = Follower::respond(samples, samples.rewards(), 0.0)?.utility;
        let interval = match (&shaped.threshold, confidence) {
            (Some(threshold), Some(confidence)) => confidence.interval(samples, threshold),
            _ => None,
        };

        let mut warnings = Vec::new();
        if samples.all_equal() {
            warnings.push(Warning::AllEqual);
        } else if samples.drawn() && shaped.threshold.is_some_and(|t| t.above == 1) {
            warnings.push(Warning::OneAbove);
        }
        if interval.is_some_and(|i| i.high.is_none()) {
            warnings.push(Warning::NoHighEnd);
        }
        if let Some(solved) = solved.filter(|s| s.saturated) {
            warnings.push(Warning::Saturated { kl: solved.kl });
        }
        Ok(Self { shaping, shaped, interval, base_utility, raw, follower, warnings })
    }
}
