//! Keys and values on a device: one reference-counted tensor for all layers.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};

use crate::kernel::Layout;

/// Number of slots by which the tensor grows.
const STEP: usize = 256;

/// Keys and values of a sequence, `[layers * 2 kv_heads, slots, dim]` in f32. Each layer has the keys of all heads, then
/// their values. There is one slot per token; the last slots may be free.
///
/// A clone shares the tensor until one of the two is extended, which then copies it.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    layout: Layout,
    device: Device,
    tensor: Option<Arc<Tensor>>,
}

/// Zeroed slots for this number of tokens.
pub(crate) fn slots(layout: Layout, tokens: usize, device: &Device) -> Result<Tensor> {
    let Layout { layers, kv_heads, dim, .. } = layout;
    Tensor::zeros((layers * 2 * kv_heads, tokens, dim), DType::F32, device)
}

impl Slots {
    pub(super) fn new(layout: Layout, device: &Device) -> Self {
        Self { layout, device: device.clone(), tensor: None }
    }

    /// All slots; `None` before the first token.
    pub(crate) fn tensor(&self) -> Option<Tensor> {
        self.tensor.as_deref().cloned()
    }

    /// The tensor, not shared and with room for `more` tokens after the first `len`.
    pub(crate) fn room(&mut self, len: usize, more: usize) -> Result<Tensor> {
        let own = self.tensor.as_mut().and_then(Arc::get_mut);
        if let Some(own) = own.filter(|own| own.dims()[1] >= len + more) {
            return Ok(own.clone());
        }
        let room = slots(self.layout, (len + more).next_multiple_of(STEP), &self.device)?;
        if let Some(old) = self.tensor.as_deref().filter(|_| len > 0) {
            room.slice_set(&old.narrow(1, 0, len)?.contiguous()?, 1, 0)?;
        }
        self.tensor = Some(Arc::new(room.clone()));
        Ok(room)
    }

    /// Appends the token with the index `chosen` of several tokens, after the first `len`.
    pub(super) fn put(&mut self, len: usize, tokens: &Tensor, chosen: usize) -> Result<()> {
        self.room(len, 1)?.slice_set(&tokens.narrow(1, chosen, 1)?.contiguous()?, 1, len)
    }
}
