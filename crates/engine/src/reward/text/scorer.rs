//! Rewards that read text.

use std::sync::Arc;

use super::format::{Exchange, RewardFormat, hh, names};
use crate::chat::{ChatTemplate, Prompt};
use crate::error::{Error, Result};

/// A scorer of texts.
pub trait TextScorer: Send + Sync {
    /// One reward for each exchange in this format. A reward must not depend on the other exchanges.
    ///
    /// # Errors
    /// The scorer fails.
    fn score(&self, exchanges: &[Exchange<'_>], format: RewardFormat) -> Result<Vec<f64>>;

    /// The scorer's default format.
    fn usual_format(&self) -> RewardFormat;

    /// Properties to display, as names and values.
    fn about(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Whether scoring waits for something outside of this process. Decoding of other sequences then continues.
    fn is_remote(&self) -> bool {
        false
    }

    /// The chat template of the scorer's model, if it has one.
    fn template(&self) -> Option<&ChatTemplate> {
        None
    }

    /// The formats that the scorer supports.
    fn formats(&self) -> &[RewardFormat] {
        &[RewardFormat::Raw, RewardFormat::Hh, RewardFormat::Answer]
    }
}

/// A reward that reads text. A clone shares the scorer.
#[derive(Clone)]
pub struct TextReward {
    scorer: Arc<dyn TextScorer>,
    format: RewardFormat,
}

impl TextReward {
    /// A scorer with its default format.
    pub fn new(scorer: impl TextScorer + 'static) -> Self {
        let format = scorer.usual_format();
        Self { scorer: Arc::new(scorer), format }
    }

    /// The same reward with another format.
    ///
    /// # Errors
    /// The scorer does not support the format.
    pub fn with_format(&self, format: RewardFormat) -> Result<Self> {
        let formats = self.scorer.formats();
        if !formats.contains(&format) {
            let why = match format {
                RewardFormat::Chat | RewardFormat::Closed => "it has no chat template",
                RewardFormat::Pair => "that is for classifiers over an encoder",
                _ => "it was not made for it",
            };
            let known = names(formats);
            let what = format!("this reward does not read {format} text, as {why}: it reads {known}");
            return Err(Error::Scorer(what));
        }
        Ok(Self { format, ..self.clone() })
    }

    /// Whether scoring waits for something outside of this process.
    pub fn is_remote(&self) -> bool {
        self.scorer.is_remote()
    }

    /// The scorer's default format.
    pub fn usual_format(&self) -> RewardFormat {
        self.scorer.usual_format()
    }

    /// The layout of prompt and answer.
    pub fn format(&self) -> RewardFormat {
        self.format
    }

    /// The chat template that lays out the texts, if one does.
    pub fn template(&self) -> Option<&ChatTemplate> {
        let lays_out = matches!(self.format, RewardFormat::Chat | RewardFormat::Closed);
        self.scorer.template().filter(|_| lays_out)
    }

    /// Properties to display, as names and values.
    pub fn about(&self) -> Vec<(&'static str, String)> {
        self.scorer.about()
    }

    /// Rewards of prompts with their answers. A reward does not depend on the other exchanges.
    ///
    /// # Errors
    /// The scorer fails.
    pub fn score(&self, exchanges: &[Exchange<'_>]) -> Result<Vec<f64>> {
        if exchanges.is_empty() { Ok(Vec::new()) } else { self.scorer.score(exchanges, self.format) }
    }

    /// Rewards of texts as they are.
    ///
    /// # Errors
    /// The scorer fails.
    pub fn score_texts(&self, texts: &[&str]) -> Result<Vec<f64>> {
        let prompt = Prompt::Text(String::new());
        let exchanges: Vec<_> =
            texts.iter().map(|answer| Exchange { prompt: &prompt, answer }).collect();
        self.scorer.score(&exchanges, RewardFormat::Answer)
    }

    /// A prompt and its answer as one text in the layout of HH-RLHF, whatever the policy was shown. A prompt that is a
    /// single text becomes a human's turn, unless it already has that layout.
    pub fn lay_out(prompt: &Prompt, answer: &str) -> String {
        hh(prompt, answer)
    }
}
