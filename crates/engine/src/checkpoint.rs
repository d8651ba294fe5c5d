//! Checkpoints: a model with its text side.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::fingerprint::fingerprint;
use crate::kernel::{Dtype, KvDtype};
use crate::model::{Model, open};
use crate::text_processor::TextProcessor;

/// A model with everything that is needed to use it on text. A clone shares the weights.
#[derive(Clone)]
pub struct Checkpoint {
    /// The model.
    pub model: Arc<Model>,
    /// Its tokenizer, chat template and end-of-text tokens. Their fields and methods are at hand as those of the checkpoint.
    pub text: TextProcessor,
    /// The name of the model's weights, see [`fingerprint`].
    pub fingerprint: String,
}

impl Checkpoint {
    /// Loads a Hugging Face folder or a GGUF file, to run on the CPU.
    ///
    /// # Errors
    /// As [`Model::load`]; the tokenizer is missing or malformed.
    pub fn load(path: &Path, dtype: Dtype) -> Result<Self> {
        Self::load_on(path, dtype, Device::Cpu)
    }

    /// As [`Checkpoint::load`], to run on another device.
    ///
    /// # Errors
    /// As [`Model::load_on`]; the tokenizer is missing or malformed.
    pub fn load_on(path: &Path, dtype: Dtype, place: Device) -> Result<Self> {
        let (architecture, weights) = open(path)?;
        let mut text = match &architecture.gguf {
            None => TextProcessor::of_folder(path)?,
            Some(content) => TextProcessor::of_gguf(path, content)?,
        };
        let model = Model::assemble(architecture, &weights, dtype, place)?;
        text.add_ends(model.config().eos.iter().copied());
        Ok(Self { model: Arc::new(model), text, fingerprint: fingerprint(path)? })
    }

    /// The same checkpoint, whose model stores keys and values in this format.
    ///
    /// # Errors
    /// As [`Model::with_kv_dtype`]; a clone of the checkpoint is in use.
    pub fn with_kv_dtype(self, kv: KvDtype) -> Result<Self> {
        let model = Arc::try_unwrap(self.model).map_err(|_| Error::Shared)?;
        Ok(Self { model: Arc::new(model.with_kv_dtype(kv)?), ..self })
    }
}

impl Deref for Checkpoint {
    type Target = TextProcessor;

    fn deref(&self) -> &TextProcessor {
        &self.text
    }
}

impl DerefMut for Checkpoint {
    fn deref_mut(&mut self) -> &mut TextProcessor {
        &mut self.text
    }
}
