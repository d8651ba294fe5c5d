//! Causal language models: every family by one decoder.
//!
//! | file | |
//! |---|---|
//! | `config` | what a decoder looks like, whichever file said so |
//! | `family` | the families, and what each calls its tensors |
//! | `hf`, `gguf` | reading `config.json`, or the metadata of a GGUF file, into that |
//! | `lengths` | whether what a GGUF file announces fits into it |
//! | `rope` | rotary embeddings and how they are stretched |
//! | `weights` | tensors, read a few rows at a time |
//! | `parts` | the parts of a model, found among them |
//! | `decoder` | what a model is given and what it gives |
//! | `on_kernels` | the forward by our own kernels, on the CPU |
//! | `on_device` | the same in candle's operations, on a GPU |

mod config;
mod decoder;
mod family;
mod gguf;
mod hf;
mod lengths;
mod on_device;
mod on_kernels;
mod parts;
mod rope;
mod weights;

pub use config::{Bias, Config, Norms, QkNorm};
pub use decoder::{Model, ScoreHead, Segment};

pub(crate) use gguf::as_u64;
pub(crate) use hf::{Labels, OneOrMany, labels};
pub(crate) use rope::{plain, rotary};
pub(crate) use weights::{Weights, stacked, weight_files};

use std::path::Path;

use candle_core::quantized::gguf_file::Content;

use crate::error::Result;

/// What a checkpoint says of itself.
pub(crate) struct Architecture {
    pub(crate) config: Config,
    /// The head of a `*ForSequenceClassification`; `None` for a causal language model.
    pub(crate) labels: Option<Labels>,
    /// Metadata of a GGUF file: its tokenizer is there too.
    pub(crate) gguf: Option<Content>,
}

/// Opens an HF folder or a GGUF file: what it says of itself, and its tensors.
///
/// # Errors
/// Files missing, cut short or malformed; another architecture.
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
