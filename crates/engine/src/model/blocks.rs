//! Matrices that are kept in blocks: as they are stored, or rounded to blocks of 4 bits when they are loaded.

use std::ops::Range;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use super::parts::Stored;
use crate::error::{Error, Result};
use crate::kernel::{Dtype, Quant, Source};

/// A stored matrix that is kept in blocks.
pub(super) struct Blocks<'a> {
    stored: &'a Stored<'a>,
    /// The type that rows are rounded to; `None` keeps the stored blocks.
    rounded: Option<(Quant, GgmlDType)>,
}

impl<'a> Blocks<'a> {
    /// The blocks of a matrix in this dtype; `None` if it is not kept in blocks of its own. For `Q4`, rows are rounded to Q4_K where
    /// its blocks of 256 divide them, else to Q5_1, and not at all if they are not a multiple of 32 weights.
    pub(super) fn of(stored: &'a Stored<'a>, dtype: Dtype) -> Option<Self> {
        let types = [(Quant::Q4K, GgmlDType::Q4K), (Quant::Q5_1, GgmlDType::Q5_1)];
        let fits = |(quant, _): &(Quant, GgmlDType)| stored.inputs.is_multiple_of(quant.weights());
        match dtype {
            Dtype::Native | Dtype::Q4 if stored.is_quantised() => Some(Self { stored, rounded: None }),
            Dtype::Q4 => {
                let rounded = types.into_iter().find(fits)?;
                Some(Self { stored, rounded: Some(rounded) })
            }
            _ => None,
        }
    }
}

/// Whether the down projection of a layer has 8 bits: in the first and the last eighth of the layers, and in every third one
/// between. These are the layers in which llama.cpp's Q4_K_M has 6 bits.
pub(super) fn is_sensitive(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= layers - eighth || (layer - eighth) % 3 == 2
}

impl Source<Error> for Blocks<'_> {
    fn quant(&self, rows: Range<usize>) -> Option<Quant> {
        self.rounded.map_or_else(|| self.stored.quant(rows), |(quant, _)| Some(quant))
    }

    fn blocks(&self, rows: Range<usize>, to: &mut [u8]) -> Result<()> {
        let Some((_, dtype)) = self.rounded else { return self.stored.blocks(rows, to) };
        let shape = (rows.len(), self.stored.inputs);
        let mut numbers = vec![0f32; shape.0 * shape.1];
        self.stored.read(rows, &mut numbers)?;
        let numbers = Tensor::from_vec(numbers, shape, &Device::Cpu)?;
        to.copy_from_slice(&QTensor::quantize(&numbers, dtype)?.data()?);
        Ok(())
    }

    fn numbers(&self, rows: Range<usize>, to: &mut [f32]) -> Result<()> {
        self.stored.read(rows, to)
    }
}
