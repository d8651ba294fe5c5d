//! The hyperbolic tangent, and `tanh(x + b)` with its derivative for training.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::elementwise::{exp, vectorised};
use super::slice::with_slice;
use super::{Variant, pool};

/// Rows whose bias gradients are summed into one partial sum. It is a constant, so that sums do not depend on the
/// number of threads.
const ROWS: usize = 64;

/// `tanh(x)`, within 2e-7.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let square = x * x;
    let near = x * (1.0 + square * (-1.0 / 3.0 + square * (2.0 / 15.0 - square * (17.0 / 315.0))));
    let far = 1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0);
    if square < 0.04 { near } else { far.copysign(x) }
}

/// Applies `tanh` to every number, in place.
pub(crate) fn tanh_all(numbers: &mut [f32]) {
    vectorised!(Variant::detect(), numbers.iter_mut().for_each(|x| *x = tanh(*x)));
}

/// `tanh(x + b)` of x `[n, h]` and b `[h]`, f32 on the CPU, as a candle operation with a backward pass.
pub struct BiasTanh;

impl CustomOp2 for BiasTanh {
    fn name(&self) -> &'static str {
        "bias-tanh"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (Some((from, to)), Some((first, last))) =
            (x_layout.contiguous_offsets(), bias_layout.contiguous_offsets())
        else {
            bail!("{} needs contiguous tensors", self.name())
        };
        let (x, bias) = (&x.as_slice::<f32>()?[from..to], &bias.as_slice::<f32>()?[first..last]);
        let mut y = vec![0f32; x.len()];
        let variant = Variant::detect();
        let rows = ROWS * bias.len();
        pool::share(x.chunks(rows).zip(y.chunks_mut(rows)), |(x, y)| {
            vectorised!(variant, {
                for (x, y) in x.chunks_exact(bias.len()).zip(y.chunks_exact_mut(bias.len())) {
                    for ((y, x), bias) in y.iter_mut().zip(x).zip(bias) {
                        *y = tanh(x + bias);
                    }
                }
            });
        });
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    /// With `y` the result, `dx = dy (1 - y²)`, and `db` is the sum of `dx` over rows.
    fn bwd(
        &self,
        x: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let width = bias.elem_count();
        let rows = ROWS * width;
        let mut dx = vec![0f32; x.elem_count()];
        let mut sums = vec![0f32; dx.len().div_ceil(rows) * width];
        let dy = dy.contiguous()?;
        let variant = Variant::detect();
        with_slice(y, |y| {
            with_slice(&dy, |dy| {
                let pieces = y.chunks(rows).zip(dy.chunks(rows));
                let targets = dx.chunks_mut(rows).zip(sums.chunks_mut(width));
                pool::share(pieces.zip(targets), |((y, dy), (dx, sums))| {
                    vectorised!(variant, {
                        let rows = y.chunks_exact(width).zip(dy.chunks_exact(width));
                        for ((y, dy), dx) in rows.zip(dx.chunks_exact_mut(width)) {
                            for (((dx, sum), y), dy) in dx.iter_mut().zip(sums.iter_mut()).zip(y).zip(dy)
                            {
                                *dx = dy * (1.0 - y * y);
                                *sum += *dx;
                            }
                        }
                    });
                });
            })
        })??;
        let mut db = vec![0f32; width];
        for sums in sums.chunks_exact(width) {
            db.iter_mut().zip(sums).for_each(|(db, sum)| *db += sum);
        }
        let dx = Tensor::from_vec(dx, x.shape(), x.device())?;
        Ok((Some(dx), Some(Tensor::from_vec(db, bias.shape(), bias.device())?)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn tangents_are_near() {
        for i in -20_000..20_000 {
            let x = i as f32 / 1000.0;
            assert!((f64::from(tanh(x)) - f64::from(x).tanh()).abs() < 2e-7, "{x}");
        }
        assert_eq!((tanh(0.0), tanh(1e9), tanh(-1e9)), (0.0, 1.0, -1.0));
        assert!(tanh(f32::NAN).is_nan());
    }

    /// Values and derivatives equal those of candle's operations, over more rows than one partial sum holds.
    #[test]
    fn derivatives_are_those_of_the_plain_operations() {
        let (n, h) = (150, 37);
        let numbers = |n: usize, by: f32| (0..n).map(|i| (i as f32 * by).sin()).collect::<Vec<f32>>();
        let x = Var::from_vec(numbers(n * h, 0.7), (n, h), &Device::Cpu).unwrap();
        let bias = Var::from_vec(numbers(h, 1.3), h, &Device::Cpu).unwrap();
        let weight = Tensor::from_vec(numbers(n * h, 0.3), (n, h), &Device::Cpu).unwrap();
        let ours = x.apply_op2(&bias, BiasTanh).unwrap();
        let plain = x.broadcast_add(&bias).unwrap().tanh().unwrap();
        let far = |a: &Tensor, b: &Tensor| -> f32 {
            (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
        };
        assert!(far(&ours, &plain) < 1e-6);
        let grads = |y: &Tensor| (y * &weight).unwrap().sum_all().unwrap().backward().unwrap();
        let (ours, plain) = (grads(&ours), grads(&plain));
        for var in [&x, &bias] {
            assert!(far(ours.get(var).unwrap(), plain.get(var).unwrap()) < 1e-5);
        }
    }
}
