//! A reward of finished texts: a linear head on a sentence embedder.

use std::path::Path;

use crate::chat::{Message, Prompt};
use crate::embedder::{Embedder, Truncate};
use crate::error::Result;
use crate::reward::{Backbone, Head};

/// Scores finished texts and cannot guide. It reads a text's embedding of length 1; of a text that is too
/// long the end is read, which holds the response.
pub struct TextReward {
    embedder: Embedder,
    head: Head,
}

impl TextReward {
    /// Loads a head (`.safetensors`) for this embedder.
    ///
    /// # Errors
    /// As [`Head::load`] and [`TextReward::new`].
    pub fn load(path: &Path, embedder: Embedder) -> Result<Self> {
        Self::new(Head::load(path)?, embedder)
    }

    /// A head on an embedder.
    ///
    /// # Errors
    /// The head reads a policy; another width; another embedder than it was trained on, or other pooling.
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

    /// Embeddings as heads read them: what to train on.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn features(embedder: &Embedder, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        embedder.embed_cut(texts, Truncate::Start)
    }

    /// A prompt and its response as one text in the layout of HH-RLHF, whatever the policy was shown. A
    /// prompt that is one text counts as a human's turn, unless it has that layout itself.
    pub fn lay_out(prompt: &Prompt, response: &str) -> String {
        let prompt = match prompt {
            Prompt::Text(text) if text.trim_start().starts_with("Human:") => {
                let open = text.trim_end();
                if open.ends_with("Assistant:") {
                    open.to_owned()
                } else {
                    format!("{open}\n\nAssistant:")
                }
            }
            Prompt::Text(text) => Prompt::Messages(vec![Message::new("user", text)]).raw(None),
            Prompt::Messages(_) => prompt.raw(None),
        };
        format!("{prompt} {}", response.trim_start())
    }

    /// Rewards of prompts with their responses.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn score(&self, answers: &[(&Prompt, &str)]) -> Result<Vec<f64>> {
        let texts: Vec<String> =
            answers.iter().map(|(prompt, response)| Self::lay_out(prompt, response)).collect();
        self.score_texts(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Rewards of texts as they are. None depends on the others.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn score_texts(&self, texts: &[&str]) -> Result<Vec<f64>> {
        Ok(self.head.score_rows(&Self::features(&self.embedder, texts)?))
    }
}
