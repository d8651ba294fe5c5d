//! What an encoder needs besides linear layers: attention that looks both ways, layer norm, activations.
//!
//! All of it keeps the promise of this module: a text's numbers do not depend on the texts beside it.

use super::Variant;
use super::elementwise::{exp, sum, vectorised};
use super::tanh::tanh;
use super::tile::{self, LANES};

/// Queries that are run at once: bounds the memory of the scores.
const QUERIES: usize = 48;

/// Attention of one text over all of itself.
pub(crate) struct BothWays {
    /// Heads.
    pub(crate) heads: usize,
    /// Width of a head.
    pub(crate) dim: usize,
    variant: Variant,
    /// One head's keys, `[block][dim][32 keys]`.
    keys: Vec<f32>,
    /// Its values, `[part of dim][keys][32 of dim]`.
    values: Vec<f32>,
    /// Scores of some queries, `[block][query][32 keys]`.
    scores: Vec<f32>,
}

impl BothWays {
    pub(crate) fn new(heads: usize, dim: usize) -> Self {
        let (keys, values, scores) = (Vec::new(), Vec::new(), Vec::new());
        Self { heads, dim, variant: Variant::detect(), keys, values, scores }
    }

    /// qkv `[n, 3 heads dim]` to y `[n, heads dim]`: rows of queries, keys and values, side by side.
    pub(crate) fn attend(&mut self, qkv: &[f32], y: &mut [f32]) {
        let width = self.heads * self.dim;
        assert_eq!(qkv.len(), 3 * y.len(), "queries, keys and values for each output");
        let n = y.len() / width;
        for head in 0..self.heads {
            self.lay_out(qkv, n, head);
            for first in (0..n).step_by(QUERIES) {
                let rows = QUERIES.min(n - first);
                let queries = &qkv[first * 3 * width + head * self.dim..];
                self.score(queries, n, rows);
                self.gather(rows, head, &mut y[first * width..(first + rows) * width]);
            }
        }
    }

    /// Lays out a head's keys (scaled) and values as panels of weights.
    fn lay_out(&mut self, qkv: &[f32], n: usize, head: usize) {
        let Self { heads, dim, .. } = *self;
        let (width, even) = (heads * dim, dim.next_multiple_of(2));
        let (blocks, parts) = (n.div_ceil(LANES), dim.div_ceil(LANES));
        self.keys.clear();
        self.keys.resize(blocks * even * LANES, 0.0);
        self.values.clear();
        self.values.resize(parts * blocks * LANES * LANES, 0.0);
        let scale = 1.0 / (dim as f32).sqrt();
        for (i, row) in qkv.chunks_exact(3 * width).enumerate() {
            let key = &row[width + head * dim..][..dim];
            let panel = &mut self.keys[i / LANES * even * LANES..];
            for (to, k) in panel[i % LANES..].iter_mut().step_by(LANES).zip(key) {
                *to = k * scale;
            }
            let value = &row[2 * width + head * dim..][..dim];
            for (part, value) in value.chunks(LANES).enumerate() {
                self.values[(part * blocks * LANES + i) * LANES..][..value.len()].copy_from_slice(value);
            }
        }
    }

    /// `exp(q · k - max)` of some queries, rows of `qkv` that begin with this head's.
    fn score(&mut self, queries: &[f32], n: usize, rows: usize) {
        let (stride, even) = (3 * self.heads * self.dim, self.dim.next_multiple_of(2));
        let blocks = n.div_ceil(LANES);
        self.scores.resize(blocks * rows * LANES, 0.0);
        let panels = self.keys.chunks_exact(even * LANES);
        for (panel, scores) in panels.zip(self.scores.chunks_exact_mut(rows * LANES)) {
            tile::rows(self.variant, panel, queries, stride, scores, false);
        }
        // Places without a key get next to nothing, and their values are zero.
        let keys = n - (blocks - 1) * LANES;
        for scores in self.scores[(blocks - 1) * rows * LANES..].chunks_exact_mut(LANES) {
            scores[keys..].fill(f32::NEG_INFINITY);
        }
        vectorised(self.variant, || {
            for row in 0..rows {
                exponentials(&mut self.scores, rows, row);
            }
        });
    }

    /// Sums the values by the scores, divided by the scores' sums, into y `[rows, heads dim]`.
    fn gather(&self, rows: usize, head: usize, y: &mut [f32]) {
        let (width, dim) = (self.heads * self.dim, self.dim);
        let blocks = self.scores.len() / (rows * LANES);
        let totals: [f32; QUERIES] =
            std::array::from_fn(|row| if row < rows { total(&self.scores, rows, row) } else { 1.0 });
        let mut tile = [0f32; QUERIES * LANES];
        let tile = &mut tile[..rows * LANES];
        for (part, values) in self.values.chunks_exact(blocks * LANES * LANES).enumerate() {
            let panels = values.chunks_exact(LANES * LANES);
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

/// Layer norm of every row of x `[n, d]` in place; weight and bias `[d]`.
pub(crate) fn layer_norm(x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let d = weight.len();
    vectorised(Variant::detect(), || {
        for row in x.chunks_exact_mut(d) {
            let mean = sum(row, |x| x) / d as f32;
            let variance = sum(row, |x| (x - mean) * (x - mean)) / d as f32;
            let scale = 1.0 / (variance + eps).sqrt();
            for ((x, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
                *x = (*x - mean) * scale * weight + bias;
            }
        }
    });
}

/// What lies between the two linear layers of an encoder's feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x Φ(x)`, with the normal distribution's own Φ.
    Gelu,
    /// The same with a tanh in its place.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    /// Applies it to every number.
    pub(crate) fn apply(self, x: &mut [f32]) {
        vectorised(Variant::detect(), || match self {
            Self::Gelu => x.iter_mut().for_each(|x| *x = gelu(*x)),
            Self::GeluTanh => x.iter_mut().for_each(|x| *x = gelu_tanh(*x)),
            Self::Relu => x.iter_mut().for_each(|x| *x = x.max(0.0)),
        });
    }
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    // √(2/π)
    const ROOT: f32 = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;
    0.5 * x * (1.0 + tanh(ROOT * (x + 0.044715 * x * x * x)))
}

/// The error function, within 3e-7 (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26).
#[inline(always)]
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let mut sum = 1.061_405_4;
    for factor in [-1.453_152, 1.421_413_7, -0.284_496_72, 0.254_829_6] {
        sum = sum * t + factor;
    }
    (1.0 - sum * t * exp(-x * x)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the series where it converges fast, 1 beyond.
    fn exact_erf(x: f64) -> f64 {
        if x.abs() > 5.0 {
            return x.signum();
        }
        let (mut term, mut sum) = (x, x);
        for i in 1..200 {
            term *= -x * x / f64::from(i);
            sum += term / f64::from(2 * i + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn activations_are_near() {
        let step = if cfg!(miri) { 1_997 } else { 1 };
        for i in (-9_000..9_000).step_by(step) {
            let x = i as f32 / 1000.0;
            let exact = f64::from(x);
            let normal = 0.5 * exact * (1.0 + exact_erf(exact / 2f64.sqrt()));
            assert!((f64::from(gelu(x)) - normal).abs() < 1e-6, "gelu({x})");
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (exact + 0.044715 * exact.powi(3));
            let by_tanh = 0.5 * exact * (1.0 + inner.tanh());
            assert!((f64::from(gelu_tanh(x)) - by_tanh).abs() < 2e-6, "gelu_tanh({x})");
        }
        let mut x = [-2.0, 0.0, 3.0];
        Activation::Relu.apply(&mut x);
        assert_eq!(x, [0.0, 0.0, 3.0]);
        assert!(gelu(f32::NAN).is_nan() && gelu_tanh(f32::NAN).is_nan());
    }

    fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919) % 997) as f32 / 250.0 - 2.0).collect()
    }

    /// Against the definition in f64, at the edges of blocks, parts and pieces of queries.
    #[test]
    fn attention_is_the_definition() {
        for (n, heads, dim) in [(1, 1, 1), (5, 2, 3), (32, 1, 32), (33, 3, 8), (97, 2, 40), (130, 2, 64)]
        {
            let width = heads * dim;
            let qkv = numbers(3 * n * width);
            let at = |row: usize, which: usize, head: usize| {
                qkv[row * 3 * width + which * width + head * dim..][..dim].iter().map(|x| f64::from(*x))
            };
            let mut y = vec![f32::NAN; n * width];
            let mut attention = BothWays::new(heads, dim);
            attention.attend(&qkv, &mut y);
            for (row, head) in [(0, 0), (n / 2, heads - 1), (n - 1, heads / 2)] {
                let score =
                    |key| at(row, 0, head).zip(at(key, 1, head)).map(|(q, k)| q * k).sum::<f64>();
                let masses: Vec<f64> = (0..n).map(|k| (score(k) / (dim as f64).sqrt()).exp()).collect();
                for i in 0..dim {
                    let value = |key| at(key, 2, head).nth(i).unwrap();
                    let sum: f64 = masses.iter().enumerate().map(|(key, mass)| mass * value(key)).sum();
                    let exact = sum / masses.iter().sum::<f64>();
                    let found = f64::from(y[row * width + head * dim + i]);
                    assert!((found - exact).abs() < 2e-5, "{n} {heads} {dim}: {found} is not {exact}");
                }
            }
            // What a longer text left behind does no harm.
            let (first, mut again) = (y[..width].to_vec(), vec![0.0; width]);
            attention.attend(&qkv[..3 * width], &mut again);
            assert!(n > 1 || again == first);
            assert!(again.iter().zip(&qkv[2 * width..]).all(|(y, v)| (y - v).abs() < 1e-6));
        }
    }

    #[test]
    fn rows_are_normed() {
        let (weight, bias) = (vec![2.0; 50], vec![0.5; 50]);
        let mut x = numbers(100);
        layer_norm(&mut x, &weight, &bias, 1e-12);
        for row in x.chunks_exact(50) {
            let mean = row.iter().sum::<f32>() / 50.0;
            let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / 50.0;
            assert!((mean - 0.5).abs() < 1e-5 && (variance - 4.0).abs() < 1e-4, "{mean} {variance}");
        }
    }
}
