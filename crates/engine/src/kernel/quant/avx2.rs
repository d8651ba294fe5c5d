//! The product of a panel with some rows by AVX2.

use std::arch::x86_64::*;

use super::format::{Format, QUADS, Scales};
use super::inputs::Rounded;
use crate::kernel::weight::LANES;

/// The product of one panel of `n` blocks with `M` rows of `n` blocks of x, into y `[M][32]`.
///
/// # Safety
/// The processor must have AVX2, FMA and F16C. `w` must hold a panel of `n` blocks, x `M` rows, and y `M * 32` numbers.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn rows<F: Format, const M: usize>(
    w: *const u8,
    x: *const Rounded,
    n: usize,
    y: *mut f32,
) {
    // So many quads are added in 16 bits: a pair of products is at most (2^bits - 1) * 127 * 2.
    let at_once = match F::BITS {
        4 => 8,
        5 => 4,
        6 => 2,
        _ => 1,
    };
    let per_part = QUADS / F::PARTS;
    for eighth in 0..4 {
        let mut sum = [_mm256_setzero_ps(); M];
        for block in 0..n {
            // SAFETY: row < M and block < n.
            let x = |row: usize| unsafe { &*x.add(row * n + block) };
            // SAFETY: block < n, so the panel has this block and the factors of its group.
            let (w, factors) = unsafe { (w.add(F::at(block)), w.add(F::factors(block))) };
            // SAFETY: `w` is a block, `factors` are its group's, and eighth < 4.
            let [scales, more] = unsafe { scales::<F>(w, factors, eighth) };
            for part in 0..F::PARTS {
                // Bytes are read with a sign below, so that nothing has to be subtracted.
                let start = |row: usize| if F::BITS == 8 { 0 } else { x(row).start::<F>(part) };
                let mut whole: [__m256i; M] = std::array::from_fn(|row| _mm256_set1_epi32(start(row)));
                for first in (0..per_part).step_by(at_once) {
                    let mut pairs = [_mm256_setzero_si256(); M];
                    for i in first..first + at_once {
                        let quad = part * per_part + i;
                        // SAFETY: `w` is a block, quad < 8, and eighth < 4.
                        let w = unsafe { integers::<F>(w, quad, eighth) };
                        for (row, pairs) in pairs.iter_mut().enumerate() {
                            let x = _mm256_set1_epi32(x(row).quads[quad] as i32);
                            let products = if F::BITS == 8 {
                                // |w| (x sign w) is at most 128 * 127 * 2, which fits 16 bits.
                                _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
                            } else {
                                _mm256_maddubs_epi16(w, x)
                            };
                            *pairs = _mm256_add_epi16(*pairs, products);
                        }
                    }
                    for (whole, pairs) in whole.iter_mut().zip(pairs) {
                        let quads = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                        *whole = _mm256_add_epi32(*whole, quads);
                    }
                }
                let scales = if part == 0 { scales } else { more };
                for (row, (sum, whole)) in sum.iter_mut().zip(whole).enumerate() {
                    let scale = _mm256_mul_ps(scales, _mm256_set1_ps(x(row).scale));
                    *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), scale, *sum);
                }
            }
            if F::MINIMUM {
                for (row, sum) in sum.iter_mut().enumerate() {
                    *sum = _mm256_fmadd_ps(more, _mm256_set1_ps(x(row).sum), *sum);
                }
            }
        }
        for (row, sum) in sum.iter().enumerate() {
            // SAFETY: y has 32 numbers for each of the M rows.
            unsafe { _mm256_storeu_ps(y.add(row * LANES + eighth * 8), *sum) }
        }
    }
}

/// The integers of a quad, of 8 outputs from `eighth * 8` on. Those of 8 bits have a sign.
///
/// # Safety
/// `block` must be valid for reading a block, quad < 8 and eighth < 4; the processor must have AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn integers<F: Format>(block: *const u8, quad: usize, eighth: usize) -> __m256i {
    // SAFETY: i is less than the number of words of a block, by the calls below.
    let word = |i: usize| unsafe { _mm256_loadu_si256(block.add((i * LANES + eighth * 8) * 4).cast()) };
    let right = |x: __m256i, bits: usize| _mm256_srlv_epi32(x, _mm256_set1_epi32(bits as i32));
    let and = |x: __m256i, mask: i8| _mm256_and_si256(x, _mm256_set1_epi8(mask));
    if F::BITS == 8 {
        return _mm256_xor_si256(word(quad), _mm256_set1_epi8(-128));
    }
    let low = and(right(word(quad % 4), quad / 4 * 4), 0x0f);
    // The shifts cross bytes: the mask takes away what comes from the neighbours.
    let high = |x: __m256i, at: usize, mask: i8| match at {
        0..4 => and(_mm256_sllv_epi32(x, _mm256_set1_epi32(4 - at as i32)), mask),
        _ => and(right(x, at - 4), mask),
    };
    match F::BITS {
        5 => _mm256_or_si256(low, high(word(4), quad, 0x10)),
        6 => _mm256_or_si256(low, high(word(4 + quad / 4), quad % 4 * 2, 0x30)),
        _ => low,
    }
}

/// The scales of a block and its minima, or those of its second half, each of 8 outputs.
///
/// # Safety
/// `block` must be valid for reading a block, `factors` for reading its group's, and eighth < 4; the processor must have
/// AVX2 and F16C.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn scales<F: Format>(block: *const u8, factors: *const u8, eighth: usize) -> [__m256; 2] {
    // SAFETY: by the layout of the format, the scales lie behind the integers.
    let at = unsafe { block.add(F::INTEGERS) };
    // SAFETY: 8 f16 lie there, by the calls below.
    let f16 = |at: *const u8, first: usize| unsafe {
        _mm256_cvtph_ps(_mm_loadu_si128(at.add((first + eighth * 8) * 2).cast()))
    };
    // SAFETY: 8 bytes lie there, by the calls below.
    let bytes = |first: usize| unsafe { _mm_loadl_epi64(at.add(first + eighth * 8).cast()) };
    let times = |factor: __m256, x: __m256i| _mm256_mul_ps(factor, _mm256_cvtepi32_ps(x));
    match F::SCALES {
        Scales::One => [f16(at, 0), _mm256_setzero_ps()],
        Scales::Minimum => [f16(at, 0), f16(at, LANES)],
        Scales::Shared => {
            [0, LANES].map(|first| times(f16(factors, first), _mm256_cvtepu8_epi32(bytes(first))))
        }
        Scales::Halves => {
            [0, LANES].map(|first| times(f16(factors, 0), _mm256_cvtepi8_epi32(bytes(first))))
        }
    }
}
