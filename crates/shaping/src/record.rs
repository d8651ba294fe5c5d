//! A [`Report`] as one flat record: the answer of the command line, the server and the Python package.

use crate::report::Report;
use crate::{argmax, fuse};

/// A [`Report`] with plain numbers only. The feature `serde` makes it writable, the feature `schema` adds its description for
/// OpenAPI.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Record {
    /// The threshold `m*`, for rules that have one.
    pub threshold: Option<f64>,
    /// How exactly the threshold solves its equation, in reward units: zero up to rounding.
    pub residual: Option<f64>,
    /// The smallest reward that has the bound.
    pub lowest_rewarded: Option<f64>,
    /// The largest reward that has not.
    pub highest_unrewarded: Option<f64>,
    /// Confidence interval of the threshold.
    pub interval: Option<Range>,
    /// The bound `B`, for rules that have one.
    pub bound: Option<f64>,
    /// The guidance strength `1/beta`.
    pub strength: f64,
    /// The shaped rewards, in the order of the rewards.
    pub shaped: Vec<f64>,
    /// Logits plus strength times shaped rewards, where logits are given.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub fused: Option<Vec<f64>>,
    /// The index of the largest of them.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub chosen: Option<usize>,
    /// Expected rewards.
    pub utility: Utility,
    /// KL from the base policy, in nats.
    pub kl: Kl,
    /// The effective number of responses that the follower has.
    pub ess: f64,
    /// Responses at or above the threshold.
    pub above: Option<usize>,
    /// Reasons to doubt these numbers.
    pub warnings: Vec<String>,
}

/// A confidence interval.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Range {
    /// Its level, between 0 and 1.
    pub level: f64,
    /// The low end.
    pub low: f64,
    /// The high end, if there is one.
    pub high: Option<f64>,
}

/// Expected rewards: of the base policy, and of the followers of raw and of shaped rewards.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Utility {
    /// Of the base policy.
    pub base: f64,
    /// Of the follower of the raw rewards.
    pub raw: f64,
    /// Of the follower of the shaped rewards.
    pub shaped: f64,
}

/// KL from the base policy in nats: of the followers of raw and of shaped rewards.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Kl {
    /// Of the follower of the raw rewards.
    pub raw: f64,
    /// Of the follower of the shaped rewards.
    pub shaped: f64,
}

impl Record {
    /// The record of a report. `logits` are those of a step's candidates, in the order of the rewards.
    pub fn new(report: &Report, logits: Option<&[f64]>) -> Self {
        let threshold = report.shaped.threshold;
        let shaped = report.shaped.values.clone();
        let fused = logits.map(|logits| fuse(logits, &shaped, report.shaping.strength));
        Self {
            threshold: threshold.map(|t| t.value),
            residual: threshold.map(|t| t.residual),
            lowest_rewarded: threshold.map(|t| t.lowest_rewarded),
            highest_unrewarded: threshold.and_then(|t| t.highest_unrewarded),
            interval: report.interval.map(|i| Range { level: i.level, low: i.low, high: i.high }),
            bound: report.shaped.bound,
            strength: report.shaping.strength,
            shaped,
            chosen: fused.as_deref().and_then(argmax),
            fused,
            utility: Utility {
                base: report.base_utility,
                raw: report.raw.utility,
                shaped: report.follower.utility,
            },
            kl: Kl { raw: report.raw.kl, shaped: report.follower.kl },
            ess: report.follower.ess,
            above: threshold.map(|t| t.above),
            warnings: report.warnings.iter().map(ToString::to_string).collect(),
        }
    }
}
