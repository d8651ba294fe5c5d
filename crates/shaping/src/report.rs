//! Everything worth knowing about one prompt's shaping, in one call.

use std::fmt;

use crate::error::Error;
use crate::follower::Follower;
use crate::interval::{Confidence, Interval};
use crate::kl_budget::KlBudget;
use crate::samples::Samples;
use crate::shaping::{Shaped, Shaping};

/// Shaped rewards together with what the follower makes of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The settings in force: as given, or as solved for a KL budget.
    pub shaping: Shaping,
    /// Shaped rewards, bound and threshold.
    pub shaped: Shaped,
    /// How sure the threshold is; `None` for rules without one and for responses not drawn at random.
    pub interval: Option<Interval>,
    /// `E_rho[r]`: what the user gets without guidance.
    pub base_utility: f64,
    /// The follower that is shown the reward itself, at the same strength.
    pub raw: Follower,
    /// The follower that is shown the shaped reward.
    pub follower: Follower,
    /// What a careful reader should know before using these numbers.
    pub warnings: Vec<Warning>,
}

/// A reason to doubt a result.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// Nothing to shape: the rewards do not differ.
    AllEqual,
    /// Only one of the samples reaches the threshold. (Of weighted or enumerated responses one may well
    /// carry all the mass.)
    OneAbove,
    /// The interval has no high end.
    NoHighEnd,
    /// The KL budget is more than the rule can spend on these rewards.
    Saturated {
        /// What it spends, in nats.
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
    /// Shapes the rewards and reports. With `kl_budget` (nats) the bound, or for rules without one the
    /// strength, is solved for first. With `confidence`, an interval for the threshold is added.
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
