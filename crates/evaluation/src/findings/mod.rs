//! Findings of an experiment: tables, curves, win rates and sentences, computed from measured answers.
//!
//! All comparisons are paired by prompt. Each series has one value per prompt, the mean over seeds, and all intervals
//! use the same bootstrap resamples.

mod charts;
mod costs;
mod degeneration;
mod matrices;
mod opening;
mod paired;
mod sentences;
mod series;
mod tables;

pub use degeneration::{Degeneration, Limits, Relative, degeneration, described};
pub use paired::Findings;
pub use series::{Knob, Series};
