//! RMSNorm and LayerNorm.

use super::elementwise::{sum, vectorised};
use super::{Variant, pool};

/// RMSNorm or LayerNorm of rows of `[d]`.
#[derive(Debug, Clone)]
pub struct Norm {
    weight: Vec<f32>,
    /// `None`: RMSNorm, which does not subtract the mean.
    bias: Option<Vec<f32>>,
    eps: f32,
}

impl Norm {
    /// `x / √(mean x² + eps) · weight`.
    pub fn rms(weight: Vec<f32>, eps: f32) -> Self {
        Self { weight, bias: None, eps }
    }

    /// `(x - mean) / √(variance + eps) · weight + bias`.
    ///
    /// # Panics
    /// If weight and bias differ in length.
    pub fn layer(weight: Vec<f32>, bias: Vec<f32>, eps: f32) -> Self {
        assert_eq!(weight.len(), bias.len(), "a norm has as many weights as biases");
        Self { weight, bias: Some(bias), eps }
    }

    /// Width of a row, `d`.
    pub fn width(&self) -> usize {
        self.weight.len()
    }

    /// Weight `[d]`, bias `[d]` (`None` for RMSNorm) and epsilon.
    pub(crate) fn numbers(&self) -> (&[f32], Option<&[f32]>, f32) {
        (&self.weight, self.bias.as_deref(), self.eps)
    }

    /// Number of weights and biases.
    pub fn parameters(&self) -> usize {
        self.weight.len() + self.bias.as_ref().map_or(0, Vec::len)
    }

    /// Normalises every row of x `[n, d]`, in place.
    pub fn apply(&self, x: &mut [f32]) {
        let variant = Variant::detect();
        let work = |rows: &mut [f32]| {
            vectorised!(variant, {
                for row in rows.chunks_exact_mut(self.width()) {
                    self.in_place(row);
                }
            });
        };
        if x.len() < 1 << 15 { work(x) } else { pool::share(x.chunks_mut(self.width()), work) }
    }

    /// The number that is subtracted from a row, and the factor that it is then multiplied by.
    #[inline(always)]
    fn moments(&self, x: &[f32]) -> (f32, f32) {
        let d = x.len() as f32;
        let mean = if self.bias.is_some() { sum(x, |x| x) / d } else { 0.0 };
        (mean, 1.0 / (sum(x, |x| (x - mean) * (x - mean)) / d + self.eps).sqrt())
    }

    #[inline(always)]
    pub(super) fn in_place(&self, x: &mut [f32]) {
        let (mean, scale) = self.moments(x);
        x.iter_mut().zip(&self.weight).for_each(|(x, weight)| *x = (*x - mean) * scale * weight);
        if let Some(bias) = &self.bias {
            x.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_normed() {
        let numbers: Vec<f32> = (0..100).map(|i| ((i * 7919) % 997) as f32 / 250.0 - 2.0).collect();
        let mut x = numbers.clone();
        Norm::layer(vec![2.0; 50], vec![0.5; 50], 1e-12).apply(&mut x);
        for row in x.chunks_exact(50) {
            let mean = row.iter().sum::<f32>() / 50.0;
            let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / 50.0;
            assert!((mean - 0.5).abs() < 1e-5 && (variance - 4.0).abs() < 1e-4, "{mean} {variance}");
        }
        let mut x = numbers;
        Norm::rms(vec![3.0; 50], 1e-12).apply(&mut x);
        for row in x.chunks_exact(50) {
            let square = row.iter().map(|x| x * x).sum::<f32>() / 50.0;
            assert!((square - 9.0).abs() < 1e-4, "{square}");
        }
    }
}
