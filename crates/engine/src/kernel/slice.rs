//! Access to the numbers of a tensor.

use candle_core::{Result, Storage, Tensor, bail};

/// Calls `read` with the numbers of an f32 tensor on the CPU, in row-major order.
///
/// # Errors
/// The tensor is on another device or of another dtype.
pub(super) fn with_slice<R>(x: &Tensor, read: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let (Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
        bail!("the kernels only read tensors on the CPU")
    };
    Ok(read(&storage.as_slice::<f32>()?[start..end]))
}
