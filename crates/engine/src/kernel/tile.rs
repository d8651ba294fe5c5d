//! The innermost loops: the product of some rows of x with one panel of weights.
//!
//! A panel holds 32 outputs side by side, for one input after the other, two inputs per step. Each output is summed in
//! order, from the first input to the last, whatever the number of rows.

use super::Variant;
use super::weight::{LANES, Pair, Weight};

/// Calls a function that is generic over the number of rows `M`, for one of the numbers listed.
macro_rules! by_rows {
    ($rows:expr, [$($n:literal)*], $M:ident => $call:expr) => {
        match $rows {
            $($n => {
                const $M: usize = $n;
                $call
            })*
            _ => unreachable!("blocks have one of these sizes"),
        }
    };
}
pub(super) use by_rows;

/// The product of one panel with `m` rows of x, `stride` apart, into y `[m][32]`, with `m = y.len() / 32`. It is added
/// to y if `onto`, else y is overwritten. Every row of x has two inputs for each step of the panel.
pub(super) fn rows<W: Weight>(
    variant: Variant,
    w: &[W],
    x: &[f32],
    stride: usize,
    y: &mut [f32],
    onto: bool,
) {
    product::<W, false>(variant, w, x, stride, y, onto, None);
}

/// As [`rows`]. Meanwhile, `next` is fetched into the cache, evenly over the time that the product takes.
pub(super) fn rows_before<W: Weight>(
    variant: Variant,
    w: &[W],
    x: &[f32],
    stride: usize,
    y: &mut [f32],
    onto: bool,
    next: &[W],
) {
    product::<W, false>(variant, w, x, stride, y, onto, Some(next));
}

/// As [`rows`], into y, with the second input of each step added first, as AVX-512's dot products of bf16 pairs do.
pub(super) fn turned_rows(variant: Variant, w: &[Pair], x: &[f32], stride: usize, y: &mut [f32]) {
    product::<Pair, true>(variant, w, x, stride, y, false, None);
}

fn product<W: Weight, const TURNED: bool>(
    variant: Variant,
    w: &[W],
    x: &[f32],
    stride: usize,
    y: &mut [f32],
    onto: bool,
    next: Option<&[W]>,
) {
    let (steps, m) = (w.len() / W::STEP, y.len() / LANES);
    assert!(w.len() == steps * W::STEP && y.len() == m * LANES && m > 0);
    assert!(x.len() >= (m - 1) * stride + 2 * steps, "x is too short");
    if !onto {
        y.fill(0.0);
    }
    // Only the kernels for x86 fetch ahead.
    let _ = next;
    match variant {
        Variant::Portable => portable::<W, TURNED>(w, x, stride, y),
        #[cfg(target_arch = "x86_64")]
        Variant::Avx512 | Variant::Avx512Dot => blocks(m, 12, |row, rows| {
            let ahead = Ahead::of(w, next, row, rows, m);
            let (w, x, y) = (w.as_ptr(), x[row * stride..].as_ptr(), y[row * LANES..].as_mut_ptr());
            // SAFETY: variants come from `Variant::available`, so the processor has this one; the lengths are asserted
            // above.
            unsafe {
                by_rows!(rows, [1 2 3 4 5 6 7 8 9 10 11 12], M => avx512::<W, M, TURNED>(w, x, stride, steps, y, ahead))
            }
        }),
        #[cfg(target_arch = "x86_64")]
        Variant::Avx2 => blocks(m, 3, |row, rows| {
            let ahead = Ahead::of(w, next, row, rows, m);
            let (w, x, y) = (w.as_ptr(), x[row * stride..].as_ptr(), y[row * LANES..].as_mut_ptr());
            // SAFETY: as above.
            unsafe { by_rows!(rows, [1 2 3], M => avx2::<W, M, TURNED>(w, x, stride, steps, y, ahead)) }
        }),
        #[cfg(target_arch = "aarch64")]
        Variant::Neon => blocks(m, 3, |row, rows| {
            let (w, x, y) = (w.as_ptr(), x[row * stride..].as_ptr(), y[row * LANES..].as_mut_ptr());
            // SAFETY: as above.
            unsafe { by_rows!(rows, [1 2 3], M => neon::<W, M, TURNED>(w, x, stride, steps, y)) }
        }),
        #[allow(unreachable_patterns, reason = "variants of other processors")]
        _ => unreachable!("this processor has no {variant:?}"),
    }
}

/// As [`rows`], for inputs that are bf16 pairs, by AVX-512's dot products of bf16 pairs. The bits are the same as those of
/// [`turned_rows`] for inputs that are rounded to bf16, but for numbers below 1e-37: a dot product takes them for zero.
#[cfg(target_arch = "x86_64")]
pub(super) fn dot_rows(w: &[Pair], x: &[Pair], stride: usize, y: &mut [f32]) {
    let (steps, m) = (w.len() / LANES, y.len() / LANES);
    assert!(w.len() == steps * LANES && y.len() == m * LANES && m > 0);
    assert!(x.len() >= (m - 1) * stride + steps, "x is too short");
    y.fill(0.0);
    blocks(m, 12, |row, rows| {
        let (w, x, y) = (w.as_ptr(), x[row * stride..].as_ptr(), y[row * LANES..].as_mut_ptr());
        // SAFETY: inputs are pairs only for the variant `Avx512Dot`, which the processor has then; the lengths are
        // asserted above.
        unsafe {
            by_rows!(rows, [1 2 3 4 5 6 7 8 9 10 11 12], M => avx512_dot::<M>(w, x, stride, steps, y))
        }
    });
}

/// The order in which the two inputs of a step are added.
#[inline(always)]
const fn order<const TURNED: bool>() -> [usize; 2] {
    if TURNED { [1, 0] } else { [0, 1] }
}

/// Splits `m` rows into blocks of at most `most` rows, of sizes as equal as possible.
pub(super) fn blocks(m: usize, most: usize, mut block: impl FnMut(usize, usize)) {
    let count = m.div_ceil(most);
    let mut row = 0;
    for i in 0..count {
        let rows = (m - row).div_ceil(count - i);
        block(row, rows);
        row += rows;
    }
}

/// Prefetches `LINES` cache lines at the distance [`AHEAD`] from `p`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn fetch<const LINES: usize>(p: *const impl Sized) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    for line in 0..LINES {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast::<i8>().wrapping_add(AHEAD + LINE * line)) }
    }
}

/// Memory that a product fetches into the cache, a part in each step.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Ahead {
    at: *const u8,
    end: *const u8,
    /// Bytes per step.
    step: usize,
}

#[cfg(target_arch = "x86_64")]
impl Ahead {
    /// The part of `next` for some rows of `m`, or what follows the weights at a fixed distance.
    fn of<W: Weight>(w: &[W], next: Option<&[W]>, row: usize, rows: usize, m: usize) -> Self {
        let step = size_of::<W>() * W::STEP;
        let steps = w.len() / W::STEP;
        let Some(next) = next else {
            let at = w.as_ptr().cast::<u8>().wrapping_add(AHEAD);
            return Self { at, end: at.wrapping_add(step * steps), step };
        };
        let lines = size_of_val(next).div_ceil(LINE);
        let (from, to) = (lines * row / m, lines * (row + rows) / m);
        let start = next.as_ptr().cast::<u8>();
        let [at, end] = [from, to].map(|line| start.wrapping_add(line * LINE));
        Self { at, end, step: (to - from).div_ceil(steps.max(1)) * LINE }
    }

    /// Fetches the part of one step.
    #[inline(always)]
    fn fetch(&mut self) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let stop = self.at.wrapping_add(self.step).min(self.end);
        while self.at < stop {
            // SAFETY: a prefetch of any address is harmless.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.at.cast()) }
            self.at = self.at.wrapping_add(LINE);
        }
    }
}

/// Bytes of a line of the cache.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;
/// How many bytes ahead weights are prefetched. The hardware prefetcher alone is too late, and it stops at the end of each
/// page of memory.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 4096;

/// Prefetches as much as one step of a panel holds.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn fetch_step<W: Weight>(step: *const W) {
    if size_of::<W>() * W::STEP == 256 { fetch::<4>(step) } else { fetch::<2>(step) }
}

/// Plain Rust; the other variants compute the same up to rounding.
fn portable<W: Weight, const TURNED: bool>(w: &[W], x: &[f32], stride: usize, y: &mut [f32]) {
    for (row, y) in y.chunks_exact_mut(LANES).enumerate() {
        for (step, x) in w.chunks_exact(W::STEP).zip(x[row * stride..].chunks_exact(2)) {
            for (lane, sum) in y.iter_mut().enumerate() {
                let (pair, [first, second]) = (W::pair(step, lane), order::<TURNED>());
                *sum = *sum + x[first] * pair[first] + x[second] * pair[second];
            }
        }
    }
}

/// Loads y `[M][32]` into registers.
///
/// # Safety
/// The processor must have AVX-512 F; y must have `M * 32` numbers.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load512<const M: usize>(y: *const f32) -> [[std::arch::x86_64::__m512; 2]; M] {
    use std::arch::x86_64::_mm512_loadu_ps;
    // SAFETY: row < M and part < 2, so by the caller's guarantee 16 numbers lie there.
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
        // SAFETY: row < M, so by the caller's guarantee y has 32 numbers for this row.
        unsafe {
            _mm512_storeu_ps(y.add(row * LANES), sum[0]);
            _mm512_storeu_ps(y.add(row * LANES + 16), sum[1]);
        }
    }
}

/// # Safety
/// The processor must have AVX-512 F and BW. `w` must hold `steps` steps, `x` must hold `M` rows of `2 * steps`
/// inputs, `stride` apart, and `y` must have `M * 32` numbers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn avx512<W: Weight, const M: usize, const TURNED: bool>(
    w: *const W,
    x: *const f32,
    stride: usize,
    steps: usize,
    y: *mut f32,
    mut ahead: Ahead,
) {
    use std::arch::x86_64::*;
    // SAFETY: y has 32 numbers for each of the M rows.
    let mut sum: [[__m512; 2]; M] = unsafe { load512(y) };
    for i in 0..steps {
        // SAFETY: i < steps, so `w` holds a step there.
        let (low, high) = unsafe {
            let w = w.add(i * W::STEP);
            if TURNED {
                fetch_step(w)
            } else {
                ahead.fetch()
            }
            (W::avx512(w, 0), W::avx512(w, 1))
        };
        for half in order::<TURNED>() {
            for (row, sum) in sum.iter_mut().enumerate() {
                // SAFETY: row < M and i < steps, so the row has the inputs 2i and 2i + 1.
                let x = _mm512_set1_ps(unsafe { *x.add(row * stride + 2 * i + half) });
                sum[0] = _mm512_fmadd_ps(x, low[half], sum[0]);
                sum[1] = _mm512_fmadd_ps(x, high[half], sum[1]);
            }
        }
    }
    // SAFETY: y has 32 numbers for each of the M rows.
    unsafe { store512(sum, y) }
}

/// # Safety
/// As [`avx512`], with `steps` pairs in each row of x. The processor must have AVX-512 BF16, too.
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
    // SAFETY: both types are 512 bits without invalid values.
    let pairs = |bits: __m512i| unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) };
    // SAFETY: y has 32 numbers for each of the M rows.
    let mut sum: [[__m512; 2]; M] = unsafe { load512(y) };
    for i in 0..steps {
        // SAFETY: i < steps, so `w` holds 32 pairs there.
        let (low, high) = unsafe {
            let w = w.add(i * LANES);
            fetch_step(w);
            (_mm512_loadu_si512(w.cast()), _mm512_loadu_si512(w.add(16).cast()))
        };
        let (low, high) = (pairs(low), pairs(high));
        for (row, sum) in sum.iter_mut().enumerate() {
            // SAFETY: row < M and i < steps, so the row has an i-th pair.
            let Pair(x) = unsafe { *x.add(row * stride + i) };
            let x = pairs(_mm512_set1_epi32(x as i32));
            sum[0] = _mm512_dpbf16_ps(sum[0], x, low);
            sum[1] = _mm512_dpbf16_ps(sum[1], x, high);
        }
    }
    // SAFETY: y has 32 numbers for each of the M rows.
    unsafe { store512(sum, y) }
}

/// # Safety
/// As [`avx512`], but the processor must have AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<W: Weight, const M: usize, const TURNED: bool>(
    w: *const W,
    x: *const f32,
    stride: usize,
    steps: usize,
    y: *mut f32,
    mut ahead: Ahead,
) {
    use std::arch::x86_64::*;
    // By part first: the loads of a part serve every row.
    let mut sum: [[__m256; M]; 4] = std::array::from_fn(|part| {
        // SAFETY: y has 32 numbers for each of the M rows.
        std::array::from_fn(|row| unsafe { _mm256_loadu_ps(y.add(row * LANES + part * 8)) })
    });
    for i in 0..steps {
        // SAFETY: i < steps, so `w` holds a step there.
        let w = unsafe { w.add(i * W::STEP) };
        if TURNED {
            fetch_step(w)
        } else {
            ahead.fetch()
        }
        for (part, sum) in sum.iter_mut().enumerate() {
            // SAFETY: `w` holds a step.
            let w = unsafe { W::avx2(w, part) };
            for (row, sum) in sum.iter_mut().enumerate() {
                // SAFETY: row < M and i < steps, so the row has the inputs 2i and 2i + 1.
                let x = unsafe { x.add(row * stride + 2 * i).cast::<[f32; 2]>().read() };
                for half in order::<TURNED>() {
                    *sum = _mm256_fmadd_ps(_mm256_set1_ps(x[half]), w[half], *sum);
                }
            }
        }
    }
    for (part, sum) in sum.iter().enumerate() {
        for (row, sum) in sum.iter().enumerate() {
            // SAFETY: y has 32 numbers for each of the M rows.
            unsafe { _mm256_storeu_ps(y.add(row * LANES + part * 8), *sum) }
        }
    }
}

/// # Safety
/// As [`avx512`], but the processor must have NEON, as all of this architecture do.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn neon<W: Weight, const M: usize, const TURNED: bool>(
    w: *const W,
    x: *const f32,
    stride: usize,
    steps: usize,
    y: *mut f32,
) {
    use std::arch::aarch64::*;
    // By part first: the loads of a part serve every row.
    let mut sum: [[float32x4_t; M]; 8] = std::array::from_fn(|part| {
        // SAFETY: y has 32 numbers for each of the M rows.
        std::array::from_fn(|row| unsafe { vld1q_f32(y.add(row * LANES + part * 4)) })
    });
    for i in 0..steps {
        for (part, sum) in sum.iter_mut().enumerate() {
            // SAFETY: i < steps, so `w` holds a step there.
            let w = unsafe { W::neon(w.add(i * W::STEP), part) };
            for (row, sum) in sum.iter_mut().enumerate() {
                // SAFETY: row < M and i < steps, so the row has the inputs 2i and 2i + 1.
                let x = unsafe { x.add(row * stride + 2 * i).cast::<[f32; 2]>().read() };
                for half in order::<TURNED>() {
                    *sum = vfmaq_n_f32(*sum, w[half], x[half]);
                }
            }
        }
    }
    for (part, sum) in sum.iter().enumerate() {
        for (row, sum) in sum.iter().enumerate() {
            // SAFETY: y has 32 numbers for each of the M rows.
            unsafe { vst1q_f32(y.add(row * LANES + part * 4), *sum) }
        }
    }
}
