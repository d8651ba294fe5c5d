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

impl Estimate {
    /// -1 if the interval lies below 0, 1 if it lies above 0, and 0 if it contains 0.
    pub fn sign(&self) -> i8 {
        i8::from(self.low > 0.0) - i8::from(self.high < 0.0)
    }
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
