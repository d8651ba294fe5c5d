//! Linear layers and norms by candle's operations, and the transfer of their weights to a device.

use std::sync::Mutex;

use candle_core::{D, DType, Device, Tensor, WithDType};
use half::bf16;

use crate::error::Result;
use crate::kernel::{self, share};
use crate::model::parts::{Normed, Stored};

/// A linear layer and the norms around it.
pub(super) struct Linear {
    pub(super) before: Option<Norm>,
    /// `[n, k]`
    pub(super) weight: Tensor,
    /// The dtype that inputs are rounded to.
    pub(super) rounded: DType,
    pub(super) bias: Option<Tensor>,
    pub(super) after: Option<Norm>,
}

pub(super) struct Norm {
    pub(super) weight: Tensor,
    /// `None`: RMSNorm, which does not subtract the mean.
    pub(super) bias: Option<Tensor>,
    pub(super) eps: f64,
}

impl Linear {
    /// `x Wᵀ + b` with the norms before and after it: x `[rows, k]` to `[rows, n]`, f32.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let normed = self.before.as_ref().map(|norm| norm.apply(x)).transpose()?;
        let x = normed.as_ref().unwrap_or(x);
        let x = x.to_dtype(self.rounded)?.to_dtype(self.weight.dtype())?;
        let y = x.matmul(&self.weight.t()?)?.to_dtype(DType::F32)?;
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        self.after.as_ref().map_or(Ok(y.clone()), |norm| norm.apply(&y))
    }

    pub(super) fn parameters(&self) -> usize {
        let norms: usize = self.before.iter().chain(&self.after).map(Norm::parameters).sum();
        norms + self.weight.elem_count() + self.bias.as_ref().map_or(0, Tensor::elem_count)
    }

    pub(super) fn bytes(&self) -> usize {
        self.weight.elem_count() * self.weight.dtype().size_in_bytes()
    }
}

impl Norm {
    /// Normalises rows.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let x = match &self.bias {
            Some(_) => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
            None => x.clone(),
        };
        let size = (x.sqr()?.mean_keepdim(D::Minus1)? + self.eps)?.sqrt()?;
        let x = x.broadcast_div(&size)?.broadcast_mul(&self.weight)?;
        match &self.bias {
            Some(bias) => Ok(x.broadcast_add(bias)?),
            None => Ok(x),
        }
    }

    pub(super) fn parameters(&self) -> usize {
        self.weight.elem_count() + self.bias.as_ref().map_or(0, Tensor::elem_count)
    }
}

/// Transfers weights to a device.
pub(super) struct Loader<'a> {
    pub(super) device: &'a Device,
    pub(super) rounded: DType,
}

impl Loader<'_> {
    pub(super) fn linear(&self, parts: Normed<'_>) -> Result<Linear> {
        let norm = |norm: Option<kernel::Norm>| norm.map(|norm| self.norm(&norm)).transpose();
        let bias = parts.linear.bias.as_deref().map(|bias| self.list(bias)).transpose()?;
        let (before, after) = (norm(parts.before)?, norm(parts.after)?);
        Ok(Linear { before, weight: self.weight(&parts.linear)?, rounded: self.rounded, bias, after })
    }

    pub(super) fn norm(&self, norm: &kernel::Norm) -> Result<Norm> {
        let (weight, bias, eps) = norm.numbers();
        let bias = bias.map(|bias| self.list(bias)).transpose()?;
        Ok(Norm { weight: self.list(weight)?, bias, eps: eps.into() })
    }

    fn list(&self, numbers: &[f32]) -> Result<Tensor> {
        Ok(Tensor::from_slice(numbers, numbers.len(), self.device)?)
    }

    fn weight(&self, stored: &Stored<'_>) -> Result<Tensor> {
        let shape = (stored.outputs(), stored.inputs);
        Ok(match (self.rounded, self.device) {
            // Candle does not multiply bf16 on the CPU, so rounded weights are stored as f32 there.
            (DType::BF16, Device::Cpu) => {
                let weight = read(stored, |x| bf16::from_f32(x).to_f32())?;
                Tensor::from_vec(weight, shape, self.device)?
            }
            (DType::BF16, _) => Tensor::from_vec(read(stored, bf16::from_f32)?, shape, self.device)?,
            _ => Tensor::from_vec(read(stored, |x| x)?, shape, self.device)?,
        })
    }
}

/// Number of weights that a thread reads at once.
const BLOCK: usize = 1 << 18;

/// Reads all numbers of a matrix, on several threads.
fn read<T: WithDType>(stored: &Stored<'_>, round: impl Fn(f32) -> T + Sync) -> Result<Vec<T>> {
    let (n, k) = (stored.outputs(), stored.inputs);
    let block = BLOCK.div_ceil(k);
    let mut all = vec![T::zero(); n * k];
    let failed = Mutex::new(None);
    share(all.chunks_mut(block * k).enumerate(), |(i, to)| {
        let mut rows = vec![0f32; to.len()];
        match stored.read(i * block..i * block + to.len() / k, &mut rows) {
            Ok(()) => to.iter_mut().zip(rows).for_each(|(to, x)| *to = round(x)),
            Err(error) => *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(error),
        }
    });
    failed.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(all), Err)
}
