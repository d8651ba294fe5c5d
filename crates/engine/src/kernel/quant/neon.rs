//! The product of a panel with some rows by NEON.

use std::arch::aarch64::*;

use half::f16;

use super::format::{Format, QUADS, Scales};
use super::inputs::Rounded;
use crate::kernel::weight::LANES;

/// The product of one panel of `n` blocks with `M` rows of `n` blocks of x, into y `[M][32]`.
///
/// # Safety
/// `w` must hold a panel of `n` blocks, x `M` rows, and y `M * 32` numbers.
#[target_feature(enable = "neon")]
pub(super) unsafe fn rows<F: Format, const M: usize>(
    w: *const u8,
    x: *const Rounded,
    n: usize,
    y: *mut f32,
) {
    let per_part = QUADS / F::PARTS;
    for eighth in 0..8 {
        let mut sum = [vdupq_n_f32(0.0); M];
        for block in 0..n {
            // SAFETY: row < M and block < n.
            let x = |row: usize| unsafe { &*x.add(row * n + block) };
            // SAFETY: block < n, so the panel has this block and the factors of its group.
            let (w, factors) = unsafe { (w.add(F::at(block)), w.add(F::factors(block))) };
            // SAFETY: `w` is a block, `factors` are its group's, and eighth < 8.
            let [scales, more] = unsafe { scales::<F>(w, factors, eighth) };
            for part in 0..F::PARTS {
                // Two sums of each output, of outputs 0 and 1, and 2 and 3.
                let mut pairs = [[vdupq_n_s32(0); 2]; M];
                for quad in part * per_part..(part + 1) * per_part {
                    // SAFETY: `w` is a block, quad < 8, and eighth < 8.
                    let w = unsafe { integers::<F>(w, quad, eighth) };
                    for (row, pairs) in pairs.iter_mut().enumerate() {
                        let x = vreinterpretq_s8_u32(vdupq_n_u32(x(row).quads[quad]));
                        let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
                        pairs[0] = vpadalq_s16(pairs[0], low);
                        pairs[1] = vpadalq_s16(pairs[1], vmull_high_s8(w, x));
                    }
                }
                let scales = if part == 0 { scales } else { more };
                for (row, (sum, pairs)) in sum.iter_mut().zip(pairs).enumerate() {
                    // Bytes are read with a sign below, so that nothing has to be subtracted.
                    let start = if F::BITS == 8 { 0 } else { x(row).start::<F>(part) };
                    let whole = vaddq_s32(vpaddq_s32(pairs[0], pairs[1]), vdupq_n_s32(start));
                    let scale = vmulq_n_f32(scales, x(row).scale);
                    *sum = vfmaq_f32(*sum, vcvtq_f32_s32(whole), scale);
                }
            }
            if F::MINIMUM {
                for (row, sum) in sum.iter_mut().enumerate() {
                    *sum = vfmaq_n_f32(*sum, more, x(row).sum);
                }
            }
        }
        for (row, sum) in sum.iter().enumerate() {
            // SAFETY: y has 32 numbers for each of the M rows.
            unsafe { vst1q_f32(y.add(row * LANES + eighth * 4), *sum) }
        }
    }
}

/// The integers of a quad, of 4 outputs from `eighth * 4` on. Those of 8 bits have a sign.
///
/// # Safety
/// `block` must be valid for reading a block, quad < 8 and eighth < 8.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn integers<F: Format>(block: *const u8, quad: usize, eighth: usize) -> int8x16_t {
    // SAFETY: i is less than the number of words of a block, by the calls below.
    let word = |i: usize| unsafe { vld1q_u32(block.add((i * LANES + eighth * 4) * 4).cast()) };
    // To the left, or to the right if the number is negative.
    let shifted = |x: uint32x4_t, bits: i32| vshlq_u32(x, vdupq_n_s32(bits));
    let and = |x: uint32x4_t, mask: u8| vandq_u8(vreinterpretq_u8_u32(x), vdupq_n_u8(mask));
    if F::BITS == 8 {
        return vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_u32(word(quad)), vdupq_n_u8(0x80)));
    }
    let low = and(shifted(word(quad % 4), -(quad as i32 / 4 * 4)), 0x0f);
    // The shifts cross bytes: the mask takes away what comes from the neighbours.
    let high = |x: uint32x4_t, at: usize, mask: u8| and(shifted(x, 4 - at as i32), mask);
    vreinterpretq_s8_u8(match F::BITS {
        5 => vorrq_u8(low, high(word(4), quad, 0x10)),
        6 => vorrq_u8(low, high(word(4 + quad / 4), quad % 4 * 2, 0x30)),
        _ => low,
    })
}

/// The scales of a block and its minima, or those of its second half, each of 4 outputs.
///
/// # Safety
/// `block` must be valid for reading a block, `factors` for reading its group's, and eighth < 8.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn scales<F: Format>(block: *const u8, factors: *const u8, eighth: usize) -> [float32x4_t; 2] {
    // SAFETY: by the layout of the format, the scales lie behind the integers.
    let at = unsafe { block.add(F::INTEGERS) };
    let of = |numbers: [f32; 4]| {
        // SAFETY: there are four numbers.
        unsafe { vld1q_f32(numbers.as_ptr()) }
    };
    // SAFETY: 4 f16 lie there, by the calls below.
    let f16s = |at: *const u8, first: usize| unsafe {
        let halves = at.add((first + eighth * 4) * 2).cast::<[u16; 4]>().read_unaligned();
        of(halves.map(|bits| f16::from_bits(bits).to_f32()))
    };
    // SAFETY: 4 bytes lie there, by the calls below.
    let bytes = |first: usize| unsafe { at.add(first + eighth * 4).cast::<[u8; 4]>().read() };
    match F::SCALES {
        Scales::One => [f16s(at, 0), vdupq_n_f32(0.0)],
        Scales::Minimum => [f16s(at, 0), f16s(at, LANES)],
        Scales::Shared => {
            [0, LANES].map(|first| vmulq_f32(f16s(factors, first), of(bytes(first).map(f32::from))))
        }
        Scales::Halves => [0, LANES].map(|first| {
            vmulq_f32(f16s(factors, 0), of(bytes(first).map(|byte| f32::from(byte as i8))))
        }),
    }
}
