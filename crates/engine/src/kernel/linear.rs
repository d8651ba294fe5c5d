//! The packed linear layer: `y = x Wᵀ` for few rows, at the speed at which the weights can be read.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};
use half::bf16;
use rayon::prelude::*;

use super::Variant;

/// Outputs per panel: two AVX-512 registers, four AVX2 ones.
const LANES: usize = 32;

/// Weights of a linear layer `[n, k]`, kept once, in panels `[n / 32][k][32]`: 32 outputs at a time lie
/// side by side, so that one pass over memory serves every row of the input.
pub struct Packed {
    weights: Weights,
    n: usize,
    k: usize,
    variant: Variant,
}

enum Weights {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Packed {
    /// Packs rows one after the other: `rows` yields `n` rows of `k` weights.
    ///
    /// # Errors
    /// A dtype other than f32 and bf16; a source whose size is not `n * k`.
    pub fn new(source: &[f32], n: usize, k: usize, dtype: DType) -> Result<Self> {
        Self::with_variant(source, n, k, dtype, Variant::detect())
    }

    /// The same for one set of instructions, which the processor must have.
    ///
    /// # Errors
    /// As [`Packed::new`], and a variant that this processor lacks.
    pub fn with_variant(
        source: &[f32],
        n: usize,
        k: usize,
        dtype: DType,
        variant: Variant,
    ) -> Result<Self> {
        if source.len() != n * k {
            bail!("{} weights do not make a matrix of {n} by {k}", source.len());
        }
        if !Variant::available().contains(&variant) {
            bail!("this processor has no {variant:?}");
        }
        let weights = match dtype {
            DType::F32 => Weights::F32(pack(source, n, k, |x| x)),
            DType::BF16 => Weights::Bf16(pack(source, n, k, bf16::from_f32)),
            other => bail!("weights are kept as f32 or bf16, not {other:?}"),
        };
        Ok(Self { weights, n, k, variant })
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        match &self.weights {
            Weights::F32(w) => size_of_val(&w[..]),
            Weights::Bf16(w) => size_of_val(&w[..]),
        }
    }

    /// One row of the matrix, `[k]`: the layer also serves as an embedding table.
    pub fn row(&self, row: usize) -> Vec<f32> {
        let start = row / LANES * LANES * self.k + row % LANES;
        match &self.weights {
            Weights::F32(w) => w[start..].iter().step_by(LANES).take(self.k).copied().collect(),
            Weights::Bf16(w) => {
                w[start..].iter().step_by(LANES).take(self.k).map(|x| x.to_f32()).collect()
            }
        }
    }

    /// `y = x Wᵀ`: x `[m, k]` to y `[m, n]`, row by row in memory.
    pub fn apply(&self, x: &[f32], m: usize) -> Vec<f32> {
        assert_eq!(x.len(), m * self.k, "x must be m by k");
        if m == 0 {
            return Vec::new();
        }
        let panels = self.n.div_ceil(LANES);
        // [panels][m][32]: each thread owns the panels it computes.
        let mut out = vec![0f32; panels * m * LANES];
        // A few tasks per thread even out what other processes take from the cores.
        let per_task = panels.div_ceil(4 * rayon::current_num_threads()).max(1);
        let work = |(task, chunk): (usize, &mut [f32])| {
            for (i, y) in chunk.chunks_mut(m * LANES).enumerate() {
                self.panel(task * per_task + i, x, m, y);
            }
        };
        out.par_chunks_mut(per_task * m * LANES).enumerate().for_each(work);
        if m == 1 {
            out.truncate(self.n);
            return out;
        }
        let mut y = vec![0f32; m * self.n];
        y.par_chunks_mut(self.n).enumerate().for_each(|(row, y)| {
            for (p, lanes) in y.chunks_mut(LANES).enumerate() {
                let from = (p * m + row) * LANES;
                lanes.copy_from_slice(&out[from..from + lanes.len()]);
            }
        });
        y
    }

    /// 32 outputs of every row.
    fn panel(&self, panel: usize, x: &[f32], m: usize, y: &mut [f32]) {
        let (k, range) = (self.k, panel * LANES * self.k..(panel + 1) * LANES * self.k);
        match &self.weights {
            Weights::F32(w) => rows(self.variant, &w[range], x, m, k, y),
            Weights::Bf16(w) => rows(self.variant, &w[range], x, m, k, y),
        }
    }
}

fn pack<T: Copy + Default + Send + Sync>(
    source: &[f32],
    n: usize,
    k: usize,
    convert: impl Fn(f32) -> T + Sync,
) -> Vec<T> {
    let mut packed = vec![T::default(); n.div_ceil(LANES) * LANES * k];
    packed.par_chunks_mut(LANES * k).enumerate().for_each(|(panel, to)| {
        for lane in 0..LANES.min(n - panel * LANES) {
            let row = &source[(panel * LANES + lane) * k..][..k];
            for (i, &weight) in row.iter().enumerate() {
                to[i * LANES + lane] = convert(weight);
            }
        }
    });
    packed
}

/// A type that weights are kept in.
trait Weight: Copy + Send + Sync {
    fn to_f32(self) -> f32;

    /// 16 weights from `p` on.
    ///
    /// # Safety
    /// `p` must be valid for reading 16 values; the processor must have AVX-512 F and BW.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load16(p: *const Self) -> std::arch::x86_64::__m512;

    /// 8 weights from `p` on.
    ///
    /// # Safety
    /// `p` must be valid for reading 8 values; the processor must have AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load8(p: *const Self) -> std::arch::x86_64::__m256;
}

impl Weight for f32 {
    fn to_f32(self) -> f32 {
        self
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn load16(p: *const Self) -> std::arch::x86_64::__m512 {
        // SAFETY: the caller vouches for 16 values; the load needs no alignment.
        unsafe { std::arch::x86_64::_mm512_loadu_ps(p) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load8(p: *const Self) -> std::arch::x86_64::__m256 {
        // SAFETY: the caller vouches for 8 values; the load needs no alignment.
        unsafe { std::arch::x86_64::_mm256_loadu_ps(p) }
    }
}

impl Weight for bf16 {
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn load16(p: *const Self) -> std::arch::x86_64::__m512 {
        use std::arch::x86_64::*;
        // SAFETY: the caller vouches for 16 values of two bytes; the load needs no alignment.
        let halves = unsafe { _mm256_loadu_si256(p.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load8(p: *const Self) -> std::arch::x86_64::__m256 {
        use std::arch::x86_64::*;
        // SAFETY: the caller vouches for 8 values of two bytes; the load needs no alignment.
        let halves = unsafe { _mm_loadu_si128(p.cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16))
    }
}

/// One panel `[k][32]` against all `m` rows of x `[m, k]`, into y `[m][32]`.
fn rows<T: Weight>(variant: Variant, w: &[T], x: &[f32], m: usize, k: usize, y: &mut [f32]) {
    assert!(w.len() == k * LANES && x.len() == m * k && y.len() == m * LANES);
    match variant {
        Variant::Portable => portable(w, x, k, y),
        #[cfg(target_arch = "x86_64")]
        Variant::Avx512 => {
            let block = |row: usize, rows: usize, y: &mut [f32]| {
                let x = &x[row * k..(row + rows) * k];
                // SAFETY: `Packed` is only made with variants that the processor has; lengths as above.
                unsafe {
                    match rows {
                        1 => avx512::<T, 1>(w, x, k, y),
                        2 => avx512::<T, 2>(w, x, k, y),
                        3 => avx512::<T, 3>(w, x, k, y),
                        4 => avx512::<T, 4>(w, x, k, y),
                        5 => avx512::<T, 5>(w, x, k, y),
                        6 => avx512::<T, 6>(w, x, k, y),
                        7 => avx512::<T, 7>(w, x, k, y),
                        8 => avx512::<T, 8>(w, x, k, y),
                        9 => avx512::<T, 9>(w, x, k, y),
                        10 => avx512::<T, 10>(w, x, k, y),
                        11 => avx512::<T, 11>(w, x, k, y),
                        _ => avx512::<T, 12>(w, x, k, y),
                    }
                }
            };
            blocks(m, 12, y, block);
        }
        #[cfg(target_arch = "x86_64")]
        Variant::Avx2 => {
            let block = |row: usize, rows: usize, y: &mut [f32]| {
                let x = &x[row * k..(row + rows) * k];
                // SAFETY: `Packed` is only made with variants that the processor has; lengths as above.
                unsafe {
                    match rows {
                        1 => avx2::<T, 1>(w, x, k, y),
                        2 => avx2::<T, 2>(w, x, k, y),
                        _ => avx2::<T, 3>(w, x, k, y),
                    }
                }
            };
            blocks(m, 3, y, block);
        }
        #[cfg(not(target_arch = "x86_64"))]
        _ => portable(w, x, k, y),
    }
}

/// Cuts `m` rows into blocks of at most `most`, as even as can be.
#[cfg(target_arch = "x86_64")]
fn blocks(m: usize, most: usize, y: &mut [f32], mut block: impl FnMut(usize, usize, &mut [f32])) {
    let count = m.div_ceil(most);
    let mut row = 0;
    for i in 0..count {
        let rows = (m - row).div_ceil(count - i);
        block(row, rows, &mut y[row * LANES..(row + rows) * LANES]);
        row += rows;
    }
}

/// What all variants compute.
fn portable<T: Weight>(w: &[T], x: &[f32], k: usize, y: &mut [f32]) {
    for (x, y) in x.chunks_exact(k).zip(y.chunks_exact_mut(LANES)) {
        let mut sum = [0f32; LANES];
        for (x, w) in x.iter().zip(w.chunks_exact(LANES)) {
            for (sum, w) in sum.iter_mut().zip(w) {
                *sum += x * w.to_f32();
            }
        }
        y.copy_from_slice(&sum);
    }
}

/// # Safety
/// The processor must have AVX-512 F and BW; `w` holds `k * 32` weights, `x` `M * k`, `y` `M * 32`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn avx512<T: Weight, const M: usize>(w: &[T], x: &[f32], k: usize, y: &mut [f32]) {
    use std::arch::x86_64::*;
    let (w, x, y) = (w.as_ptr(), x.as_ptr(), y.as_mut_ptr());
    let mut sum = [[_mm512_setzero_ps(); 2]; M];
    for i in 0..k {
        // SAFETY: i < k, so 32 weights lie there and each of the M rows has an i-th input.
        unsafe {
            let (w0, w1) = (T::load16(w.add(i * LANES)), T::load16(w.add(i * LANES + 16)));
            for (row, sum) in sum.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*x.add(row * k + i));
                sum[0] = _mm512_fmadd_ps(x, w0, sum[0]);
                sum[1] = _mm512_fmadd_ps(x, w1, sum[1]);
            }
        }
    }
    for (row, sum) in sum.iter().enumerate() {
        // SAFETY: y has 32 places for each of the M rows.
        unsafe {
            _mm512_storeu_ps(y.add(row * LANES), sum[0]);
            _mm512_storeu_ps(y.add(row * LANES + 16), sum[1]);
        }
    }
}

/// # Safety
/// The processor must have AVX2 and FMA; `w` holds `k * 32` weights, `x` `M * k`, `y` `M * 32`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<T: Weight, const M: usize>(w: &[T], x: &[f32], k: usize, y: &mut [f32]) {
    use std::arch::x86_64::*;
    let (w, x, y) = (w.as_ptr(), x.as_ptr(), y.as_mut_ptr());
    // By part first: the loads of a part serve every row.
    let mut sum = [[_mm256_setzero_ps(); M]; 4];
    for i in 0..k {
        // SAFETY: i < k, so 32 weights lie there and each of the M rows has an i-th input.
        unsafe {
            let x: [__m256; M] = std::array::from_fn(|row| _mm256_set1_ps(*x.add(row * k + i)));
            for (part, sum) in sum.iter_mut().enumerate() {
                let w = T::load8(w.add(i * LANES + part * 8));
                for (x, sum) in x.iter().zip(sum) {
                    *sum = _mm256_fmadd_ps(*x, w, *sum);
                }
            }
        }
    }
    for (part, sum) in sum.iter().enumerate() {
        for (row, sum) in sum.iter().enumerate() {
            // SAFETY: y has 32 places for each of the M rows.
            unsafe { _mm256_storeu_ps(y.add(row * LANES + part * 8), *sum) }
        }
    }
}

/// The layer as a candle operation on a contiguous f32 tensor `[m, k]`.
struct Apply<'a>(&'a Packed);

impl CustomOp1 for Apply<'_> {
    fn name(&self) -> &'static str {
        "packed-linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("packed-linear: not contiguous")
        };
        let (m, k) = layout.shape().dims2()?;
        if k != self.0.k {
            bail!("packed-linear: {k} inputs where {} are expected", self.0.k);
        }
        let x = &storage.as_slice::<f32>()?[start..end];
        Ok((CpuStorage::F32(self.0.apply(x, m)), Shape::from((m, self.0.n))))
    }
}

impl Packed {
    /// `y = x Wᵀ` on tensors: x `[m, k]` f32 to y `[m, n]` f32.
    ///
    /// # Errors
    /// Another shape, dtype or device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.contiguous()?.apply_op1_no_bwd(&Apply(self))
    }
}
