//! The product of a panel with some rows in plain Rust. The other variants compute the same up to rounding.

use super::format::{BLOCK, Format, Lane, QUADS};
use super::inputs::Rounded;
use crate::kernel::weight::LANES;

/// The product of one panel of `n` blocks with the rows of x, into y `[m][32]`.
pub(super) fn rows<F: Format>(panel: &[u8], x: &[Rounded], n: usize, y: &mut [f32]) {
    y.fill(0.0);
    for block in 0..n {
        for lane in 0..LANES {
            let weights = Lane::of::<F>(panel, block, lane);
            for (y, x) in y.chunks_exact_mut(LANES).zip(x.chunks_exact(n)) {
                add::<F>(&weights, &x[block], &mut y[lane]);
            }
        }
    }
}

#[inline(always)]
fn add<F: Format>(weights: &Lane, x: &Rounded, y: &mut f32) {
    let per_part = BLOCK / F::PARTS;
    let quads: [[u8; 4]; QUADS] = x.quads.map(u32::to_le_bytes);
    let parts = weights.integers.chunks_exact(per_part).zip(quads.as_flattened().chunks_exact(per_part));
    for ((w, x8), scale) in parts.zip(weights.scales) {
        let sum: i32 = w.iter().zip(x8).map(|(w, x)| w * i32::from(*x as i8)).sum();
        *y += sum as f32 * (scale * x.scale);
    }
    if F::MINIMUM {
        *y += weights.minimum * x.sum;
    }
}
