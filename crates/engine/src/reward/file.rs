//! Files of heads: safetensors with f32 tensors and metadata about the training.

use std::collections::HashMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};

/// An open safetensors file.
pub(super) struct HeadFile<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
    metadata: HashMap<String, String>,
}

impl<'a> HeadFile<'a> {
    pub(super) fn open(path: &'a Path, bytes: &'a [u8]) -> Result<Self> {
        let broken = |e| Error::reward(path, format!("not a whole safetensors file ({e})"));
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        Ok(Self { path, tensors: SafeTensors::deserialize(bytes).map_err(broken)?, metadata })
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let parsed = text.parse::<f64>().ok().filter(|x| x.is_finite());
        parsed.map(Some).ok_or_else(|| self.error(format!("{key} is '{text}', not a number")))
    }

    /// The shape and the values of a tensor, all finite; `None` if there is no such tensor.
    pub(super) fn floats(&self, name: &str) -> Result<Option<(Vec<usize>, Vec<f32>)>> {
        let Ok(tensor) = self.tensors.tensor(name) else { return Ok(None) };
        if tensor.dtype() != Dtype::F32 {
            return Err(self.error(format!("{name} must be F32, not {:?}", tensor.dtype())));
        }
        let values: Vec<f32> =
            tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        match values.iter().position(|v| !v.is_finite()) {
            Some(i) => Err(self.error(format!("{name}[{i}] is {}", values[i]))),
            None => Ok(Some((tensor.shape().to_vec(), values))),
        }
    }

    pub(super) fn missing(&self, name: &str) -> Error {
        self.error(format!("the tensor '{name}' is missing"))
    }

    pub(super) fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::reward(self.path, what)
    }
}

/// Checks that a head of this width, trained on the model with the fingerprint `base` if it is known, fits the policy.
pub(super) fn fits(path: &Path, width: usize, base: Option<&str>, policy: &Checkpoint) -> Result<()> {
    let hidden = policy.model.config().hidden;
    if width != hidden {
        let what = format!("reads hidden states of width {width}, the policy's have {hidden}");
        return Err(Error::reward(path, what));
    }
    match base {
        Some(base) if base != policy.fingerprint => {
            let what = format!(
                "was trained on the model {base:.12}, not on this policy ({:.12}): train one for it",
                policy.fingerprint
            );
            Err(Error::reward(path, what))
        }
        _ => Ok(()),
    }
}
