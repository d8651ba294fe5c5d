//! Inputs rounded to int8, in blocks of 32 with one scale; and weights that are rounded in the same way.

use half::f16;

use super::file::put_rounded;
use super::format::{BLOCK, Format, QUADS};
use crate::kernel::elementwise::SHIFT;

/// 32 inputs of one row, and what the kernels need of their sum. Input i is `scale * integer i`.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(super) struct Rounded {
    pub(super) quads: [u32; QUADS],
    pub(super) scale: f32,
    /// The sum of the inputs, which multiplies the minimum of the weights.
    pub(super) sum: f32,
    /// Minus the sum of the integers, times a zero of the weights: 8, 16 and 128.
    minus: [i32; 3],
    /// Minus the sum of each half of the integers, times 32.
    minus_32: [i32; 2],
}

impl Rounded {
    /// What an integer sum of products begins with, so that the zero of the weights is subtracted.
    #[inline(always)]
    pub(super) fn start<F: Format>(&self, part: usize) -> i32 {
        match F::ZERO {
            8 => self.minus[0],
            16 => self.minus[1],
            128 => self.minus[2],
            32 => self.minus_32[part],
            _ => 0,
        }
    }
}

/// Rows of inputs.
pub(in crate::kernel) struct Inputs {
    pub(super) rounded: Vec<Rounded>,
    /// Blocks per row.
    pub(super) blocks: usize,
}

impl Inputs {
    /// Zero inputs, `m` rows of `k`.
    pub(in crate::kernel) fn new(m: usize, k: usize) -> Self {
        let blocks = k.div_ceil(BLOCK);
        Self { rounded: vec![Rounded::default(); m * blocks], blocks }
    }

    /// The blocks of each row, in order.
    pub(in crate::kernel) fn rows_mut(&mut self) -> impl Iterator<Item = Row<'_>> {
        self.rounded.chunks_exact_mut(self.blocks).map(Row)
    }
}

/// One row of inputs.
pub(in crate::kernel) struct Row<'a>(&'a mut [Rounded]);

/// Rounds one row of inputs to int8.
#[inline(always)]
pub(in crate::kernel) fn round(x: &[f32], to: Row<'_>) {
    for (to, x) in to.0.iter_mut().zip(x.chunks(BLOCK)) {
        let x = padded(x);
        let scale = largest(&x) / 127.0;
        let mut integers = [0i32; BLOCK];
        for (integer, x) in integers.iter_mut().zip(x) {
            *integer = quantise(x, scale);
        }
        let (first, second) = integers.split_at(BLOCK / 2);
        let halves = [first, second].map(|half| half.iter().sum::<i32>());
        let whole = halves[0] + halves[1];
        to.scale = scale;
        to.sum = scale * whole as f32;
        to.minus = [-8 * whole, -16 * whole, -128 * whole];
        to.minus_32 = halves.map(|half| -32 * half);
        let bytes = integers.map(|integer| integer as u8);
        for (quad, four) in to.quads.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *quad = u32::from_le_bytes(*four);
        }
    }
}

/// Rounds the weights of one output to Q8_0 and stores them in a panel. Inputs beyond the row have zero weights.
pub(super) fn put_numbers(panel: &mut [u8], lane: usize, row: &[f32]) {
    for (block, weights) in row.chunks(BLOCK).enumerate() {
        let weights = padded(weights);
        let scale = f16::from_f32(largest(&weights) / 127.0);
        let integers = weights.map(|weight| (quantise(weight, scale.to_f32()) + 128) as u8);
        put_rounded(panel, block, lane, &integers, scale.to_bits());
    }
}

/// The largest absolute value. NaN is larger than any: it is kept and becomes the block's scale.
#[inline(always)]
fn largest(block: &[f32; BLOCK]) -> f32 {
    // The bits of numbers without a sign are in the order of the numbers.
    f32::from_bits(block.iter().fold(0, |most, x| most.max(x.abs().to_bits())))
}

#[inline(always)]
fn padded(x: &[f32]) -> [f32; BLOCK] {
    let mut block = [0f32; BLOCK];
    block[..x.len()].copy_from_slice(x);
    block
}

/// `x / scale` rounded to the nearest integer, ties to even, clamped to -127 to 127.
#[inline(always)]
fn quantise(x: f32, scale: f32) -> i32 {
    let steps = if scale > 0.0 && scale < f32::INFINITY { x / scale } else { 0.0 };
    let steps = if steps > 127.0 { 127.0 } else { steps };
    let steps = if steps < -127.0 { -127.0 } else { steps };
    (steps + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i32
}
