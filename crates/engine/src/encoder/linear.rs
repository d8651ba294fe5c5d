//! A linear layer with a bias.

use crate::error::Result;
use crate::kernel::{Dtype, Packed};
use crate::model::Weights;

/// `y = x Wᵀ + b`, with weights `[n, k]` in f32.
pub(crate) struct Linear {
    pub(super) weight: Packed,
    /// `[n]`; zeros if the layer has no bias.
    pub(super) bias: Vec<f32>,
}

impl Linear {
    /// Loads the layer of this name, `[n, k]`.
    ///
    /// # Errors
    /// A tensor is missing or has the wrong shape.
    pub(crate) fn load(weights: &Weights, name: &str, n: usize, k: usize, biased: bool) -> Result<Self> {
        let matrix = weights.matrix(&format!("{name}.weight"), n, k)?;
        let weight = Packed::new(n, k, Dtype::F32, |rows, to: &mut [f32]| matrix.read(rows, to))?;
        Ok(Self { weight, bias: bias(weights, name, n, biased)? })
    }

    /// Applies the layer to `rows` rows of x `[rows, k]`. `y` becomes `[rows, n]`.
    pub(crate) fn forward(&self, x: &[f32], rows: usize, y: &mut Vec<f32>) {
        y.clear();
        (0..rows).for_each(|_| y.extend_from_slice(&self.bias));
        self.weight.apply(x, y, true);
    }

    /// Adds the layer's outputs for x `[rows, k]` to y `[rows, n]`.
    pub(super) fn add_to(&self, y: &mut [f32], x: &[f32]) {
        for row in y.chunks_exact_mut(self.bias.len()) {
            row.iter_mut().zip(&self.bias).for_each(|(y, bias)| *y += bias);
        }
        self.weight.apply(x, y, true);
    }
}

/// The bias `[n]` of the layer or norm of this name; zeros if it is not `biased`.
///
/// # Errors
/// The tensor is missing or has the wrong shape.
pub(crate) fn bias(weights: &Weights, name: &str, n: usize, biased: bool) -> Result<Vec<f32>> {
    if biased { weights.vector(&format!("{name}.bias"), n) } else { Ok(vec![0.0; n]) }
}
