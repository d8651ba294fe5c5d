//! The results of statistics over prompts.

use serde::{Deserialize, Serialize};

/// A mean over prompts with its 95 percent bootstrap interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
}

/// How often one method beats another over the same prompts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Wins {
    /// Prompts on which the first method has the higher value.
    pub win: usize,
    /// Prompts on which both have the same value.
    pub tie: usize,
    /// Prompts on which the second method has the higher value.
    pub lose: usize,
    /// The p value of the two-sided sign test.
    pub p: f64,
}
