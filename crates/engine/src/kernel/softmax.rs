//! The online softmax of attention: weighted values of some keys, and how those of several groups of keys are combined.

use super::elementwise::{exp, tree};
use super::pages::PAGE;
use super::weight::LANES;

/// Weighted values of a group of keys, for some rows.
#[derive(Default)]
pub(super) struct Sums {
    /// The largest score and the total of `exp(score - largest)`, `[t]`. The largest is minus infinity if a row sees no key.
    pub(super) running: Vec<(f32, f32)>,
    /// Values weighted by `exp(score - largest)`, panels of `[t][32]`.
    pub(super) values: Vec<f32>,
}

impl Sums {
    /// The sums of no keys, for `count` rows.
    pub(super) fn clear(&mut self, count: usize, padded: usize) {
        self.running.clear();
        self.running.resize(count, (f32::NEG_INFINITY, 0.0));
        self.values.clear();
        self.values.resize(count * padded, 0.0);
    }

    /// Adds the sums of other keys for the same rows. The sums of no keys take on the others' bits.
    #[inline(always)]
    pub(super) fn add(&mut self, other: &Self) {
        let count = self.running.len();
        for (t, ((most, total), &(other_most, other_total))) in
            self.running.iter_mut().zip(&other.running).enumerate()
        {
            if other_most == f32::NEG_INFINITY {
                continue;
            }
            let new = if *most > other_most { *most } else { other_most };
            let factor = |most: f32| if most == new { 1.0 } else { exp(most - new) };
            let (ours, others) = (factor(*most), factor(other_most));
            *total = *total * ours + other_total * others;
            *most = new;
            let panels = self.values.chunks_exact_mut(count * LANES);
            for (panel, other) in panels.zip(other.values.chunks_exact(count * LANES)) {
                let lanes = panel[t * LANES..][..LANES].iter_mut().zip(&other[t * LANES..][..LANES]);
                lanes.for_each(|(value, other)| *value = *value * ours + other * others);
            }
        }
    }
}

/// One step of the online softmax: folds the scores of one page into the maxima and totals of some rows, and scales the values
/// that were summed before. `shares` holds the scores, minus infinity for keys that a row does not see; they become
/// `exp(score - maximum)`.
#[inline(always)]
pub(super) fn fold(shares: &mut [[f32; PAGE]], sums: &mut Sums) {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let count = shares.len();
    for (t, (shares, (most, total))) in shares.iter_mut().zip(&mut sums.running).enumerate() {
        let before = *most;
        *most = tree(
            across(shares, |a, b, c, d| larger(larger(larger(larger(before, a), b), c), d)),
            larger,
        );
        // A row that sees no key yet keeps minus infinity; its shares are all 0.
        let new = if *most == f32::NEG_INFINITY { 0.0 } else { *most };
        for share in shares.iter_mut() {
            let score = *share;
            *share = if score == f32::NEG_INFINITY { 0.0 } else { exp(score - new) };
        }
        let added = tree(across(shares, |a, b, c, d| a + b + c + d), |a, b| a + b);
        if before == *most {
            *total += added;
            continue;
        }
        let shrink = exp(before - new);
        *total = *total * shrink + added;
        for panel in sums.values.chunks_exact_mut(count * LANES) {
            panel[t * LANES..][..LANES].iter_mut().for_each(|value| *value *= shrink);
        }
    }
}

/// `f` of the four parts of a page, number by number.
///
/// The result takes the way through memory, so that the compiler uses vectors of 16 numbers here and does not try to
/// combine this with what is done with the result, which is several times slower.
#[inline(always)]
fn across(page: &[f32; PAGE], f: impl Fn(f32, f32, f32, f32) -> f32) -> [f32; 16] {
    let [a, b, c, d] = quarters(page);
    let mut lanes = [0.0; 16];
    for i in 0..16 {
        lanes[i] = f(a[i], b[i], c[i], d[i]);
    }
    std::hint::black_box(lanes)
}

/// A page's numbers of one row, in four parts.
#[inline(always)]
fn quarters(page: &[f32; PAGE]) -> [&[f32; 16]; 4] {
    let parts = page.as_chunks::<16>().0;
    [&parts[0], &parts[1], &parts[2], &parts[3]]
}
