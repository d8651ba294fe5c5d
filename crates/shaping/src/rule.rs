//! The shaping rules by name, and the settings of the budget.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// How rewards `r` become shaped rewards `s`. `range`, `mean`, `std` and quantiles are those of the set
/// being shaped: a prompt's samples, or the candidates of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// `s = r`: vanilla ARGS and CD. The best rule at a given KL (Gibbs' variational principle).
    Raw,
    /// `s = B` where `r >= m*`, else 0. The best rule at a given bound (Theorem 1).
    Hard,
    /// `s = B sigmoid(alpha (r - m*))`: Stackelberg reward shaping, the paper's method.
    Srs,
    /// `s = B sigmoid(alpha (r - mean))`: the paper's ablation of the threshold.
    MeanSoft,
    /// `s = B' (r - min) / max(range, 1e-6)`, `B' = min(B, stretch * range)`.
    Minmax,
    /// `s = (r - mean) / max(std, 1e-6)`, population standard deviation.
    Meanstd,
    /// `s = B sigmoid(alpha (r - m*) / max(std, 1e-6))`: [`Rule::Srs`] with alpha free of units (ours).
    SrsStd,
    /// `s = clamp(r - min, 0, cap)`.
    Cap,
    /// `s = ln sigmoid(r - ref)`, `ref` a quantile of the rewards (Wang et al. 2024).
    LogSigmoid,
    /// `s = sigmoid(r - ref)`, `ref` likewise: preference as reward (Fu et al. 2025).
    Par,
}

impl Rule {
    /// All rules, in the order of the documentation.
    pub const ALL: [Rule; 10] = [
        Rule::Raw,
        Rule::Hard,
        Rule::Srs,
        Rule::MeanSoft,
        Rule::Minmax,
        Rule::Meanstd,
        Rule::SrsStd,
        Rule::Cap,
        Rule::LogSigmoid,
        Rule::Par,
    ];

    /// The rule's name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Raw => "raw",
            Rule::Hard => "hard",
            Rule::Srs => "srs",
            Rule::MeanSoft => "mean-soft",
            Rule::Minmax => "minmax",
            Rule::Meanstd => "meanstd",
            Rule::SrsStd => "srs-std",
            Rule::Cap => "cap",
            Rule::LogSigmoid => "log-sigmoid",
            Rule::Par => "par",
        }
    }

    /// Whether the rule is scaled by the bound `B`. The others know no bound; their one knob is the
    /// strength.
    pub fn has_bound(self) -> bool {
        matches!(self, Rule::Hard | Rule::Srs | Rule::SrsStd | Rule::MeanSoft | Rule::Minmax)
    }

    /// Whether the rule uses the threshold `m*`.
    pub fn has_threshold(self) -> bool {
        matches!(self, Rule::Hard | Rule::Srs | Rule::SrsStd)
    }
}

/// Which bound and which exponent `c = B/beta` the rules [`Rule::Hard`], [`Rule::Srs`],
/// [`Rule::SrsStd`] and [`Rule::MeanSoft`] work with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Budget {
    /// `B` and `c = B/beta` as given: the paper, and the setting in which its theorem holds.
    #[default]
    Paper,
    /// What the paper's public code does at each ARGS step: `B' = min(B, 1.01 range)`,
    /// `c = min(B'/beta, ln 2)`. The follower feels `B'/beta`, so `m*` is not its utility.
    ReferenceStep,
    /// What that code does offline: `B' = min(B, 2 range)`, `c = min(B'/beta, exponent cap)`.
    ReferenceOffline,
}

impl Budget {
    /// All budgets.
    pub const ALL: [Budget; 3] = [Budget::Paper, Budget::ReferenceStep, Budget::ReferenceOffline];

    /// The budget's name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Budget::Paper => "paper",
            Budget::ReferenceStep => "reference-step",
            Budget::ReferenceOffline => "reference-offline",
        }
    }

    /// The largest bound that can take effect on rewards of this range; infinite in [`Budget::Paper`].
    pub(crate) fn bound_cap(self, range: f64) -> f64 {
        match self {
            Budget::Paper => f64::INFINITY,
            Budget::ReferenceStep => 1.01 * range,
            Budget::ReferenceOffline => 2.0 * range,
        }
    }

    /// The largest exponent that the threshold is found with.
    pub(crate) fn exponent_cap(self, offline: f64) -> f64 {
        match self {
            Budget::Paper => f64::INFINITY,
            Budget::ReferenceStep => std::f64::consts::LN_2,
            Budget::ReferenceOffline => offline,
        }
    }
}

/// A named choice reads from and prints as its name.
macro_rules! named {
    ($type:ty, $what:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self, Error> {
                Self::ALL.into_iter().find(|x| x.name() == name).ok_or_else(|| Error::UnknownName {
                    what: $what,
                    name: name.to_owned(),
                    known: Self::ALL.map(Self::name).join(", "),
                })
            }
        }
    };
}

named!(Rule, "shaping rule");
named!(Budget, "budget");
