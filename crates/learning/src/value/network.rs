//! The value head as it is trained: its numbers, its values and their derivatives.

use candle_core::{Device, Result, Tensor, Var};
use rand_chacha::ChaCha12Rng;
use rayon::prelude::*;
use stackelberg_engine::kernel::BiasTanh;

use super::init::orthogonal;

/// The six tensors, in this order: `W₀ᵀ` `[d, h₁]`, `b₀` `[h₁]`, `W₂ᵀ` `[h₁, h₂]`, `b₂` `[h₂]`, `w₄` `[h₂]`, `b₄`
/// `[1]`, row by row.
pub(super) type Numbers = [Vec<f32>; 6];

/// Tensors as a file of a value head has them, by name and shape.
pub(super) type Tensors = [(&'static str, Vec<usize>, Vec<f32>); 6];

/// `V(h) = w₄ · tanh(W₂ tanh(W₀ h + b₀) + b₂) + b₄`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Network {
    /// `d`, `h₁` and `h₂`.
    pub(super) widths: [usize; 3],
    pub(super) numbers: Numbers,
}

impl Network {
    /// Orthogonal weights; biases 0, but for the last: `mean`.
    pub(super) fn new(widths: [usize; 3], mean: f64, rng: &mut ChaCha12Rng) -> Self {
        let [d, first, second] = widths;
        let weights = [
            orthogonal(d, first, rng),
            vec![0.0; first],
            orthogonal(first, second, rng),
            vec![0.0; second],
            orthogonal(second, 1, rng),
            vec![mean as f32],
        ];
        Self { widths, numbers: weights }
    }

    /// As many zeros.
    pub(super) fn zeros([d, first, second]: [usize; 3]) -> Numbers {
        [d * first, first, first * second, second, second, 1].map(|n| vec![0.0; n])
    }

    /// Ready to compute with.
    pub(super) fn layers(&self) -> Result<Layers> {
        let [d, first, second] = self.widths;
        let [w0, b0, w2, b2, w4, b4] = &self.numbers;
        let var =
            |numbers: &Vec<f32>, shape: &[usize]| Var::from_vec(numbers.clone(), shape, &Device::Cpu);
        Ok(Layers {
            width: d,
            w0: Tensor::from_vec(w0.clone(), (d, first), &Device::Cpu)?,
            rest: [
                var(b0, &[first])?,
                var(w2, &[first, second])?,
                var(b2, &[second])?,
                var(w4, &[second, 1])?,
                var(b4, &[1])?,
            ],
        })
    }

    /// The tensors of its file.
    pub(super) fn tensors(&self) -> Tensors {
        let [d, first, second] = self.widths;
        let [w0, b0, w2, b2, w4, b4] = &self.numbers;
        [
            ("0.weight", vec![first, d], transposed(w0, first)),
            ("0.bias", vec![first], b0.clone()),
            ("2.weight", vec![second, first], transposed(w2, second)),
            ("2.bias", vec![second], b2.clone()),
            ("4.weight", vec![1, second], w4.clone()),
            ("4.bias", vec![1], b4.clone()),
        ]
    }
}

/// A matrix of this width, turned over.
fn transposed(matrix: &[f32], width: usize) -> Vec<f32> {
    (0..width).flat_map(|column| matrix[column..].iter().step_by(width).copied()).collect()
}

/// A network's tensors.
pub(super) struct Layers {
    width: usize,
    w0: Tensor,
    /// All but the first weight.
    rest: [Var; 5],
}

impl Layers {
    /// Values of hidden states `[n, d]`, row by row.
    pub(super) fn values(&self, hidden: Vec<f32>) -> Result<Vec<f32>> {
        self.head(&self.inputs(hidden)?.matmul(&self.w0)?)?.to_vec1()
    }

    /// Values of hidden states `[n, d]`, row by row; and, with the slope of a loss by each value that
    /// `slopes` gives for them, the slopes of the loss by all numbers, added to `gradient`.
    pub(super) fn learn(
        &self,
        hidden: Vec<f32>,
        slopes: impl FnOnce(&[f32]) -> Vec<f32>,
        gradient: &mut Numbers,
    ) -> Result<()> {
        let x = self.inputs(hidden)?;
        // Nothing is behind the hidden states, so the chain of derivatives ends at this product: left to
        // candle, their own derivative would be a sixth of all work.
        let product = Var::from_tensor(&x.matmul(&self.w0)?)?;
        let values = self.head(product.as_tensor())?;
        let slopes = slopes(&values.to_vec1()?);
        let slopes = Tensor::from_vec(slopes, values.shape(), &Device::Cpu)?;
        // The derivative of Σ slope · value is the loss's.
        let slope = (values * slopes)?.sum_all()?.backward()?;
        let of = |var: &Var| slope.get(var).map_or_else(|| var.zeros_like(), |slope| Ok(slope.clone()));
        let first = x.t()?.matmul(&of(&product)?)?;
        let rest = self.rest.iter().map(of);
        for (to, slope) in gradient.iter_mut().zip(std::iter::once(Ok(first)).chain(rest)) {
            let slope: Vec<f32> = slope?.flatten_all()?.to_vec1()?;
            to.par_iter_mut().zip(slope).for_each(|(to, slope)| *to += slope);
        }
        Ok(())
    }

    fn inputs(&self, hidden: Vec<f32>) -> Result<Tensor> {
        let rows = hidden.len() / self.width;
        Tensor::from_vec(hidden, (rows, self.width), &Device::Cpu)
    }

    /// From `W₀ h` `[n, h₁]` on.
    fn head(&self, product: &Tensor) -> Result<Tensor> {
        let [b0, w2, b2, w4, b4] = &self.rest;
        let first = product.apply_op2(b0, BiasTanh)?;
        let second = first.matmul(w2)?.apply_op2(b2, BiasTanh)?;
        second.matmul(w4)?.flatten_all()?.broadcast_add(b4)
    }
}
