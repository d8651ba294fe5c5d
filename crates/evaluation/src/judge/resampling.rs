//! Bootstrap intervals of statistics of prompts.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::compare::interval;
use crate::estimate::Estimate;

/// Bootstrap intervals of any statistic of prompts. ([`Bootstrap`](crate::compare::Bootstrap) is for means over a fixed
/// set of prompts.) Intervals with the same seed and number of prompts use the same resamples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resampling {
    /// The number of resamples.
    pub draws: usize,
    /// The seed of the resamples.
    pub seed: u64,
}

impl Default for Resampling {
    fn default() -> Self {
        Self { draws: 10_000, seed: 0 }
    }
}

impl Resampling {
    /// A statistic of `n` prompts, with its 95 percent percentile interval. The statistic receives the indices of the
    /// prompts in a resample. `None` if it has no value for all prompts; resamples without a value are left out.
    pub fn estimate(&self, n: usize, statistic: impl Fn(&[usize]) -> Option<f64>) -> Option<Estimate> {
        let all: Vec<usize> = (0..n).collect();
        let value = statistic(&all)?;
        let mut rng = ChaCha12Rng::seed_from_u64(self.seed);
        let mut sample = all;
        let values = (0..self.draws).filter_map(|_| {
            sample.iter_mut().for_each(|place| *place = rng.random_range(0..n));
            statistic(&sample)
        });
        let values: Vec<f64> = values.collect();
        let exact = Estimate { mean: value, low: value, high: value };
        Some(interval(value, values, 0.025).unwrap_or(exact))
    }

    /// The mean of `values`, one per prompt.
    pub fn mean(&self, values: &[f64]) -> Option<Estimate> {
        self.estimate(values.len(), |sample| {
            let sum: f64 = sample.iter().map(|&at| values[at]).sum();
            (!sample.is_empty()).then(|| sum / sample.len() as f64)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_the_interval_of_its_binomial() {
        // 300 prompts, 200 of them won: the binomial's standard deviation is 0.0272.
        let values: Vec<f64> = (0..300).map(|i| if i < 200 { 1.0 } else { 0.0 }).collect();
        let found = Resampling::default().mean(&values).unwrap();
        assert!((found.mean - 2.0 / 3.0).abs() < 1e-12);
        assert!((found.low - (found.mean - 1.96 * 0.02722)).abs() < 0.005, "{found:?}");
        assert!((found.high - (found.mean + 1.96 * 0.02722)).abs() < 0.005, "{found:?}");
        assert_eq!(Resampling::default().mean(&values), Some(found));
        assert_ne!(Resampling { seed: 1, draws: 100 }.mean(&values), Some(found));
        assert_eq!(Resampling::default().mean(&[]), None);
    }
}
