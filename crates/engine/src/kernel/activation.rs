//! Activation functions of feed-forward blocks.

use super::Variant;
use super::elementwise::{exp, silu, vectorised};
use super::tanh::tanh;

/// An activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x σ(x)`.
    Silu,
    /// `x Φ(x)`, with Φ the distribution function of the standard normal distribution.
    Gelu,
    /// The tanh approximation of [`Activation::Gelu`].
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    /// The activation of this name in Hugging Face configurations.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "silu" | "swish" => Some(Self::Silu),
            "gelu" => Some(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Some(Self::GeluTanh),
            "relu" => Some(Self::Relu),
            _ => None,
        }
    }

    /// Applies the function to every number, in place.
    pub(crate) fn apply(self, x: &mut [f32]) {
        vectorised!(Variant::detect(), self.each(x));
    }

    #[inline(always)]
    pub(super) fn each(self, x: &mut [f32]) {
        match self {
            Self::Silu => x.iter_mut().for_each(|x| *x = silu(*x)),
            Self::Gelu => x.iter_mut().for_each(|x| *x = gelu(*x)),
            Self::GeluTanh => x.iter_mut().for_each(|x| *x = gelu_tanh(*x)),
            Self::Relu => x.iter_mut().for_each(|x| *x = x.max(0.0)),
        }
    }
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    // √(2/π)
    const ROOT: f32 = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;
    0.5 * x * (1.0 + tanh(ROOT * (x + 0.044715 * x * x * x)))
}

/// The error function, within 3e-7 (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26).
#[inline(always)]
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let mut sum = 1.061_405_4;
    for factor in [-1.453_152, 1.421_413_7, -0.284_496_72, 0.254_829_6] {
        sum = sum * t + factor;
    }
    (1.0 - sum * t * exp(-x * x)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By its power series where that converges fast, 1 beyond.
    fn exact_erf(x: f64) -> f64 {
        if x.abs() > 5.0 {
            return x.signum();
        }
        let (mut term, mut sum) = (x, x);
        for i in 1..200 {
            term *= -x * x / f64::from(i);
            sum += term / f64::from(2 * i + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn activations_are_near() {
        let step = if cfg!(miri) { 1_997 } else { 1 };
        for i in (-9_000..9_000).step_by(step) {
            let x = i as f32 / 1000.0;
            let exact = f64::from(x);
            let normal = 0.5 * exact * (1.0 + exact_erf(exact / 2f64.sqrt()));
            assert!((f64::from(gelu(x)) - normal).abs() < 1e-6, "gelu({x})");
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (exact + 0.044715 * exact.powi(3));
            let by_tanh = 0.5 * exact * (1.0 + inner.tanh());
            assert!((f64::from(gelu_tanh(x)) - by_tanh).abs() < 2e-6, "gelu_tanh({x})");
        }
        let mut x = [-2.0, 0.0, 3.0];
        Activation::Relu.apply(&mut x);
        assert_eq!(x, [0.0, 0.0, 3.0]);
        assert!(gelu(f32::NAN).is_nan() && gelu_tanh(f32::NAN).is_nan());
    }
}
