//! Bidirectional attention of one text, as encoders need it.

use std::ops::Range;

use super::Variant;
use super::elementwise::{exp, sum, vectorised};
use super::rotary::Angles;
use super::tile;
use super::weight::LANES;

/// Number of queries that run at once. It bounds the memory of the scores.
const QUERIES: usize = 48;

/// Bidirectional attention, with its buffers.
pub(crate) struct BothWays {
    /// Number of heads.
    pub(crate) heads: usize,
    /// Width of a head.
    pub(crate) dim: usize,
    /// Factor on the products of queries and keys.
    scale: f32,
    variant: Variant,
    /// Keys of one head, `[block][dim][32 keys]`.
    keys: Vec<f32>,
    /// Values of one head, `[part of dim][keys][32 of dim]`.
    values: Vec<f32>,
    /// Scores of some queries, `[block][query][32 keys]`.
    scores: Vec<f32>,
    /// Bias on one head's scores, `[query][key]`; empty if there is none.
    bias: Vec<f32>,
}

/// Writes the bias on the scores of the head with this index, `[query][key]`.
pub(crate) type Bias<'a> = &'a mut dyn FnMut(usize, &mut [f32]);

impl BothWays {
    pub(crate) fn new(heads: usize, dim: usize, scale: f32) -> Self {
        let (keys, values, scores, bias) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { heads, dim, scale, variant: Variant::detect(), keys, values, scores, bias }
    }

    /// Attention of one text of `n` tokens. `qkv` `[n, 3 heads dim]` holds queries, keys and values side by side; the
    /// result `y` is `[n, heads dim]`. With a `window`, a query sees the keys at a distance of at most `window`.
    pub(crate) fn attend(
        &mut self,
        qkv: &[f32],
        y: &mut [f32],
        window: Option<usize>,
        mut bias: Option<Bias<'_>>,
    ) {
        let width = self.heads * self.dim;
        assert_eq!(qkv.len(), 3 * y.len(), "queries, keys and values for each output");
        let n = y.len() / width;
        let seen = |row: usize| match window {
            Some(window) => row.saturating_sub(window)..row.saturating_add(window).min(n - 1) + 1,
            None => 0..n,
        };
        for head in 0..self.heads {
            self.lay_out(qkv, n, head);
            self.bias.clear();
            if let Some(bias) = &mut bias {
                self.bias.resize(n * n, 0.0);
                bias(head, &mut self.bias);
            }
            for first in (0..n).step_by(QUERIES) {
                let rows = first..n.min(first + QUERIES);
                let blocks = seen(first).start / LANES..seen(rows.end - 1).end.div_ceil(LANES);
                let queries = &qkv[first * 3 * width + head * self.dim..];
                self.score(queries, rows.clone(), blocks.clone(), n, seen);
                self.gather(rows.len(), blocks, head, &mut y[first * width..rows.end * width]);
            }
        }
    }

    /// Packs a head's keys (scaled) and values into panels, as weights are.
    fn lay_out(&mut self, qkv: &[f32], n: usize, head: usize) {
        let Self { heads, dim, .. } = *self;
        let (width, even) = (heads * dim, dim.next_multiple_of(2));
        let (blocks, parts) = (n.div_ceil(LANES), dim.div_ceil(LANES));
        self.keys.clear();
        self.keys.resize(blocks * even * LANES, 0.0);
        self.values.clear();
        self.values.resize(parts * blocks * LANES * LANES, 0.0);
        for (i, row) in qkv.chunks_exact(3 * width).enumerate() {
            let key = &row[width + head * dim..][..dim];
            let panel = &mut self.keys[i / LANES * even * LANES..];
            for (to, k) in panel[i % LANES..].iter_mut().step_by(LANES).zip(key) {
                *to = k * self.scale;
            }
            let value = &row[2 * width + head * dim..][..dim];
            for (part, value) in value.chunks(LANES).enumerate() {
                self.values[(part * blocks * LANES + i) * LANES..][..value.len()].copy_from_slice(value);
            }
        }
    }

    /// Computes `exp(q · k + bias - max)` of some queries over blocks of keys. `queries` are rows of `qkv`, starting at
    /// this head's query in the first one.
    fn score(
        &mut self,
        queries: &[f32],
        rows: Range<usize>,
        blocks: Range<usize>,
        n: usize,
        seen: impl Fn(usize) -> Range<usize>,
    ) {
        let (stride, even) = (3 * self.heads * self.dim, self.dim.next_multiple_of(2));
        self.scores.resize(blocks.len() * rows.len() * LANES, 0.0);
        let panels = self.keys.chunks_exact(even * LANES).skip(blocks.start);
        let tiles = self.scores.chunks_exact_mut(rows.len() * LANES);
        for ((panel, tile), block) in panels.zip(tiles).zip(blocks) {
            tile::rows(self.variant, panel, queries, stride, tile, false);
            for (row, scores) in rows.clone().zip(tile.chunks_exact_mut(LANES)) {
                let key = block * LANES;
                if !self.bias.is_empty() {
                    let bias = &self.bias[row * n..][key..n];
                    scores.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
                }
                // Invisible keys get a vanishing weight. Padding beyond the last key has the value zero.
                let Range { start, end } = seen(row);
                let place = |at: usize| at.saturating_sub(key).min(LANES);
                scores[..place(start)].fill(f32::NEG_INFINITY);
                scores[place(end)..].fill(f32::NEG_INFINITY);
            }
        }
        let rows = rows.len();
        vectorised!(self.variant, {
            for row in 0..rows {
                exponentials(&mut self.scores, rows, row);
            }
        });
    }

    /// Sums the values of these blocks, weighted by the normalised scores, into `y` `[rows, heads dim]`.
    fn gather(&self, rows: usize, blocks: Range<usize>, head: usize, y: &mut [f32]) {
        let (width, dim) = (self.heads * self.dim, self.dim);
        let stored = self.keys.len() / (dim.next_multiple_of(2) * LANES);
        let totals: [f32; QUERIES] =
            std::array::from_fn(|row| if row < rows { total(&self.scores, rows, row) } else { 1.0 });
        let mut tile = [0f32; QUERIES * LANES];
        let tile = &mut tile[..rows * LANES];
        for (part, values) in self.values.chunks_exact(stored * LANES * LANES).enumerate() {
            let panels = values.chunks_exact(LANES * LANES).skip(blocks.start);
            for (block, (panel, scores)) in
                panels.zip(self.scores.chunks_exact(rows * LANES)).enumerate()
            {
                tile::rows(self.variant, panel, scores, LANES, tile, block > 0);
            }
            let columns = head * dim + part * LANES..head * dim + dim.min((part + 1) * LANES);
            for ((y, tile), total) in y.chunks_exact_mut(width).zip(tile.chunks_exact(LANES)).zip(totals)
            {
                y[columns.clone()].iter_mut().zip(tile).for_each(|(y, sum)| *y = sum / total);
            }
        }
    }
}

/// Rotates the queries and keys of a text, `qkv` `[n, 3 heads dim]`, to their positions.
pub(crate) fn turn(qkv: &mut [f32], heads: usize, dim: usize, angles: &Angles) {
    for (row, qkv) in qkv.chunks_exact_mut(3 * heads * dim).enumerate() {
        let turned = qkv[..2 * heads * dim].chunks_exact_mut(dim);
        turned.for_each(|head| angles.turn(row, head));
    }
}

/// `exp(x - max x)` of one row of scores, `[block][rows][32]`.
#[inline(always)]
fn exponentials(scores: &mut [f32], rows: usize, row: usize) {
    let mut most = [f32::NEG_INFINITY; LANES];
    for block in scores.as_chunks::<LANES>().0.iter().skip(row).step_by(rows) {
        for (most, &x) in most.iter_mut().zip(block) {
            *most = if x > *most { x } else { *most };
        }
    }
    let most = most.into_iter().fold(f32::NEG_INFINITY, f32::max);
    for block in scores.as_chunks_mut::<LANES>().0.iter_mut().skip(row).step_by(rows) {
        block.iter_mut().for_each(|x| *x = exp(*x - most));
    }
}

/// Sum of one row of scores.
fn total(scores: &[f32], rows: usize, row: usize) -> f32 {
    let mut sums = [0f32; LANES];
    for block in scores.as_chunks::<LANES>().0.iter().skip(row).step_by(rows) {
        sums.iter_mut().zip(block).for_each(|(sum, x)| *sum += x);
    }
    sum(&sums, |x| x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919) % 997) as f32 / 250.0 - 2.0).collect()
    }

    /// Compared with the definition in f64, at the edges of blocks, of parts and of chunks of queries; with and without
    /// a window and a bias.
    #[test]
    fn attention_is_the_definition() {
        for (n, heads, dim) in [(1, 1, 1), (5, 2, 3), (32, 1, 32), (33, 3, 8), (97, 2, 40), (130, 2, 64)]
        {
            for (window, biased) in [(None, false), (Some(9), false), (Some(40), true), (None, true)] {
                check(n, heads, dim, window, biased);
            }
        }
    }

    fn check(n: usize, heads: usize, dim: usize, window: Option<usize>, biased: bool) {
        let width = heads * dim;
        let qkv = numbers(3 * n * width);
        let at = |row: usize, which: usize, head: usize| {
            qkv[row * 3 * width + which * width + head * dim..][..dim].iter().map(|x| f64::from(*x))
        };
        let added = |head: usize, row: usize, key: usize| {
            if biased { (((head + 3) * (2 * row + key)) % 13) as f32 / 5.0 } else { 0.0 }
        };
        let mut fill = |head: usize, to: &mut [f32]| {
            to.iter_mut().enumerate().for_each(|(i, to)| *to = added(head, i / n, i % n));
        };
        let bias: Option<Bias<'_>> = if biased { Some(&mut fill) } else { None };
        let mut y = vec![f32::NAN; n * width];
        let mut attention = BothWays::new(heads, dim, 0.4);
        attention.attend(&qkv, &mut y, window, bias);
        for (row, head) in [(0, 0), (n / 2, heads - 1), (n - 1, heads / 2)] {
            let score = |key| at(row, 0, head).zip(at(key, 1, head)).map(|(q, k)| q * k).sum::<f64>();
            let mass = |key: usize| match window {
                Some(window) if row.abs_diff(key) > window => 0.0,
                _ => (score(key) * f64::from(0.4f32) + f64::from(added(head, row, key))).exp(),
            };
            let masses: Vec<f64> = (0..n).map(mass).collect();
            for i in 0..dim {
                let value = |key| at(key, 2, head).nth(i).unwrap();
                let sum: f64 = masses.iter().enumerate().map(|(key, mass)| mass * value(key)).sum();
                let exact = sum / masses.iter().sum::<f64>();
                let found = f64::from(y[row * width + head * dim + i]);
                assert!((found - exact).abs() < 2e-5, "{n} {heads} {dim}: {found} is not {exact}");
            }
        }
        // The buffers of a longer text do not affect a shorter one.
        let (first, mut again) = (y[..width].to_vec(), vec![0.0; width]);
        attention.attend(&qkv[..3 * width], &mut again, None, None);
        assert!(n > 1 || again == first);
        assert!(again.iter().zip(&qkv[2 * width..]).all(|(y, v)| (y - v).abs() < 1e-6));
    }
}
