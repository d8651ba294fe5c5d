//! The innermost loops for int8: blocks of 32 inputs with one scale each, as Q8_0 of GGUF.
//!
//! Within a block, products are summed exactly, as integers. The sums of the blocks are then added in order. Inputs are
//! rounded to int8 too, row by row and block by block.

use half::f16;

use super::Variant;
use super::elementwise::{SHIFT, tree};
#[cfg(target_arch = "x86_64")]
use super::tile::{blocks, by_rows, fetch, store512};
use super::weight::LANES;

/// Inputs per block.
pub(super) const BLOCK: usize = 32;
/// Groups of four inputs per block. The four inputs of a group lie side by side.
const QUADS: usize = BLOCK / 4;

/// Panels of weights. Each block has `[8 quads][32 outputs]` of four weights + 128, and 32 scales.
pub(super) struct Weights {
    pub(super) quads: Vec<u32>,
    pub(super) scales: Vec<f16>,
}

/// Rows of inputs. Each block has eight quads, a scale, and an offset: -128 times the sum of its integers, which undoes
/// the 128 added to the weights.
pub(super) struct Inputs {
    quads: Vec<u32>,
    scales: Vec<f32>,
    offsets: Vec<i32>,
    blocks: usize,
}

impl Weights {
    /// Zero weights for `panels` panels of `blocks` blocks.
    pub(super) fn new(panels: usize, blocks: usize) -> Self {
        let zero = u32::from_ne_bytes([128; 4]);
        Self {
            quads: vec![zero; panels * blocks * QUADS * LANES],
            scales: vec![f16::ZERO; panels * blocks * LANES],
        }
    }

    /// Size in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.quads[..]) + size_of_val(&self.scales[..])
    }

    /// Quads and scales of each panel, in order.
    pub(super) fn panels_mut(
        &mut self,
        blocks: usize,
    ) -> impl Iterator<Item = (&mut [u32], &mut [f16])> {
        let quads = self.quads.chunks_exact_mut(blocks * QUADS * LANES);
        quads.zip(self.scales.chunks_exact_mut(blocks * LANES))
    }

    /// The weights of one output, for all inputs.
    pub(super) fn row(&self, row: usize, blocks: usize) -> impl Iterator<Item = f32> {
        let (panel, lane) = (row / LANES, row % LANES);
        (panel * blocks..(panel + 1) * blocks).flat_map(move |block| {
            let scale = self.scales[block * LANES + lane].to_f32();
            (0..QUADS).flat_map(move |quad| {
                let bytes = self.quads[(block * QUADS + quad) * LANES + lane].to_le_bytes();
                bytes.map(|byte| (i32::from(byte) - 128) as f32 * scale)
            })
        })
    }
}

/// Stores the weights of one output in its panel. Inputs beyond the row are zero.
pub(super) fn put(quads: &mut [u32], scales: &mut [f16], lane: usize, row: &[f32]) {
    for (block, weights) in row.chunks(BLOCK).enumerate() {
        let scale = f16::from_f32(largest(&padded(weights)) / 127.0);
        scales[block * LANES + lane] = scale;
        for (quad, weights) in weights.chunks(4).enumerate() {
            let mut bytes = [128u8; 4];
            for (byte, &weight) in bytes.iter_mut().zip(weights) {
                *byte = (quantise(weight, scale.to_f32()) + 128) as u8;
            }
            quads[(block * QUADS + quad) * LANES + lane] = u32::from_le_bytes(bytes);
        }
    }
}

#[inline(always)]
fn largest(block: &[f32; BLOCK]) -> f32 {
    // NaN is kept and becomes the block's scale.
    let larger = |a: f32, b: f32| if b > a || b.is_nan() { b } else { a };
    tree(std::array::from_fn(|i| larger(block[i].abs(), block[i + 16].abs())), larger)
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

impl Inputs {
    /// Zero inputs, `m` rows of `k`.
    pub(super) fn new(m: usize, k: usize) -> Self {
        let blocks = k.div_ceil(BLOCK);
        Self {
            quads: vec![0; m * blocks * QUADS],
            scales: vec![0.0; m * blocks],
            offsets: vec![0; m * blocks],
            blocks,
        }
    }

    /// Quads, scales and offsets of each row, in order.
    pub(super) fn rows_mut(&mut self) -> impl Iterator<Item = (&mut [u32], &mut [f32], &mut [i32])> {
        let quads = self.quads.chunks_exact_mut(self.blocks * QUADS);
        let rest =
            self.scales.chunks_exact_mut(self.blocks).zip(self.offsets.chunks_exact_mut(self.blocks));
        quads.zip(rest).map(|(quads, (scales, offsets))| (quads, scales, offsets))
    }
}

/// Rounds one row of inputs to int8.
#[inline(always)]
pub(super) fn round(x: &[f32], quads: &mut [u32], scales: &mut [f32], offsets: &mut [i32]) {
    for (block, x) in x.chunks(BLOCK).enumerate() {
        let x = padded(x);
        let scale = largest(&x) / 127.0;
        let mut integers = [0i32; BLOCK];
        for (integer, x) in integers.iter_mut().zip(x) {
            *integer = quantise(x, scale);
        }
        scales[block] = scale;
        offsets[block] = -128 * integers.iter().sum::<i32>();
        for (quad, four) in quads[block * QUADS..].iter_mut().zip(integers.as_chunks::<4>().0) {
            *quad = u32::from_le_bytes([four[0] as u8, four[1] as u8, four[2] as u8, four[3] as u8]);
        }
    }
}

/// The product of one panel with the first `m` rows of x, into y `[m][32]`.
pub(super) fn rows(variant: Variant, quads: &[u32], scales: &[f16], x: &Inputs, y: &mut [f32]) {
    let (n, m) = (x.blocks, y.len() / LANES);
    assert!(quads.len() == n * QUADS * LANES && scales.len() == n * LANES && y.len() == m * LANES);
    assert!(x.scales.len() >= m * n && x.offsets.len() >= m * n && x.quads.len() >= m * n * QUADS);
    #[cfg(target_arch = "x86_64")]
    let at = |row: usize| Row {
        quads: x.quads[row * n * QUADS..].as_ptr(),
        scales: x.scales[row * n..].as_ptr(),
        offsets: x.offsets[row * n..].as_ptr(),
    };
    match variant {
        #[cfg(target_arch = "x86_64")]
        Variant::Avx512Dot => blocks(m, 6, |row, rows| {
            let (w, s, y) = (quads.as_ptr(), scales.as_ptr(), y[row * LANES..].as_mut_ptr());
            // SAFETY: variants come from `Variant::available`, so the processor has this one; the lengths are asserted
            // above.
            unsafe { by_rows!(rows, [1 2 3 4 5 6], M => avx512_dot::<M>(w, s, at(row), n, y)) }
        }),
        #[cfg(target_arch = "x86_64")]
        Variant::Avx512 | Variant::Avx2 => blocks(m, 3, |row, rows| {
            let (w, s, y) = (quads.as_ptr(), scales.as_ptr(), y[row * LANES..].as_mut_ptr());
            // SAFETY: as above; a processor with AVX-512 has AVX2.
            unsafe { by_rows!(rows, [1 2 3], M => avx2::<M>(w, s, at(row), n, y)) }
        }),
        _ => {
            for (row, y) in y.chunks_exact_mut(LANES).enumerate() {
                portable(quads, scales, x, row, y);
            }
        }
    }
}

/// Pointers to a row of inputs. The next rows follow it.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Row {
    quads: *const u32,
    scales: *const f32,
    offsets: *const i32,
}

/// Plain Rust; the other variants compute the same up to rounding.
fn portable(quads: &[u32], scales: &[f16], x: &Inputs, row: usize, y: &mut [f32]) {
    y.fill(0.0);
    for block in 0..x.blocks {
        let at = row * x.blocks + block;
        for (lane, y) in y.iter_mut().enumerate() {
            let mut sum = x.offsets[at];
            for quad in 0..QUADS {
                let w = quads[(block * QUADS + quad) * LANES + lane].to_le_bytes();
                let x = x.quads[at * QUADS + quad].to_le_bytes();
                sum += w.iter().zip(x).map(|(&w, x)| i32::from(w) * i32::from(x as i8)).sum::<i32>();
            }
            *y += sum as f32 * (scales[block * LANES + lane].to_f32() * x.scales[at]);
        }
    }
}

/// # Safety
/// The processor must have AVX-512 F, BW and VNNI. There must be `n` blocks of weights and scales and `M` rows of x, and
/// y must have `M * 32` numbers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn avx512_dot<const M: usize>(w: *const u32, s: *const f16, x: Row, n: usize, y: *mut f32) {
    use std::arch::x86_64::*;
    let mut sum = [[_mm512_setzero_ps(); 2]; M];
    for block in 0..n {
        let mut whole: [[__m512i; 2]; M] = std::array::from_fn(|row| {
            // SAFETY: row < M and block < n, so the block has an offset.
            let offset = _mm512_set1_epi32(unsafe { *x.offsets.add(row * n + block) });
            [offset, offset]
        });
        for quad in 0..QUADS {
            // SAFETY: block < n and quad < 8, so 32 quads lie there.
            let (low, high) = unsafe {
                let w = w.add((block * QUADS + quad) * LANES);
                fetch::<2>(w);
                (_mm512_loadu_si512(w.cast()), _mm512_loadu_si512(w.add(16).cast()))
            };
            for (row, whole) in whole.iter_mut().enumerate() {
                // SAFETY: row < M, block < n and quad < 8, so the block has this quad.
                let x = unsafe { *x.quads.add((row * n + block) * QUADS + quad) };
                let x = _mm512_set1_epi32(x as i32);
                whole[0] = _mm512_dpbusd_epi32(whole[0], low, x);
                whole[1] = _mm512_dpbusd_epi32(whole[1], high, x);
            }
        }
        // SAFETY: block < n, so 32 scales lie there.
        let (low, high) = unsafe {
            let s = s.add(block * LANES);
            fetch::<1>(s);
            (_mm256_loadu_si256(s.cast()), _mm256_loadu_si256(s.add(16).cast()))
        };
        let (low, high) = (_mm512_cvtph_ps(low), _mm512_cvtph_ps(high));
        for (row, (sum, whole)) in sum.iter_mut().zip(whole).enumerate() {
            // SAFETY: row < M and block < n, so the block has a scale.
            let scale = _mm512_set1_ps(unsafe { *x.scales.add(row * n + block) });
            sum[0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[0]), _mm512_mul_ps(low, scale), sum[0]);
            sum[1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[1]), _mm512_mul_ps(high, scale), sum[1]);
        }
    }
    // SAFETY: y has 32 numbers for each of the M rows.
    unsafe { store512(sum, y) }
}

/// # Safety
/// As [`avx512_dot`], but the processor must have AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<const M: usize>(w: *const u32, s: *const f16, x: Row, n: usize, y: *mut f32) {
    use std::arch::x86_64::*;
    for part in 0..4 {
        let mut sum = [_mm256_setzero_ps(); M];
        for block in 0..n {
            let mut whole = [_mm256_setzero_si256(); M];
            for quad in 0..QUADS {
                let at = (block * QUADS + quad) * LANES + part * 8;
                // SAFETY: block < n, quad < 8 and part < 4, so 8 quads lie there.
                let w = unsafe { _mm256_loadu_si256(w.add(at).cast()) };
                let w = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
                for (row, whole) in whole.iter_mut().enumerate() {
                    // SAFETY: row < M, block < n and quad < 8, so the block has this quad.
                    let x = unsafe { *x.quads.add((row * n + block) * QUADS + quad) };
                    let x = _mm256_set1_epi32(x as i32);
                    // |x| (w sign x) is at most 127 * 127 * 2, which fits 16 bits.
                    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(w, x));
                    let quads = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                    *whole = _mm256_add_epi32(*whole, quads);
                }
            }
            // SAFETY: block < n and part < 4, so 8 scales lie there.
            let s = unsafe { _mm_loadu_si128(s.add(block * LANES + part * 8).cast()) };
            let s = _mm256_cvtph_ps(s);
            for (row, (sum, whole)) in sum.iter_mut().zip(whole).enumerate() {
                // SAFETY: row < M and block < n, so the block has a scale.
                let x = unsafe { *x.scales.add(row * n + block) };
                let scale = _mm256_mul_ps(s, _mm256_set1_ps(x));
                *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), scale, *sum);
            }
        }
        for (row, sum) in sum.iter().enumerate() {
            // SAFETY: y has 32 numbers for each of the M rows.
            unsafe { _mm256_storeu_ps(y.add(row * LANES + part * 8), *sum) }
        }
    }
}
