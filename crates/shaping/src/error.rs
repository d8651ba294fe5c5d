//! Errors about rewards, priors and settings.

/// Why rewards could not be shaped. Each variant names the invalid value, and its index where it has one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The slice of rewards is empty.
    #[error("no rewards: at least one is needed")]
    Empty,

    /// A reward, weight or logit is NaN or infinite.
    #[error("{what}[{index}] is {value}: it must be a finite number")]
    NotFinite {
        /// `rewards`, `weights`, `logits` or `shaped`.
        what: &'static str,
        /// Position in the slice, from 0.
        index: usize,
        /// The value found there.
        value: f64,
    },

    /// Two slices that describe the same responses differ in length.
    #[error("{what} has {found} entries but there are {expected} rewards")]
    Length {
        /// `weights`, `logits` or `shaped`.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The number of rewards.
        expected: usize,
    },

    /// A weight is below zero.
    #[error("weights[{index}] is {value}: a weight cannot be negative")]
    NegativeWeight {
        /// Position in the slice, from 0.
        index: usize,
        /// The value found there.
        value: f64,
    },

    /// Both weights and logits are given.
    #[error("weights and logits exclude each other: give one")]
    TwoPriors,

    /// All weights are zero, or all logits are minus infinity, so that the prior is undefined.
    #[error("all {what} carry zero mass: at least one response must be possible")]
    NoMass {
        /// `weights` or `logits`.
        what: &'static str,
    },

    /// The largest minus the smallest reward overflows `f64`.
    #[error("the rewards span from {low} to {high}, more than an f64 can hold: rescale them")]
    Span {
        /// The smallest reward.
        low: f64,
        /// The largest reward.
        high: f64,
    },

    /// A setting is outside its range.
    #[error("{name} is {value}: it must be {must}")]
    Setting {
        /// The setting's name, as on the command line.
        name: &'static str,
        /// The value given.
        value: f64,
        /// The values allowed.
        must: &'static str,
    },

    /// No shaping rule or budget has this name.
    #[error("unknown {what} '{name}': known are {known}")]
    UnknownName {
        /// `shaping rule` or `budget`.
        what: &'static str,
        /// The name given.
        name: String,
        /// The known names, separated by commas.
        known: String,
    },
}

/// Checks one setting against its range.
pub(crate) fn require(
    name: &'static str,
    value: f64,
    holds: bool,
    must: &'static str,
) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::Setting { name, value, must }) }
}

/// Returns an error for the first value that is NaN or infinite.
pub(crate) fn require_finite(what: &'static str, values: &[f64]) -> Result<(), Error> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(index) => Err(Error::NotFinite { what, index, value: values[index] }),
    }
}
