//! What can be wrong with rewards, priors and settings, said once and precisely.

/// Why rewards could not be shaped. Every variant names the value at fault, by index where there is one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No reward at all.
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

    /// A weight below zero.
    #[error("weights[{index}] is {value}: a weight cannot be negative")]
    NegativeWeight {
        /// Position in the slice, from 0.
        index: usize,
        /// The value found there.
        value: f64,
    },

    /// Every weight is zero, or every logit minus infinity, so there is no prior.
    #[error("all {what} carry zero mass: at least one response must be possible")]
    NoMass {
        /// `weights` or `logits`.
        what: &'static str,
    },

    /// Largest minus smallest reward is beyond the range of f64.
    #[error("the rewards span from {low} to {high}, more than an f64 can hold: rescale them")]
    Span {
        /// The smallest reward.
        low: f64,
        /// The largest reward.
        high: f64,
    },

    /// A setting outside its range.
    #[error("{name} is {value}: it must be {must}")]
    Setting {
        /// The setting's name, as on the command line.
        name: &'static str,
        /// The value given.
        value: f64,
        /// The values allowed.
        must: &'static str,
    },

    /// A name that is no shaping rule or budget.
    #[error("unknown {what} '{name}': known are {known}")]
    UnknownName {
        /// `shaping rule` or `budget`.
        what: &'static str,
        /// The name given.
        name: String,
        /// The names that exist, separated by commas.
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

/// The first value that is NaN or infinite, as an error.
pub(crate) fn require_finite(what: &'static str, values: &[f64]) -> Result<(), Error> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(index) => Err(Error::NotFinite { what, index, value: values[index] }),
    }
}
