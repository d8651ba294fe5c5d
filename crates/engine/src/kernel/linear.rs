//! The packed linear layer: `y = x Wᵀ` for few rows, limited by the bandwidth at which the weights are read. Norm, bias,
//! gate, activation and residual are fused into it.

use std::cell::RefCell;
use std::ops::Range;

use candle_core::{Result, Tensor, bail};

use super::activation::Activation;
use super::elementwise::vectorised;
use super::norm::Norm;
use super::output::Output;
use super::pack::{Rows, pack, part, unpack};
use super::quant::{Alternating, Inputs, Panels, Source, round};
use super::slice::with_slice;
use super::weight::{self, LANES, Pair, Weight};
use super::{Dtype, Variant, form, pool, tile};

/// A linear layer of `n` outputs and `k` inputs. Its weights `[n, k]` are packed once into panels of 32 outputs side by
/// side, so that one pass over memory serves every row of the input.
pub struct Packed {
    weights: Weights,
    n: usize,
    k: usize,
    variant: Variant,
    /// Applied to the inputs.
    norm: Option<Norm>,
    /// Added to the outputs, `[n]`.
    bias: Option<Vec<f32>>,
    /// Applied to the outputs; in a gated layer, to the gate.
    activation: Option<Activation>,
    /// Number of outputs, if the layer is gated.
    gated: Option<usize>,
}

enum Weights {
    F32(Vec<f32>),
    Bf16(Vec<Pair>),
    Quantised(Panels),
}

impl Packed {
    /// A layer of `n` outputs and `k` inputs. `rows` writes its weights, one panel at a time, on several threads.
    ///
    /// # Errors
    /// An error of `rows`.
    pub fn new<E: Send>(
        n: usize,
        k: usize,
        dtype: Dtype,
        rows: impl Rows<E>,
    ) -> std::result::Result<Self, E> {
        Self::with_variant(n, k, dtype, Variant::detect(), rows)
    }

    /// A gated layer: `f(x Gᵀ) * (x Uᵀ)` with `n` outputs, where `f` is the activation, and `gate` and `up` write the
    /// rows of `G` and `U`.
    ///
    /// # Errors
    /// An error of `gate` or `up`.
    pub fn gated<E: Send>(
        n: usize,
        k: usize,
        dtype: Dtype,
        activation: Activation,
        gate: impl Rows<E>,
        up: impl Rows<E>,
    ) -> std::result::Result<Self, E> {
        // Panels of the gate and of up alternate.
        let rows = |rows: Range<usize>, to: &mut [f32]| {
            let (panel, from) = (rows.start / LANES, rows.start / LANES / 2 * LANES);
            let real = from..(from + LANES).min(n);
            let to = &mut to[..real.len() * k];
            if panel % 2 == 0 { gate(real, to) } else { up(real, to) }
        };
        let layer = Self::new(2 * n.next_multiple_of(LANES), k, dtype, rows)?;
        Ok(layer.into_gated(n, activation))
    }

    /// As [`Packed::new`], for another variant than the one in use.
    ///
    /// # Errors
    /// An error of `rows`.
    ///
    /// # Panics
    /// This processor does not have the variant.
    pub fn with_variant<E: Send>(
        n: usize,
        k: usize,
        dtype: Dtype,
        variant: Variant,
        rows: impl Rows<E>,
    ) -> std::result::Result<Self, E> {
        assert!(Variant::available().contains(&variant), "this processor has no {variant:?}");
        let (panels, steps) = (n.div_ceil(LANES), k.div_ceil(2));
        let weights = match dtype {
            Dtype::F32 => Weights::F32(pack(n, k, steps, panels, rows)?),
            // What is not stored in blocks.
            Dtype::Bf16 | Dtype::Native => Weights::Bf16(pack(n, k, steps, panels, rows)?),
            // Blocks of 4 bits are made by a `Source`.
            Dtype::Int8 | Dtype::Q4 => Weights::Quantised(Panels::rounded(n, k, rows)?),
        };
        Ok(Self::of(weights, n, k, variant))
    }

    /// A layer of `n` outputs and `k` inputs whose weights are kept in the blocks that they are stored in. Rows that are
    /// not stored in blocks of a [`Quant`](super::Quant) are rounded as for [`Dtype::Int8`].
    ///
    /// # Errors
    /// An error of `source`.
    ///
    /// # Panics
    /// This processor does not have the variant, or `k` is not a multiple of the weights in a block.
    pub fn stored<E: Send>(
        n: usize,
        k: usize,
        variant: Variant,
        source: &impl Source<E>,
    ) -> std::result::Result<Self, E> {
        assert!(Variant::available().contains(&variant), "this processor has no {variant:?}");
        Ok(Self::of(Weights::Quantised(Panels::stored(n, k, source)?), n, k, variant))
    }

    /// A gated layer, as [`Packed::gated`], of weights that are kept in the blocks that they are stored in: the rows of
    /// the gate, then those of the up projection.
    ///
    /// # Errors
    /// An error of `stacked`.
    ///
    /// # Panics
    /// `k` is not a multiple of the weights in a block.
    pub fn stored_gated<E: Send>(
        n: usize,
        k: usize,
        activation: Activation,
        stacked: &impl Source<E>,
    ) -> std::result::Result<Self, E> {
        let rows = 2 * n.next_multiple_of(LANES);
        let layer = Self::stored(rows, k, Variant::detect(), &Alternating { stacked, n })?;
        Ok(layer.into_gated(n, activation))
    }

    fn of(weights: Weights, n: usize, k: usize, variant: Variant) -> Self {
        Self { weights, n, k, variant, norm: None, bias: None, activation: None, gated: None }
    }

    fn into_gated(mut self, n: usize, activation: Activation) -> Self {
        self.gated = Some(n);
        self.activation = Some(activation);
        self
    }

    /// The same layer with a norm of width `k` on its inputs.
    ///
    /// # Panics
    /// The norm has another width.
    pub fn after_norm(mut self, norm: Norm) -> Self {
        assert_eq!(norm.width(), self.k, "a norm has one weight per input");
        self.norm = Some(norm);
        self
    }

    /// The same layer with a bias `[n]`: `x Wᵀ + b`.
    ///
    /// # Panics
    /// The bias has another length, or the layer is gated.
    pub fn with_bias(mut self, bias: Vec<f32>) -> Self {
        assert!(self.gated.is_none() && bias.len() == self.n, "a bias has one number per output");
        self.bias = Some(bias);
        self
    }

    /// The same layer with an activation on its outputs.
    pub fn then(mut self, activation: Activation) -> Self {
        self.activation = Some(activation);
        self
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.gated.unwrap_or(self.n)
    }

    /// Number of parameters, including bias and norm.
    pub fn parameters(&self) -> usize {
        let rows = self.gated.map_or(self.n, |n| 2 * n);
        rows * self.k
            + self.bias.as_ref().map_or(0, Vec::len)
            + self.norm.as_ref().map_or(0, Norm::parameters)
    }

    /// Size of the packed weights in bytes.
    pub fn bytes(&self) -> usize {
        match &self.weights {
            Weights::F32(w) => size_of_val(&w[..]),
            Weights::Bf16(w) => size_of_val(&w[..]),
            Weights::Quantised(w) => w.bytes(),
        }
    }

    /// Writes one row of the weights, `[k]`. With it the layer also serves as an embedding table.
    pub fn row(&self, row: usize, to: &mut [f32]) {
        let steps = self.k.div_ceil(2);
        match &self.weights {
            Weights::F32(w) => unpack(w, row, steps, to),
            Weights::Bf16(w) => unpack(w, row, steps, to),
            Weights::Quantised(w) => w.row(row, to),
        }
    }

    /// Applies the layer to x `[m, k]`, f32 on the CPU; the result is `[m, outputs]`.
    ///
    /// # Errors
    /// The tensor has another shape, dtype or device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let m = match x.dims2()? {
            (m, k) if k == self.k => m,
            (_, k) => bail!("packed-linear: {k} inputs where {} are expected", self.k),
        };
        let mut y = vec![0f32; m * self.outputs()];
        with_slice(x, |x| self.apply(x, &mut y, false))?;
        Tensor::from_vec(y, (m, self.outputs()), x.device())
    }

    /// Applies the layer to x `[m, k]`. The result `[m, outputs]` is added to y if `add`, else it overwrites y.
    pub fn apply(&self, x: &[f32], y: &mut [f32], add: bool) {
        let (m, width) = (x.len() / self.k, self.outputs());
        assert!(x.len() == m * self.k && y.len() == m * width, "x must be m by k, y m by outputs");
        if m == 0 {
            return;
        }
        let input = self.prepare(x, m);
        let output = Output::new(y, width);
        let panels = width.div_ceil(LANES);
        // Fewer, larger tasks: handing out a task has a small cost.
        let per_task = (panels / (16 * pool::count())).clamp(1, 8);
        pool::run(panels.div_ceil(per_task), &|task| {
            SCRATCH.with_borrow_mut(|scratch| {
                scratch.resize(2 * m * LANES, 0.0);
                let (tile, other) = scratch.split_at_mut(m * LANES);
                for panel in task * per_task..((task + 1) * per_task).min(panels) {
                    if self.gated.is_some() {
                        self.panel(2 * panel, &input, tile);
                        self.panel(2 * panel + 1, &input, other);
                        let activation = self.activation.unwrap_or(Activation::Silu);
                        vectorised!(self.variant, gate(activation, tile, other));
                    } else {
                        self.panel(panel, &input, tile);
                    }
                    let from = panel * LANES;
                    let columns = from..(from + LANES).min(width);
                    if self.gated.is_none() {
                        self.finish(columns.clone(), tile);
                    }
                    for (row, tile) in tile.chunks_exact(LANES).enumerate() {
                        // SAFETY: each panel is computed by one task, and the columns of panels do not overlap.
                        let y = unsafe { output.part(row, columns.clone()) };
                        if add {
                            y.iter_mut().zip(tile).for_each(|(y, sum)| *y += sum);
                        } else {
                            y.copy_from_slice(&tile[..y.len()]);
                        }
                    }
                }
            });
        });
    }

    /// Adds the bias of these outputs to a tile `[m][32]` and applies the activation.
    fn finish(&self, columns: Range<usize>, tile: &mut [f32]) {
        if let Some(bias) = &self.bias {
            for row in tile.chunks_exact_mut(LANES) {
                row.iter_mut().zip(&bias[columns.clone()]).for_each(|(y, bias)| *y += bias);
            }
        }
        if let Some(activation) = self.activation {
            vectorised!(self.variant, activation.each(tile));
        }
    }

    /// Prepares inputs for the kernels: normalised, and rounded as the weights are.
    fn prepare(&self, x: &[f32], m: usize) -> Input {
        let (k, even) = (self.k, self.k.next_multiple_of(2));
        let dots = self.variant == Variant::Avx512Dot && (m == 1 || form::dots_are_faster());
        let rows = x.chunks_exact(k);
        let mut input = match self.weights {
            Weights::Bf16(_) if dots => Input::Pairs(vec![Pair::default(); m * even / 2]),
            Weights::F32(_) | Weights::Bf16(_) => Input::F32(vec![0.0; m * even]),
            Weights::Quantised(_) => Input::Int8(Inputs::new(m, k)),
        };
        let bf16 = matches!(self.weights, Weights::Bf16(_));
        match &mut input {
            Input::Pairs(pairs) => {
                spread(m, k, rows.zip(pairs.chunks_exact_mut(even / 2)), |(x, to)| {
                    with_scratch(even, |y| {
                        vectorised!(self.variant, {
                            self.normed(x, y);
                            for (to, pair) in to.iter_mut().zip(y.as_chunks::<2>().0) {
                                *to = Pair::new(*pair);
                            }
                        });
                    });
                })
            }
            Input::F32(to) => spread(m, k, rows.zip(to.chunks_exact_mut(even)), |(x, to)| {
                vectorised!(self.variant, {
                    self.normed(x, to);
                    if bf16 {
                        to.iter_mut().for_each(|x| *x = weight::rounded(*x));
                    }
                });
            }),
            Input::Int8(to) => spread(m, k, rows.zip(to.rows_mut()), |(x, to)| {
                with_scratch(k, |y| {
                    vectorised!(self.variant, {
                        self.normed(x, y);
                        round(y, to);
                    });
                });
            }),
        }
        input
    }

    /// Writes a row of inputs, normalised, to the beginning of y.
    #[inline(always)]
    fn normed(&self, x: &[f32], y: &mut [f32]) {
        y[..self.k].copy_from_slice(x);
        if let Some(norm) = &self.norm {
            norm.in_place(&mut y[..self.k]);
        }
    }

    /// Computes the 32 outputs of a panel for every row, into y `[m][32]`.
    fn panel(&self, panel: usize, input: &Input, y: &mut [f32]) {
        let steps = self.k.div_ceil(2);
        match (&self.weights, input) {
            (Weights::F32(w), Input::F32(x)) => {
                tile::rows(self.variant, part(w, panel, steps * f32::STEP), x, 2 * steps, y, false);
            }
            (Weights::Bf16(w), Input::F32(x)) => {
                tile::turned_rows(self.variant, part(w, panel, steps * Pair::STEP), x, 2 * steps, y);
            }
            #[cfg(target_arch = "x86_64")]
            (Weights::Bf16(w), Input::Pairs(x)) => {
                tile::dot_rows(part(w, panel, steps * Pair::STEP), x, steps, y);
            }
            (Weights::Quantised(w), Input::Int8(x)) => w.product(self.variant, panel, x, y),
            _ => unreachable!("inputs are prepared for the weights"),
        }
    }
}

/// Inputs as the kernels read them, `[m][k]`. `k` is padded to an even number, for int8 to whole blocks.
enum Input {
    F32(Vec<f32>),
    Pairs(Vec<Pair>),
    Int8(Inputs),
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    static ROW: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with a zeroed buffer of this thread.
fn with_scratch(length: usize, work: impl FnOnce(&mut [f32])) {
    ROW.with_borrow_mut(|row| {
        row.clear();
        row.resize(length, 0.0);
        work(row);
    });
}

/// Runs `work` for each of `m` rows of `k` numbers, on several threads if they are large enough.
fn spread<T: Send>(m: usize, k: usize, rows: impl Iterator<Item = T> + Send, work: impl Fn(T) + Sync) {
    // For work of less than about 10 µs, a parallel region costs more time than it saves.
    if m * k < 1 << 15 { rows.for_each(work) } else { pool::share(rows, work) }
}

#[inline(always)]
fn gate(activation: Activation, gate: &mut [f32], up: &[f32]) {
    activation.each(gate);
    gate.iter_mut().zip(up).for_each(|(gate, up)| *gate *= up);
}
