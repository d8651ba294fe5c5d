//! Causal reward models with another tokenizer than the policy's.
//!
//! Whole texts are tokenised anew each time, so the tokens do not depend on how a text was generated. The common prefix
//! of the texts of one prompt is prefilled once and cached. Only the remaining tokens of each text are run, in shared
//! forward passes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;

use super::format::{Exchange, RewardFormat};
use super::scorer::TextScorer;
use crate::cache::Prefix;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::reward::causal::{RewardModel, score_row};
use crate::reward::project::project;
use crate::text_format::TextFormat;

/// A `*ForSequenceClassification` over a decoder with any tokenizer. Rewards are raw logits.
pub struct ForeignModel {
    checkpoint: Checkpoint,
    score: Vec<f32>,
    /// Common prefixes of the texts of a prompt, by the prompt's text.
    read: Mutex<HashMap<String, Prefix>>,
}

/// The maximum number of prompts whose prefixes are cached.
const KEPT: usize = 64;

impl ForeignModel {
    /// A loaded classifier. The label is chosen as in [`Classifier::load`](super::Classifier::load).
    ///
    /// # Errors
    /// The model is not a classifier; it has several labels and none is chosen; there is no such label.
    pub fn new(checkpoint: Checkpoint, label: Option<&str>) -> Result<Self> {
        let score = score_row(&checkpoint, label)?;
        Ok(Self { checkpoint, score, read: Mutex::default() })
    }

    /// Turns a reward model with the policy's tokenizer into one that reads text.
    pub fn of(RewardModel { checkpoint, score }: RewardModel) -> Self {
        Self { checkpoint, score, read: Mutex::default() }
    }

    /// The prompt's text in this format, and the tokens of the whole text.
    fn tokens(&self, exchange: Exchange<'_>, format: RewardFormat) -> Result<(String, Vec<u32>)> {
        let Exchange { prompt, answer } = exchange;
        let (before, layout) = match format {
            RewardFormat::Chat => {
                (self.checkpoint.lay_out(prompt, None, TextFormat::Chat)?, TextFormat::Chat)
            }
            RewardFormat::Closed => {
                let whole = self.checkpoint.close(prompt, answer)?;
                let tokens = self.checkpoint.tokens(&whole, TextFormat::Chat)?;
                let before = prompt.raw(None);
                return if tokens.is_empty() { Err(Error::NoTokens) } else { Ok((before, tokens)) };
            }
            RewardFormat::Answer => (String::new(), TextFormat::Raw),
            RewardFormat::Raw | RewardFormat::Hh | RewardFormat::Pair => {
                (format.lay_out(Exchange { prompt, answer: "" }), TextFormat::Raw)
            }
        };
        let tokens = self.checkpoint.tokens(&format!("{before}{answer}"), layout)?;
        if tokens.is_empty() { Err(Error::NoTokens) } else { Ok((before, tokens)) }
    }

    /// Rewards of texts of one prompt.
    fn of_prompt(&self, prompt: String, texts: &[Vec<u32>]) -> Result<Vec<f64>> {
        let model = &self.checkpoint.model;
        let kept = self.read.lock().unwrap_or_else(PoisonError::into_inner).remove(&prompt);
        // The length of the common prefix. At least one token of each text remains to be run for its last hidden state.
        let shared = texts.iter().skip(1).fold(texts[0].len() - 1, |shared, text| {
            common(&texts[0], text).min(shared).min(text.len() - 1)
        });
        let mut base = kept.unwrap_or_else(|| model.empty());
        base.truncate(common(base.tokens(), &texts[0]).min(shared));
        if base.len() < shared {
            let more = &texts[0][base.len()..shared];
            model.read_all(&mut [(&mut base, more)])?;
        }
        let mut prefixes = vec![base.clone(); texts.len()];
        let mut tails: Vec<_> =
            prefixes.iter_mut().zip(texts).map(|(prefix, text)| (prefix, &text[shared..])).collect();
        let last = model.read_all(&mut tails)?;
        let rewards = project(&Tensor::cat(&last, 0)?, &self.score)?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.len() >= KEPT {
            read.clear();
        }
        read.insert(prompt, base);
        Ok(rewards)
    }
}

impl TextScorer for ForeignModel {
    fn score(&self, exchanges: &[Exchange<'_>], format: RewardFormat) -> Result<Vec<f64>> {
        let mut groups: Vec<(String, Vec<usize>, Vec<Vec<u32>>)> = Vec::new();
        for (i, exchange) in exchanges.iter().enumerate() {
            let (prompt, tokens) = self.tokens(*exchange, format)?;
            match groups.iter_mut().find(|(known, ..)| *known == prompt) {
                Some((_, numbers, texts)) => {
                    numbers.push(i);
                    texts.push(tokens);
                }
                None => groups.push((prompt, vec![i], vec![tokens])),
            }
        }
        let mut rewards = vec![f64::NAN; exchanges.len()];
        for (prompt, numbers, texts) in groups {
            let found = self.of_prompt(prompt, &texts)?;
            numbers.into_iter().zip(found).for_each(|(i, reward)| rewards[i] = reward);
        }
        Ok(rewards)
    }

    fn formats(&self) -> &[RewardFormat] {
        use RewardFormat::{Answer, Chat, Closed, Hh, Raw};
        let chats = self.checkpoint.template.is_some();
        if chats { &[Raw, Hh, Chat, Closed, Answer] } else { &[Raw, Hh, Answer] }
    }

    /// A chat, if the model has a chat template.
    fn usual_format(&self) -> RewardFormat {
        if self.checkpoint.template.is_some() { RewardFormat::Chat } else { RewardFormat::Hh }
    }
}

/// The length of the common prefix of two texts.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
