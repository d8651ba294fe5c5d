//! Linear heads on a sentence embedder.

use std::path::Path;

use super::format::{Exchange, RewardFormat};
use super::scorer::TextScorer;
use crate::encoder::{Embedder, Truncate};
use crate::error::Result;
use crate::reward::head::{Backbone, Head};

/// A linear head on normalised sentence embeddings. Texts that are too long lose their start, because the answer is at
/// their end.
pub struct EmbeddedHead {
    embedder: Embedder,
    head: Head,
}

impl EmbeddedHead {
    /// Loads a head (`.safetensors`) for this embedder.
    ///
    /// # Errors
    /// As [`Head::load`] and [`EmbeddedHead::new`].
    pub fn load(path: &Path, embedder: Embedder) -> Result<Self> {
        Self::new(Head::load(path)?, embedder)
    }

    /// Combines a head with its embedder.
    ///
    /// # Errors
    /// The head reads a policy's hidden states, has another width, or was trained on another embedder or pooling.
    pub fn new(head: Head, embedder: Embedder) -> Result<Self> {
        let Backbone::Embedder(pooling) = head.backbone else {
            let what =
                "a head on a policy's own hidden states, not on an embedder: it needs that policy";
            return Err(head.wrong(what));
        };
        let (width, found) = (head.width(), embedder.width());
        if width != found {
            return Err(
                head.wrong(format!("reads embeddings of width {width}, this embedder's have {found}"))
            );
        }
        if let Some(base) = head.base.as_ref().filter(|base| **base != embedder.fingerprint) {
            let what = format!(
                "was trained on the embedder {base:.12}, not on this one ({:.12}): train one for it",
                embedder.fingerprint
            );
            return Err(head.wrong(what));
        }
        if pooling != embedder.pooling() {
            let found = embedder.pooling();
            return Err(
                head.wrong(format!("was trained with {pooling} pooling, this embedder has {found}"))
            );
        }
        Ok(Self { embedder, head })
    }

    /// The embeddings that heads read. They are the features to train a head on.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn features(embedder: &Embedder, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        embedder.embed_cut(texts, Truncate::Start)
    }

    /// Rewards of texts as they are. Results are batch-invariant.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn score_texts(&self, texts: &[&str]) -> Result<Vec<f64>> {
        Ok(self.head.score_rows(&Self::features(&self.embedder, texts)?))
    }
}

impl TextScorer for EmbeddedHead {
    fn score(&self, exchanges: &[Exchange<'_>], format: RewardFormat) -> Result<Vec<f64>> {
        let texts: Vec<String> = exchanges.iter().map(|exchange| format.lay_out(*exchange)).collect();
        self.score_texts(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn usual_format(&self) -> RewardFormat {
        RewardFormat::Hh
    }
}
