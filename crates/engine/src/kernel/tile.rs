//! The innermost loops: some rows of x against one panel of weights.
//!
//! A panel holds 32 outputs side by side, input after input, two inputs to a step. Each output has one
//! chain of sums, from the first input to the last, whatever the number of rows.

use half::bf16;

use super::Variant;

/// Outputs per panel: two AVX-512 registers, four of AVX2, eight of NEON.
pub(super) const LANES: usize = 32;

/// How weights are kept in a panel.
pub(super) trait Weight: Copy + Default + Send + Sync {
    /// Values of this type per step: 32 outputs for two inputs.
    const STEP: usize;

    /// Both weights of one output in one step.
    fn pair(step: &[Self], lane: usize) -> [f32; 2];

    /// Puts both weights of one output into a step.
    fn put(step: &mut [Self], lane: usize, pair: [f32; 2]);

    /// 16 outputs from `part * 16` on, for either input.
    ///
    /// # Safety
    /// `step` must be valid for reading one step; the processor must have AVX-512 F and BW.
    #[cfg(target_arch = "x86_64")]
    unsafe fn avx512(step: *const Self, part: usize) -> [std::arch::x86_64::__m512; 2];

    /// 8 outputs from `part * 8` on, for either input.
    ///
    /// # Safety
    /// `step` must be valid for reading one step; the processor must have AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn avx2(step: *const Self, part: usize) -> [std::arch::x86_64::__m256; 2];

    /// 4 outputs from `part * 4` on, for either input.
    ///
    /// # Safety
    /// `step` must be valid for reading one step.
    #[cfg(target_arch = "aarch64")]
    unsafe fn neon(step: *const Self, part: usize) -> [std::arch::aarch64::float32x4_t; 2];
}

/// Full precision: the first input's 32 weights, then the second's.
impl Weight for f32 {
    const STEP: usize = 2 * LANES;

    #[inline(always)]
    fn pair(step: &[Self], lane: usize) -> [f32; 2] {
        [step[lane], step[LANES + lane]]
    }

    fn put(step: &mut [Self], lane: usize, pair: [f32; 2]) {
        [step[lane], step[LANES + lane]] = pair;
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn avx512(step: *const Self, part: usize) -> [std::arch::x86_64::__m512; 2] {
        use std::arch::x86_64::_mm512_loadu_ps;
        // SAFETY: the caller vouches for 64 values; the loads need no alignment.
        unsafe { [_mm512_loadu_ps(step.add(part * 16)), _mm512_loadu_ps(step.add(LANES + part * 16))] }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(step: *const Self, part: usize) -> [std::arch::x86_64::__m256; 2] {
        use std::arch::x86_64::_mm256_loadu_ps;
        // SAFETY: the caller vouches for 64 values; the loads need no alignment.
        unsafe { [_mm256_loadu_ps(step.add(part * 8)), _mm256_loadu_ps(step.add(LANES + part * 8))] }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline]
    unsafe fn neon(step: *const Self, part: usize) -> [std::arch::aarch64::float32x4_t; 2] {
        use std::arch::aarch64::vld1q_f32;
        // SAFETY: the caller vouches for 64 values.
        unsafe { [vld1q_f32(step.add(part * 4)), vld1q_f32(step.add(LANES + part * 4))] }
    }
}

/// Two bf16 weights of one output, for two inputs: the first in the low half.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub(super) struct Pair(pub(super) u32);

impl Pair {
    #[inline(always)]
    pub(super) fn new(pair: [f32; 2]) -> Self {
        let [first, second] = pair.map(|x| u32::from(round(x)));
        Self(second << 16 | first)
    }
}

/// The nearest bf16, ties to even. Vectorises; not-a-number stays so.
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

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn avx512(step: *const Self, part: usize) -> [std::arch::x86_64::__m512; 2] {
        use std::arch::x86_64::*;
        // SAFETY: the caller vouches for 32 values of four bytes; the load needs no alignment.
        let pairs = unsafe { _mm512_loadu_si512(step.add(part * 16).cast()) };
        let high = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
        [_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)), _mm512_castsi512_ps(high)]
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(step: *const Self, part: usize) -> [std::arch::x86_64::__m256; 2] {
        use std::arch::x86_64::*;
        // SAFETY: the caller vouches for 32 values of four bytes; the load needs no alignment.
        let pairs = unsafe { _mm256_loadu_si256(step.add(part * 8).cast()) };
        let high = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32));
        [_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)), _mm256_castsi256_ps(high)]
    }

    #[cfg(target_arch = "aarch64")]
    #[inline]
    unsafe fn neon(step: *const Self, part: usize) -> [std::arch::aarch64::float32x4_t; 2] {
        use std::arch::aarch64::*;
        // SAFETY: the caller vouches for 32 values of four bytes; NEON is part of every such processor.
        unsafe {
            let pairs = vld1q_u32(step.add(part * 4).cast());
            let high = vandq_u32(pairs, vdupq_n_u32(0xffff_0000));
            [vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16)), vreinterpretq_f32_u32(high)]
        }
    }
}

/// Bf16 as an f32.
#[inline(always)]
pub(super) fn rounded(x: f32) -> f32 {
    bf16::from_bits(round(x)).to_f32()
}

/// Calls what is generic over a number of rows `M`, which must be one of those listed.
macro_rules! by_rows {
    ($rows:expr, [$($n:literal)*], $M:ident => $call:expr) => {
        match $rows {
            $($n => {
                const $M: usize = $n;
                $call
            })*
            _ => unreachable!("blocks are cut to size"),
        }
    };
}
pub(super) use by_rows;

/// One panel against `y.len() / 32` rows of x, `stride` apart, into y `[m][32]`; sums start from what y
/// holds if `onto`, from zero otherwise. The panel's steps are all used: x has two inputs for each.
pub(super) fn rows<W: Weight>(
    variant: Variant,
    w: &[W],
    x: &[f32],
    stride: usize,
    y: &mut [f32],
    onto: bool,
) {
    let (steps, m) = (w.len() / W::STEP, y.len() / LANES);
    assert!(w.len() == steps * W::STEP && y.len() == m * LANES && m > 0);
    assert!(x.len() >= (m - 1) * stride + 2 * steps, "x is too short");
    if !onto {
        y.fill(0.0);
    }
    match variant {
        Variant::Portable => portable(w, x, stride, y),
        #[cfg(target_arch = "x86_64")]
        Variant::Avx512 | Variant::Avx512Dot => blocks(m, 12, |row, rows| {
            let (w, x, y) = (w.as_ptr(), x[row * stride..].as_ptr(), y[row * LANES..].as_mut_ptr());
            // SAFETY: layers are only made with variants that the processor has; lengths as asserted.
            unsafe {
                by_rows!(rows, [1 2 3 4 5 6 7 8 9 10 11 12], M => avx512::<W, M>(w, x, stride, steps, y))
            }
        }),
        #[cfg(target_arch = "x86_64")]
        Variant::Avx2 => blocks(m, 3, |row, rows| {
            let (w, x, y) = (w.as_ptr(), x[row * stride..].as_ptr(), y[row * LANES..].as_mut_ptr());
            // SAFETY: as above.
            unsafe { by_rows!(rows, [1 2 3], M => avx2::<W, M>(w, x, stride, steps, y)) }
        }),
        #[cfg(target_arch = "aarch64")]
        Variant::Neon => blocks(m, 3, |row, rows| {
            let (w, x, y) = (w.as_ptr(), x[row * stride..].as_ptr(), y[row * LANES..].as_mut_ptr());
            // SAFETY: as above.
            unsafe { by_rows!(rows, [1 2 3], M => neon::<W, M>(w, x, stride, steps, y)) }
        }),
        #[allow(unreachable_patterns, reason = "variants of other processors")]
        _ => unreachable!("this processor has no {variant:?}"),
    }
}

/// The same for inputs that are bf16 pairs themselves, by the processor's own dot products of pairs.
#[cfg(target_arch = "x86_64")]
pub(super) fn dot_rows(w: &[Pair], x: &[Pair], stride: usize, y: &mut [f32]) {
    let (steps, m) = (w.len() / LANES, y.len() / LANES);
    assert!(w.len() == steps * LANES && y.len() == m * LANES && m > 0);
    assert!(x.len() >= (m - 1) * stride + steps, "x is too short");
    y.fill(0.0);
    blocks(m, 12, |row, rows| {
        let (w, x, y) = (w.as_ptr(), x[row * stride..].as_ptr(), y[row * LANES..].as_mut_ptr());
        // SAFETY: only called for the variant `Avx512Dot`; lengths as asserted.
        unsafe {
            by_rows!(rows, [1 2 3 4 5 6 7 8 9 10 11 12], M => avx512_dot::<M>(w, x, stride, steps, y))
        }
    });
}

/// Cuts `m` rows into blocks of at most `most`, as even as can be.
pub(super) fn blocks(m: usize, most: usize, mut block: impl FnMut(usize, usize)) {
    let count = m.div_ceil(most);
    let mut row = 0;
    for i in 0..count {
        let rows = (m - row).div_ceil(count - i);
        block(row, rows);
        row += rows;
    }
}

/// Asks for `LINES` cache lines some way ahead of `p`: left alone, the processor fetches what it can compute
/// on in the meantime too late, and stops at the end of each page of memory.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn fetch<const LINES: usize>(p: *const impl Sized) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    const AHEAD: usize = 4096;
    for line in 0..LINES {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast::<i8>().wrapping_add(AHEAD + 64 * line)) }
    }
}

/// What all variants compute.
fn portable<W: Weight>(w: &[W], x: &[f32], stride: usize, y: &mut [f32]) {
    for (row, y) in y.chunks_exact_mut(LANES).enumerate() {
        for (step, x) in w.chunks_exact(W::STEP).zip(x[row * stride..].chunks_exact(2)) {
            for (lane, sum) in y.iter_mut().enumerate() {
                let [first, second] = W::pair(step, lane);
                *sum = *sum + x[0] * first + x[1] * second;
            }
        }
    }
}

/// What y `[M][32]` holds.
///
/// # Safety
/// The processor must have AVX-512 F; y has `M * 32` places.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load512<const M: usize>(y: *const f32) -> [[std::arch::x86_64::__m512; 2]; M] {
    use std::arch::x86_64::_mm512_loadu_ps;
    // SAFETY: the caller vouches for the places.
    let load = |row: usize, part: usize| unsafe { _mm512_loadu_ps(y.add(row * LANES + part * 16)) };
    std::array::from_fn(|row| [load(row, 0), load(row, 1)])
}

/// Writes sums to y `[M][32]`.
///
/// # Safety
/// As [`load512`].
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn store512<const M: usize>(sum: [[std::arch::x86_64::__m512; 2]; M], y: *mut f32) {
    use std::arch::x86_64::_mm512_storeu_ps;
    for (row, sum) in sum.into_iter().enumerate() {
        // SAFETY: the caller vouches for the places.
        unsafe {
            _mm512_storeu_ps(y.add(row * LANES), sum[0]);
            _mm512_storeu_ps(y.add(row * LANES + 16), sum[1]);
        }
    }
}

/// # Safety
/// The processor must have AVX-512 F and BW; `w` holds `steps` steps, `x` has `M` rows of `2 * steps`
/// inputs, `stride` apart, and `y` `M * 32` places.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn avx512<W: Weight, const M: usize>(
    w: *const W,
    x: *const f32,
    stride: usize,
    steps: usize,
    y: *mut f32,
) {
    use std::arch::x86_64::*;
    // SAFETY: y has 32 places for each of the M rows.
    let mut sum: [[__m512; 2]; M] = unsafe { load512(y) };
    for i in 0..steps {
        // SAFETY: i < steps, so a step lies there and each of the M rows has inputs 2i and 2i + 1.
        unsafe {
            let w = w.add(i * W::STEP);
            // 64 bytes to a line.
            if size_of::<W>() * W::STEP == 256 {
                fetch::<4>(w)
            } else {
                fetch::<2>(w)
            }
            let (low, high) = (W::avx512(w, 0), W::avx512(w, 1));
            for half in 0..2 {
                for (row, sum) in sum.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*x.add(row * stride + 2 * i + half));
                    sum[0] = _mm512_fmadd_ps(x, low[half], sum[0]);
                    sum[1] = _mm512_fmadd_ps(x, high[half], sum[1]);
                }
            }
        }
    }
    // SAFETY: as above.
    unsafe { store512(sum, y) }
}

/// # Safety
/// As [`avx512`], with `steps` pairs to each row of x; the processor must have AVX-512 BF16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn avx512_dot<const M: usize>(
    w: *const Pair,
    x: *const Pair,
    stride: usize,
    steps: usize,
    y: *mut f32,
) {
    use std::arch::x86_64::*;
    // SAFETY: y has 32 places for each of the M rows.
    let mut sum: [[__m512; 2]; M] = unsafe { load512(y) };
    for i in 0..steps {
        // SAFETY: i < steps, so 32 pairs lie there and each of the M rows has an i-th pair; registers of
        // pairs are plain bits.
        unsafe {
            let w = w.add(i * LANES);
            fetch::<2>(w);
            let low: __m512bh = std::mem::transmute(_mm512_loadu_si512(w.cast()));
            let high: __m512bh = std::mem::transmute(_mm512_loadu_si512(w.add(16).cast()));
            for (row, sum) in sum.iter_mut().enumerate() {
                let x = _mm512_set1_epi32(*x.add(row * stride + i).cast::<i32>());
                let x: __m512bh = std::mem::transmute(x);
                sum[0] = _mm512_dpbf16_ps(sum[0], x, low);
                sum[1] = _mm512_dpbf16_ps(sum[1], x, high);
            }
        }
    }
    // SAFETY: as above.
    unsafe { store512(sum, y) }
}

/// # Safety
/// As [`avx512`], with AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<W: Weight, const M: usize>(
    w: *const W,
    x: *const f32,
    stride: usize,
    steps: usize,
    y: *mut f32,
) {
    use std::arch::x86_64::*;
    // By part first: the loads of a part serve every row.
    let mut sum: [[__m256; M]; 4] = std::array::from_fn(|part| {
        // SAFETY: y has 32 places for each of the M rows.
        std::array::from_fn(|row| unsafe { _mm256_loadu_ps(y.add(row * LANES + part * 8)) })
    });
    for i in 0..steps {
        // SAFETY: i < steps, so a step lies there and each of the M rows has inputs 2i and 2i + 1.
        unsafe {
            let w = w.add(i * W::STEP);
            if size_of::<W>() * W::STEP == 256 {
                fetch::<4>(w)
            } else {
                fetch::<2>(w)
            }
            for (part, sum) in sum.iter_mut().enumerate() {
                let w = W::avx2(w, part);
                for (row, sum) in sum.iter_mut().enumerate() {
                    let x = x.add(row * stride + 2 * i);
                    *sum = _mm256_fmadd_ps(_mm256_set1_ps(*x), w[0], *sum);
                    *sum = _mm256_fmadd_ps(_mm256_set1_ps(*x.add(1)), w[1], *sum);
                }
            }
        }
    }
    for (part, sum) in sum.iter().enumerate() {
        for (row, sum) in sum.iter().enumerate() {
            // SAFETY: as above.
            unsafe { _mm256_storeu_ps(y.add(row * LANES + part * 8), *sum) }
        }
    }
}

/// # Safety
/// As [`avx512`], with NEON, which every such processor has.
#[cfg(target_arch = "aarch64")]
unsafe fn neon<W: Weight, const M: usize>(
    w: *const W,
    x: *const f32,
    stride: usize,
    steps: usize,
    y: *mut f32,
) {
    use std::arch::aarch64::*;
    // By part first: the loads of a part serve every row.
    let mut sum: [[float32x4_t; M]; 8] = std::array::from_fn(|part| {
        // SAFETY: y has 32 places for each of the M rows.
        std::array::from_fn(|row| unsafe { vld1q_f32(y.add(row * LANES + part * 4)) })
    });
    for i in 0..steps {
        // SAFETY: i < steps, so a step lies there and each of the M rows has inputs 2i and 2i + 1.
        unsafe {
            for (part, sum) in sum.iter_mut().enumerate() {
                let w = W::neon(w.add(i * W::STEP), part);
                for (row, sum) in sum.iter_mut().enumerate() {
                    let x = x.add(row * stride + 2 * i);
                    *sum = vfmaq_n_f32(*sum, w[0], *x);
                    *sum = vfmaq_n_f32(*sum, w[1], *x.add(1));
                }
            }
        }
    }
    for (part, sum) in sum.iter().enumerate() {
        for (row, sum) in sum.iter().enumerate() {
            // SAFETY: as above.
            unsafe { vst1q_f32(y.add(row * LANES + part * 4), *sum) }
        }
    }
}
