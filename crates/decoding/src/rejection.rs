//! Which samples are dropped before they are finished ([`Settings::reject`](crate::Settings::reject)): speculative rejection
//! (Sun et al. 2024, arXiv 2410.20290).
//!
//! The samples of best-of-n are decoded together, block by block. At the end of a block, those under way with the lowest
//! rewards of the texts so far are dropped. A finished sample is never dropped.
//!
//! The chosen answer is one of the `M` samples, whatever the rule is by which others are dropped. So it has at most `M` times the
//! probability that the base policy gives it, and its KL is at most `ln M`.

use crate::score::Score;
use crate::stopping::{Saved, expected_gain};

/// A sample that was dropped.
pub(crate) struct Dropped {
    /// Its number among the samples.
    pub(crate) number: usize,
    /// Its tokens when it was dropped.
    pub(crate) tokens: Vec<u32>,
    /// The score of these.
    pub(crate) score: Score,
}

/// The indices of the samples to drop, in ascending order: of those under way the `fraction` with the lowest rewards, rounded
/// down. One always remains. Of equal rewards the last ones are dropped first. `samples` are the rewards, and whether each is
/// finished.
pub(crate) fn lowest(fraction: f64, samples: &[(f64, bool)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..samples.len()).filter(|&i| !samples[i].1).collect();
    let count = order.len();
    // The product of a decimal fraction may be just below a whole number.
    let drop = (fraction * count as f64 + 1e-9).floor() as usize;
    order.sort_by(|&a, &b| samples[a].0.total_cmp(&samples[b].0).then(b.cmp(&a)));
    order.truncate(drop.min(count.saturating_sub(1)));
    order.sort_unstable();
    order
}

/// What dropping samples saved and lost. `finished` are the lengths of the finished samples in tokens and their rewards,
/// `dropped` the lengths of the others when they were dropped. A dropped sample saved the mean length of the finished ones less
/// its own, at least 0. The loss is what as many further samples would be expected to gain: dropped samples had lower rewards
/// than the others, so it is more than is lost.
pub(crate) fn saved(finished: &[(usize, f64)], dropped: &[usize]) -> Saved {
    let lengths: usize = finished.iter().map(|(length, _)| length).sum();
    let mean = lengths as f64 / finished.len() as f64;
    let tokens = dropped.iter().map(|&length| (mean - length as f64).max(0.0)).sum();
    let rewards: Vec<f64> = finished.iter().map(|(_, reward)| *reward).collect();
    Saved { tokens, reward: expected_gain(&rewards, dropped.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_under_way_are_dropped() {
        let under_way = |rewards: &[f64]| rewards.iter().map(|&r| (r, false)).collect::<Vec<_>>();
        let four = under_way(&[0.3, -1.0, 0.5, 0.1]);
        assert_eq!(lowest(0.5, &four), [1, 3]);
        assert_eq!(lowest(0.49, &four), [1]);
        assert_eq!(lowest(0.24, &four), [0usize; 0]);
        assert_eq!(lowest(1e-9, &four), [0usize; 0]);
        assert_eq!(lowest(0.0, &four), [0usize; 0]);
        // One always remains.
        assert_eq!(lowest(1.0 - f64::EPSILON / 2.0, &four), [0, 1, 3]);
        assert_eq!(lowest(0.99, &four[..1]), [0usize; 0]);
        assert_eq!(lowest(0.99, &[]), [0usize; 0]);
        // Of equal rewards the last ones.
        assert_eq!(lowest(0.5, &under_way(&[1.0, 1.0, 1.0, 1.0])), [2, 3]);
        // 0.29 * 100 is less than 29 in binary.
        assert_eq!(lowest(0.29, &under_way(&[0.0; 100])).len(), 29);
    }

    #[test]
    fn finished_samples_are_never_dropped_and_do_not_count() {
        let samples =
            [(-9.0, true), (0.0, false), (-1.0, false), (-8.0, true), (2.0, false), (1.0, false)];
        assert_eq!(lowest(0.5, &samples), [1, 2]);
        assert_eq!(lowest(0.5, &[(-9.0, true), (0.0, true)]), [0usize; 0]);
        assert_eq!(lowest(0.9, &[(-9.0, true), (0.0, false)]), [0usize; 0]);
    }

    #[test]
    fn a_dropped_sample_saves_the_rest_of_a_mean_length() {
        let found = saved(&[(10, 1.0), (20, 3.0)], &[4, 16, 11]);
        assert_eq!(found.tokens, 11.0 + 0.0 + 4.0);
        assert_eq!(found.reward, expected_gain(&[1.0, 3.0], 3));
        assert!(found.reward > 0.0);
        let none = saved(&[(10, 1.0), (20, 3.0)], &[]);
        assert_eq!((none.tokens, none.reward), (0.0, 0.0));
    }
}
