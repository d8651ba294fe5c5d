//! The network of a value head: parameters, forward and backward pass.

use candle_core::{Device, Result, Tensor, Var};
use half::f16;
use rand_chacha::ChaCha12Rng;
use rayon::prelude::*;
use stackelberg_engine::kernel::BiasTanh;

use super::init::orthogonal;

/// The six parameter tensors, row-major: `W₀ᵀ` `[d, h₁]`, `b₀` `[h₁]`, `W₂ᵀ` `[h₁, h₂]`, `b₂` `[h₂]`, `w₄` `[h₂]`, `b₄`
/// `[1]`.
pub(super) type Numbers = [Vec<f32>; 6];

/// The tensors of a value head's file: name, shape, numbers.
pub(super) type Tensors = [(&'static str, Vec<usize>, Vec<f32>); 6];

/// `V(x) = w₄ · tanh(W₂ tanh(W₀ x + b₀) + b₂) + b₄` of standardised hidden states `x = (h - mean) / deviation`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Network {
    /// `d`, `h₁` and `h₂`.
    pub(super) widths: [usize; 3],
    pub(super) inputs: Inputs,
    pub(super) numbers: Numbers,
}

/// Mean and deviation of hidden states, for standardisation. Without it, the few components that are ten times as
/// large as the others would dominate the first layer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Inputs {
    /// `[d]`.
    pub(super) mean: Vec<f32>,
    /// `[d]`, above zero.
    pub(super) deviation: Vec<f32>,
}

/// Sums and sums of squares of hidden states, by component.
pub(super) struct Moments {
    rows: f64,
    sums: Vec<f64>,
    squares: Vec<f64>,
}

/// Smallest deviation, relative to the mean of all deviations: nearly constant components carry no information.
const LEAST: f64 = 1e-3;

impl Moments {
    /// Sums over no hidden states yet, of width `d`.
    pub(super) fn new(d: usize) -> Self {
        Self { rows: 0.0, sums: vec![0.0; d], squares: vec![0.0; d] }
    }

    /// Adds hidden states `[n, d]`, row-major. `f64` is precise enough for sums of squares of f16.
    pub(super) fn add(&mut self, states: &[f16]) {
        for row in states.chunks_exact(self.sums.len()) {
            self.rows += 1.0;
            for ((sum, square), x) in self.sums.iter_mut().zip(&mut self.squares).zip(row) {
                let x = x.to_f64();
                *sum += x;
                *square += x * x;
            }
        }
    }

    pub(super) fn inputs(&self) -> Inputs {
        let mean: Vec<f64> = self.sums.iter().map(|sum| sum / self.rows).collect();
        let squares = self.squares.iter().zip(&mean);
        let deviation: Vec<f64> =
            squares.map(|(square, mean)| (square / self.rows - mean * mean).max(0.0).sqrt()).collect();
        let least = LEAST * deviation.iter().sum::<f64>() / deviation.len() as f64;
        let least = if least > 0.0 { least } else { 1.0 };
        Inputs {
            mean: mean.iter().map(|&mean| mean as f32).collect(),
            deviation: deviation.iter().map(|deviation| deviation.max(least) as f32).collect(),
        }
    }
}

impl Inputs {
    /// Standardises hidden states `[n, d]` in place.
    pub(super) fn standardise(&self, states: &mut [f32]) {
        for row in states.chunks_exact_mut(self.mean.len()) {
            for ((x, mean), deviation) in row.iter_mut().zip(&self.mean).zip(&self.deviation) {
                *x = (*x - mean) / deviation;
            }
        }
    }
}

impl Network {
    /// Orthogonal weights, and zero biases except the last, which is `mean`.
    pub(super) fn new(widths: [usize; 3], inputs: Inputs, mean: f64, rng: &mut ChaCha12Rng) -> Self {
        let [d, first, second] = widths;
        let weights = [
            orthogonal(d, first, rng),
            vec![0.0; first],
            orthogonal(first, second, rng),
            vec![0.0; second],
            orthogonal(second, 1, rng),
            vec![mean as f32],
        ];
        Self { widths, inputs, numbers: weights }
    }

    /// Parameters that are all zero.
    pub(super) fn zeros([d, first, second]: [usize; 3]) -> Numbers {
        [d * first, first, first * second, second, second, 1].map(|n| vec![0.0; n])
    }

    /// The parameters as tensors.
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

    /// The tensors of the file. They are applied to hidden states that are not standardised: mean and deviation of
    /// `W₀ (h - mean) / deviation + b₀` are folded into weight and bias.
    pub(super) fn tensors(&self) -> Tensors {
        let [d, first, second] = self.widths;
        let [w0, b0, w2, b2, w4, b4] = &self.numbers;
        let mut weight = w0.clone();
        let mut shift = vec![0f64; first];
        let inputs = self.inputs.mean.iter().zip(&self.inputs.deviation);
        for (row, (mean, deviation)) in weight.chunks_exact_mut(first).zip(inputs) {
            for (weight, shift) in row.iter_mut().zip(&mut shift) {
                *weight /= deviation;
                *shift -= f64::from(*weight) * f64::from(*mean);
            }
        }
        let bias = b0.iter().zip(shift).map(|(bias, shift)| (f64::from(*bias) + shift) as f32);
        [
            ("0.weight", vec![first, d], transposed(&weight, first)),
            ("0.bias", vec![first], bias.collect()),
            ("2.weight", vec![second, first], transposed(w2, second)),
            ("2.bias", vec![second], b2.clone()),
            ("4.weight", vec![1, second], w4.clone()),
            ("4.bias", vec![1], b4.clone()),
        ]
    }
}

/// The transpose of a row-major matrix of this width.
fn transposed(matrix: &[f32], width: usize) -> Vec<f32> {
    (0..width).flat_map(|column| matrix[column..].iter().step_by(width).copied()).collect()
}

/// The parameters of a network as tensors.
pub(super) struct Layers {
    width: usize,
    w0: Tensor,
    /// All parameters except the first weight.
    rest: [Var; 5],
}

impl Layers {
    /// Values of standardised hidden states `[n, d]`, row-major.
    pub(super) fn values(&self, hidden: Vec<f32>) -> Result<Vec<f32>> {
        self.head(&self.inputs(hidden)?.matmul(&self.w0)?)?.to_vec1()
    }

    /// Forward and backward pass for standardised hidden states `[n, d]`, row-major. `slopes` maps the values to the
    /// derivatives of the loss with respect to them. The derivatives with respect to the parameters are added to
    /// `gradient`.
    pub(super) fn learn(
        &self,
        hidden: Vec<f32>,
        slopes: impl FnOnce(&[f32]) -> Vec<f32>,
        gradient: &mut Numbers,
    ) -> Result<()> {
        let x = self.inputs(hidden)?;
        // Backpropagation ends at this product, since the derivatives of the hidden states are not needed. Candle would
        // compute them, at a sixth of the total cost.
        let product = Var::from_tensor(&x.matmul(&self.w0)?)?;
        let values = self.head(product.as_tensor())?;
        let slopes = slopes(&values.to_vec1()?);
        let slopes = Tensor::from_vec(slopes, values.shape(), &Device::Cpu)?;
        // The sum of slope · value has the same derivatives as the loss.
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

    /// The layers after the product `W₀ h` `[n, h₁]`.
    fn head(&self, product: &Tensor) -> Result<Tensor> {
        let [b0, w2, b2, w4, b4] = &self.rest;
        let first = product.apply_op2(b0, BiasTanh)?;
        let second = first.matmul(w2)?.apply_op2(b2, BiasTanh)?;
        second.matmul(w4)?.flatten_all()?.broadcast_add(b4)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use rand::SeedableRng;
    use stackelberg_engine::reward::ValueHead;

    use super::*;
    use crate::tensors::{Named, to_bytes};

    /// The written file gives the same values for hidden states that are not standardised.
    #[test]
    fn standardising_is_folded_in() {
        let (d, n) = (9, 40);
        let states: Vec<f16> = (0..n * d)
            .map(|i| f16::from_f32((i as f32 * 0.7).sin() * (1 + i % d) as f32 + (i % d) as f32))
            .collect();
        let mut moments = Moments::new(d);
        states.chunks(5 * d).for_each(|states| moments.add(states));
        let inputs = moments.inputs();
        let mut rng = ChaCha12Rng::seed_from_u64(3);
        let network = Network::new([d, 12, 5], inputs, 0.5, &mut rng);
        let raw: Vec<f32> = states.iter().map(|x| x.to_f32()).collect();
        let mut standard = raw.clone();
        network.inputs.standardise(&mut standard);
        for i in 0..d {
            let column: Vec<f32> = standard.iter().skip(i).step_by(d).copied().collect();
            let mean = column.iter().sum::<f32>() / n as f32;
            let variance = column.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n as f32;
            assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4, "{mean} {variance}");
        }
        let values = network.layers().unwrap().values(standard).unwrap();
        let tensors = network.tensors();
        let tensors: Vec<Named<'_>> =
            tensors.iter().map(|(name, shape, x)| (*name, shape.clone(), &x[..])).collect();
        let file = to_bytes(&BTreeMap::new(), &tensors);
        let head = ValueHead::parse(Path::new("v"), &file).unwrap();
        let found = head.score(&Tensor::from_vec(raw, (n, d), &Device::Cpu).unwrap()).unwrap();
        for (value, found) in values.iter().zip(found) {
            assert!((f64::from(*value) - found).abs() < 1e-5, "{value} {found}");
        }
    }
}
