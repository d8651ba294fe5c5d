//! Weights that are rounded to blocks of 4 bits when they are loaded.

use std::ops::Range;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use super::parts::Stored;
use crate::error::{Error, Result};
use crate::kernel::{Quant, Source};

/// A stored matrix whose rows are rounded to blocks of 4 bits.
pub(super) struct FourBits<'a> {
    stored: &'a Stored<'a>,
    quant: Quant,
    dtype: GgmlDType,
}

impl<'a> FourBits<'a> {
    /// Q4_K where its blocks of 256 divide the rows, else Q5_1; `None` if rows are not a multiple of 32 weights.
    pub(super) fn of(stored: &'a Stored<'a>) -> Option<Self> {
        let types = [(Quant::Q4K, GgmlDType::Q4K), (Quant::Q5_1, GgmlDType::Q5_1)];
        let fits = |(quant, _): &(Quant, GgmlDType)| stored.inputs.is_multiple_of(quant.weights());
        let (quant, dtype) = types.into_iter().find(fits)?;
        Some(Self { stored, quant, dtype })
    }
}

/// Whether the down projection of a layer has 8 bits: in the first and the last eighth of the layers, and in every third one
/// between. These are the layers in which llama.cpp's Q4_K_M has 6 bits.
pub(super) fn is_sensitive(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= layers - eighth || (layer - eighth) % 3 == 2
}

impl Source<Error> for FourBits<'_> {
    fn quant(&self, _: Range<usize>) -> Option<Quant> {
        Some(self.quant)
    }

    fn blocks(&self, rows: Range<usize>, to: &mut [u8]) -> Result<()> {
        let shape = (rows.len(), self.stored.inputs);
        let mut numbers = vec![0f32; shape.0 * shape.1];
        self.stored.read(rows, &mut numbers)?;
        let numbers = Tensor::from_vec(numbers, shape, &Device::Cpu)?;
        to.copy_from_slice(&QTensor::quantize(&numbers, self.dtype)?.data()?);
        Ok(())
    }

    fn numbers(&self, rows: Range<usize>, to: &mut [f32]) -> Result<()> {
        self.stored.read(rows, to)
    }
}
