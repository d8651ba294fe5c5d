//! Opens a checkpoint: its configuration and its tensors.

use std::path::Path;

use candle_core::quantized::gguf_file::Content;

use super::config::Config;
use super::gguf;
use super::hf::{self, Labels};
use super::weights::Weights;
use crate::error::Result;

/// The description of a checkpoint.
pub(crate) struct Architecture {
    pub(crate) config: Config,
    /// The labels of a `*ForSequenceClassification`; `None` for a causal language model.
    pub(crate) labels: Option<Labels>,
    /// The header of a GGUF file, which also holds its tokenizer.
    pub(crate) gguf: Option<Content>,
}

/// Checks that no weight of a Hugging Face folder or a GGUF file is NaN or infinite.
///
/// # Errors
/// A tensor has such a number: with its name and file. A file is missing or malformed.
pub fn check_finite(path: &Path) -> Result<()> {
    let weights = if path.is_dir() { Weights::open_hf(path)? } else { Weights::open_gguf(path)?.0 };
    weights.all_finite()
}

/// Opens a Hugging Face folder or a GGUF file.
///
/// # Errors
/// Files are missing, truncated or malformed; the architecture is not supported.
pub(crate) fn open(path: &Path) -> Result<(Architecture, Weights)> {
    if path.is_dir() {
        let hf::Described { config, family, labels } = hf::read(&path.join("config.json"))?;
        let mut weights = Weights::open_hf(path)?;
        weights.name_as_hf(family);
        return Ok((Architecture { config, labels, gguf: None }, weights));
    }
    let (mut weights, content) = Weights::open_gguf(path)?;
    let config = gguf::read(path, &content, &mut weights)?;
    Ok((Architecture { config, labels: None, gguf: Some(content) }, weights))
}

/// The header of a GGUF file.
///
/// # Errors
/// The file is missing, truncated or malformed.
pub(crate) fn gguf_header(path: &Path) -> Result<Content> {
    Ok(Weights::open_gguf(path)?.1)
}
