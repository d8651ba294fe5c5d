//! The shaping rules and budgets, with their names.

use strum::VariantArray;

use crate::error::Error;

/// How rewards `r` become shaped rewards `s`.
///
/// `min`, `range`, `mean`, `std` and quantiles are those of the set being shaped: the samples of one prompt, or the
/// candidates of one decoding step. The names are those of the command line (`mean-soft`), for [`FromStr`] and
/// [`Display`].
///
/// [`FromStr`]: std::str::FromStr
/// [`Display`]: std::fmt::Display
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "kebab-case", parse_err_ty = Error, parse_err_fn = unknown_rule)]
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
    /// `s = (r - mean) / max(std, 1e-6)`, with the population standard deviation.
    Meanstd,
    /// `s = B sigmoid(alpha (r - m*) / max(std, 1e-6))`: [`Rule::Srs`] with a dimensionless `alpha`. Not in the
    /// paper.
    SrsStd,
    /// `s = clamp(r - min, 0, cap)`.
    Cap,
    /// `s = ln sigmoid(r - ref)`, where `ref` is a quantile of the rewards (Wang et al. 2024).
    LogSigmoid,
    /// `s = sigmoid(r - ref)`, with the same `ref`: preference as reward (Fu et al. 2025).
    Par,
}

impl Rule {
    /// All rules, in the order of the documentation.
    pub const ALL: [Rule; Rule::VARIANTS.len()] = *Rule::VARIANTS.first_chunk().expect("equal lengths");

    /// The rule's name, as on the command line.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether the rule is scaled by the bound `B`. The other rules are controlled by the strength alone.
    pub fn has_bound(self) -> bool {
        matches!(self, Rule::Hard | Rule::Srs | Rule::SrsStd | Rule::MeanSoft | Rule::Minmax)
    }

    /// Whether the rule uses the threshold `m*`.
    pub fn has_threshold(self) -> bool {
        matches!(self, Rule::Hard | Rule::Srs | Rule::SrsStd)
    }
}

/// Which bound and which exponent `c = B/beta` the rules [`Rule::Hard`], [`Rule::Srs`], [`Rule::SrsStd`] and
/// [`Rule::MeanSoft`] use.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "kebab-case", parse_err_ty = Error, parse_err_fn = unknown_budget)]
#[non_exhaustive]
pub enum Budget {
    /// `B` and `c = B/beta` as given: the setting of the paper, in which its theorem holds.
    #[default]
    Paper,
    /// What the paper's public code does at each ARGS step: `B' = min(B, 1.01 range)`, `c = min(B'/beta, ln 2)`. The
    /// follower responds to `B'/beta`, so `m*` is not its utility.
    ReferenceStep,
    /// What that code does offline: `B' = min(B, 2 range)`, `c = min(B'/beta, exponent cap)`.
    ReferenceOffline,
}

impl Budget {
    /// All budgets.
    pub const ALL: [Budget; Budget::VARIANTS.len()] =
        *Budget::VARIANTS.first_chunk().expect("equal lengths");

    /// The budget's name, as on the command line.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The largest bound that takes effect on rewards of this range; infinite in [`Budget::Paper`].
    pub(crate) fn bound_cap(self, range: f64) -> f64 {
        match self {
            Budget::Paper => f64::INFINITY,
            Budget::ReferenceStep => 1.01 * range,
            Budget::ReferenceOffline => 2.0 * range,
        }
    }

    /// The largest exponent, in nats, with which the threshold is computed.
    pub(crate) fn exponent_cap(self, offline: f64) -> f64 {
        match self {
            Budget::Paper => f64::INFINITY,
            Budget::ReferenceStep => std::f64::consts::LN_2,
            Budget::ReferenceOffline => offline,
        }
    }
}

fn unknown_rule(name: &str) -> Error {
    let known = Rule::ALL.map(Rule::name).join(", ");
    Error::UnknownName { what: "shaping rule", name: name.to_owned(), known }
}

fn unknown_budget(name: &str) -> Error {
    let known = Budget::ALL.map(Budget::name).join(", ");
    Error::UnknownName { what: "budget", name: name.to_owned(), known }
}
