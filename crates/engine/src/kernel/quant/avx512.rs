//! The product of a panel with some rows by AVX-512 with dot products of int8 quadruples (VNNI).

use std::arch::x86_64::*;

use super::format::{Format, QUADS, Scales};
use super::inputs::Rounded;
use crate::kernel::tile::{fetch, store512};
use crate::kernel::weight::LANES;

/// Repeats an expression for each of the numbers listed. As a loop, it may not be unrolled, and the shifts in it would not
/// be constant.
macro_rules! unrolled {
    ([$($n:literal)*], $I:ident => $repeated:expr) => {
        $({
            const $I: usize = $n;
            $repeated
        })*
    };
}

/// The product of one panel of `n` blocks with `M` rows of `n` blocks of x, into y `[M][32]`.
///
/// # Safety
/// The processor must have AVX-512 F, BW and VNNI. `w` must hold a panel of `n` blocks, x `M` rows, and y `M * 32`
/// numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn rows<F: Format, const M: usize>(
    w: *const u8,
    x: *const Rounded,
    n: usize,
    y: *mut f32,
) {
    let mut sum = [[_mm512_setzero_ps(); 2]; M];
    for block in 0..n {
        // SAFETY: row < M and block < n.
        let x = |row: usize| unsafe { &*x.add(row * n + block) };
        // SAFETY: block < n, so the panel has this block and the factors of its group.
        let (w, factors) = unsafe { (w.add(F::at(block)), w.add(F::factors(block))) };
        for line in (0..F::BYTES).step_by(64) {
            fetch::<1>(w.wrapping_add(line));
        }
        // SAFETY: `w` is a block, and `factors` are its group's.
        let [scales, more] = unsafe { scales::<F>(w, factors) };
        for part in 0..F::PARTS {
            let mut whole: [[__m512i; 2]; M] =
                std::array::from_fn(|row| [_mm512_set1_epi32(x(row).start::<F>(part)); 2]);
            unrolled!([0 1 2 3 4 5 6 7], I => if I < QUADS / F::PARTS {
                // Quads in the same word follow each other.
                let quad = match (F::PARTS, F::BITS) {
                    (1, 4..8) => I / 2 + I % 2 * 4,
                    _ => I + part * (QUADS / F::PARTS),
                };
                // SAFETY: `w` is a block, and quad < 8.
                let (low, high) = unsafe { (integers::<F>(w, quad, 0), integers::<F>(w, quad, 1)) };
                for (row, whole) in whole.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32(x(row).quads[quad] as i32);
                    whole[0] = _mm512_dpbusd_epi32(whole[0], low, x);
                    whole[1] = _mm512_dpbusd_epi32(whole[1], high, x);
                }
            });
            let scales = if part == 0 { scales } else { more };
            for (row, (sum, whole)) in sum.iter_mut().zip(whole).enumerate() {
                let scale = _mm512_set1_ps(x(row).scale);
                for (i, sum) in sum.iter_mut().enumerate() {
                    let scale = _mm512_mul_ps(scales[i], scale);
                    *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[i]), scale, *sum);
                }
            }
        }
        if F::MINIMUM {
            for (row, sum) in sum.iter_mut().enumerate() {
                let all = _mm512_set1_ps(x(row).sum);
                sum[0] = _mm512_fmadd_ps(more[0], all, sum[0]);
                sum[1] = _mm512_fmadd_ps(more[1], all, sum[1]);
            }
        }
    }
    // SAFETY: y has 32 numbers for each of the M rows.
    unsafe { store512(sum, y) }
}

/// The integers of a quad, of 16 outputs from `half * 16` on.
///
/// # Safety
/// `block` must be valid for reading a block, and quad < 8; the processor must have AVX-512 F and BW.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn integers<F: Format>(block: *const u8, quad: usize, half: usize) -> __m512i {
    // SAFETY: i is less than the number of words of a block, by its caller below.
    let word = |i: usize| unsafe { _mm512_loadu_si512(block.add((i * LANES + half * 16) * 4).cast()) };
    let right = |x: __m512i, bits: usize| _mm512_srlv_epi32(x, _mm512_set1_epi32(bits as i32));
    let and = |x: __m512i, mask: i8| _mm512_and_si512(x, _mm512_set1_epi8(mask));
    if F::BITS == 8 {
        return word(quad);
    }
    let low = and(right(word(quad % 4), quad / 4 * 4), 0x0f);
    // The shifts cross bytes: the mask takes away what comes from the neighbours.
    let high = |x: __m512i, at: usize, mask: i8| match at {
        0..4 => and(_mm512_sllv_epi32(x, _mm512_set1_epi32(4 - at as i32)), mask),
        _ => and(right(x, at - 4), mask),
    };
    match F::BITS {
        5 => _mm512_or_si512(low, high(word(4), quad, 0x10)),
        6 => _mm512_or_si512(low, high(word(4 + quad / 4), quad % 4 * 2, 0x30)),
        _ => low,
    }
}

/// The scales of a block and its minima, or those of its second half, each of 32 outputs.
///
/// # Safety
/// `block` must be valid for reading a block, `factors` for reading its group's; the processor must have AVX-512 F
/// and BW.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn scales<F: Format>(block: *const u8, factors: *const u8) -> [[__m512; 2]; 2] {
    // SAFETY: by the layout of the format, the scales lie behind the integers.
    let at = unsafe { block.add(F::INTEGERS) };
    // SAFETY: 16 f16 from i * 16 on lie there, by the calls below.
    let f16 =
        |at: *const u8, i: usize| unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.add(i * 32).cast())) };
    // SAFETY: 16 bytes from i * 16 on lie there, by the calls below.
    let bytes = |i: usize| unsafe { _mm_loadu_si128(at.add(i * 16).cast()) };
    let times = |factor: __m512, x: __m512i| _mm512_mul_ps(factor, _mm512_cvtepi32_ps(x));
    match F::SCALES {
        Scales::One => [[f16(at, 0), f16(at, 1)], [_mm512_setzero_ps(); 2]],
        Scales::Minimum => [[f16(at, 0), f16(at, 1)], [f16(at, 2), f16(at, 3)]],
        Scales::Shared => {
            let product = |i: usize| times(f16(factors, i), _mm512_cvtepu8_epi32(bytes(i)));
            [[product(0), product(1)], [product(2), product(3)]]
        }
        Scales::Halves => {
            let product = |i: usize| times(f16(factors, i % 2), _mm512_cvtepi8_epi32(bytes(i)));
            [[product(0), product(1)], [product(2), product(3)]]
        }
    }
}
