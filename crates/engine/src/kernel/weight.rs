//! How floating-point weights are stored in a panel of [`LANES`] outputs.

use half::bf16;

/// Outputs per panel: two AVX-512 registers, four of AVX2, eight of NEON.
pub(super) const LANES: usize = 32;

/// A storage format of weights in a panel. Two inputs of all outputs form one step.
pub(super) trait Weight: Copy + Default + Send + Sync {
    /// Number of values of this type per step: 32 outputs for two inputs.
    const STEP: usize;

    /// The two weights of one output in one step.
    fn pair(step: &[Self], lane: usize) -> [f32; 2];

    /// Stores the two weights of one output in a step.
    fn put(step: &mut [Self], lane: usize, pair: [f32; 2]);

    /// Stores one output's weight for the first (0) or the second (1) input of a step.
    fn set(step: &mut [Self], lane: usize, input: usize, x: f32);

    /// The number that is stored of x.
    fn stored(x: f32) -> f32;

    /// The weights of 16 outputs from `part * 16` on, for the first and the second input.
    ///
    /// # Safety
    /// `step` must be valid for reading one step; the processor must have AVX-512 F and BW.
    #[cfg(target_arch = "x86_64")]
    unsafe fn avx512(step: *const Self, part: usize) -> [std::arch::x86_64::__m512; 2];

    /// The weights of 8 outputs from `part * 8` on, for the first and the second input.
    ///
    /// # Safety
    /// `step` must be valid for reading one step; the processor must have AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    unsafe fn avx2(step: *const Self, part: usize) -> [std::arch::x86_64::__m256; 2];

    /// The weights of 4 outputs from `part * 4` on, for the first and the second input.
    ///
    /// # Safety
    /// `step` must be valid for reading one step.
    #[cfg(target_arch = "aarch64")]
    unsafe fn neon(step: *const Self, part: usize) -> [std::arch::aarch64::float32x4_t; 2];
}

/// f32: the first input's 32 weights, then the second's.
impl Weight for f32 {
    const STEP: usize = 2 * LANES;

    #[inline(always)]
    fn pair(step: &[Self], lane: usize) -> [f32; 2] {
        [step[lane], step[LANES + lane]]
    }

    fn put(step: &mut [Self], lane: usize, pair: [f32; 2]) {
        [step[lane], step[LANES + lane]] = pair;
    }

    #[inline(always)]
    fn set(step: &mut [Self], lane: usize, input: usize, x: f32) {
        step[input * LANES + lane] = x;
    }

    #[inline(always)]
    fn stored(x: f32) -> f32 {
        x
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn avx512(step: *const Self, part: usize) -> [std::arch::x86_64::__m512; 2] {
        use std::arch::x86_64::_mm512_loadu_ps;
        // SAFETY: by the caller's guarantee, `step` has 64 values; the loads need no alignment.
        unsafe { [_mm512_loadu_ps(step.add(part * 16)), _mm512_loadu_ps(step.add(LANES + part * 16))] }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(step: *const Self, part: usize) -> [std::arch::x86_64::__m256; 2] {
        use std::arch::x86_64::_mm256_loadu_ps;
        // SAFETY: by the caller's guarantee, `step` has 64 values; the loads need no alignment.
        unsafe { [_mm256_loadu_ps(step.add(part * 8)), _mm256_loadu_ps(step.add(LANES + part * 8))] }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn neon(step: *const Self, part: usize) -> [std::arch::aarch64::float32x4_t; 2] {
        use std::arch::aarch64::vld1q_f32;
        // SAFETY: by the caller's guarantee, `step` has 64 values.
        unsafe { [vld1q_f32(step.add(part * 4)), vld1q_f32(step.add(LANES + part * 4))] }
    }
}

/// Two bf16 weights of one output, for two inputs. The first one is in the low half.
#[derive(Debug, Clone, Copy, Default)]
#[repr(transparent)]
pub(crate) struct Pair(pub(super) u32);

impl Pair {
    #[inline(always)]
    pub(super) fn new(pair: [f32; 2]) -> Self {
        let [first, second] = pair.map(|x| u32::from(round(x)));
        Self(second << 16 | first)
    }
}

/// The bits of the nearest bf16, ties to even. The compiler vectorises it; NaN stays NaN.
#[inline(always)]
pub(super) fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    (if x.is_nan() { bits >> 16 | 0x40 } else { rounded }) as u16
}

impl Weight for Pair {
    const STEP: usize = LANES;

    #[inline(always)]
    fn pair(step: &[Self], lane: usize) -> [f32; 2] {
        let Self(bits) = step[lane];
        [f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000)]
    }

    fn put(step: &mut [Self], lane: usize, pair: [f32; 2]) {
        step[lane] = Self::new(pair);
    }

    #[inline(always)]
    fn set(step: &mut [Self], lane: usize, input: usize, x: f32) {
        let Self(bits) = step[lane];
        let x = u32::from(round(x));
        step[lane] = Self(if input == 0 { bits & 0xffff_0000 | x } else { bits & 0xffff | x << 16 });
    }

    #[inline(always)]
    fn stored(x: f32) -> f32 {
        rounded(x)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn avx512(step: *const Self, part: usize) -> [std::arch::x86_64::__m512; 2] {
        use std::arch::x86_64::*;
        // SAFETY: by the caller's guarantee, `step` has 32 values of four bytes; the load needs no alignment.
        let pairs = unsafe { _mm512_loadu_si512(step.add(part * 16).cast()) };
        let high = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
        [_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)), _mm512_castsi512_ps(high)]
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(step: *const Self, part: usize) -> [std::arch::x86_64::__m256; 2] {
        use std::arch::x86_64::*;
        // SAFETY: by the caller's guarantee, `step` has 32 values of four bytes; the load needs no alignment.
        let pairs = unsafe { _mm256_loadu_si256(step.add(part * 8).cast()) };
        let high = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32));
        [_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)), _mm256_castsi256_ps(high)]
    }

    #[cfg(target_arch = "aarch64")]
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn neon(step: *const Self, part: usize) -> [std::arch::aarch64::float32x4_t; 2] {
        use std::arch::aarch64::*;
        // SAFETY: by the caller's guarantee, `step` has 32 values of four bytes.
        let pairs = unsafe { vld1q_u32(step.add(part * 4).cast()) };
        let high = vandq_u32(pairs, vdupq_n_u32(0xffff_0000));
        [vreinterpretq_f32_u32(vshlq_n_u32::<16>(pairs)), vreinterpretq_f32_u32(high)]
    }
}

/// The nearest bf16, as an f32.
#[inline(always)]
pub(super) fn rounded(x: f32) -> f32 {
    bf16::from_bits(round(x)).to_f32()
}
