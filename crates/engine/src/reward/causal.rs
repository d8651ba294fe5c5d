//! A causal reward model: a decoder with a scalar head, of the policy's tokenizer.

use candle_core::Tensor;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::reward::labels::Label;
use crate::reward::project;

/// `LlamaForSequenceClassification` and the like. Its rewards are raw logits, never a sigmoid.
pub struct RewardModel {
    pub(super) checkpoint: Checkpoint,
    /// `[d]`, f32 whatever the dtype of the rest.
    pub(super) score: Vec<f32>,
}

impl RewardModel {
    /// Any model as a reward model: a text's reward is the product of `score` `[d]` with the hidden state
    /// of its last token. The caller vouches that the tokenizer is the policy's.
    ///
    /// # Errors
    /// Another width than the model's.
    pub fn new(checkpoint: Checkpoint, score: Vec<f32>) -> Result<Self> {
        let (found, width) = (score.len(), checkpoint.model.config().hidden);
        if found != width {
            let what = format!("the score has {found} weights, the hidden states have {width}");
            return Err(Error::reward(&checkpoint.path, what));
        }
        Ok(Self { checkpoint, score })
    }

    /// A classifier as a reward model, by one of its labels as in [`Classifier::load`](super::Classifier::load). The caller
    /// vouches that the tokenizer is the policy's.
    ///
    /// # Errors
    /// A language model; several labels and none chosen, or one that is not there.
    pub fn of_label(checkpoint: Checkpoint, label: Option<&str>) -> Result<Self> {
        let score = score_row(&checkpoint, label)?;
        Self::new(checkpoint, score)
    }

    /// The model under the head, with all that belongs to it.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The model under the head.
    pub fn model(&self) -> &Model {
        &self.checkpoint.model
    }

    /// Rewards of hidden states `[n, d]`.
    ///
    /// # Errors
    /// Another width.
    pub fn score(&self, hidden: &Tensor) -> Result<Vec<f64>> {
        project(hidden, &self.score)
    }
}

/// The score row of a classifier, `[d]`: that of a label, or the difference of two; see [`Label::of`].
///
/// # Errors
/// A language model; several labels and none chosen, or one that is not there.
pub(super) fn score_row(checkpoint: &Checkpoint, label: Option<&str>) -> Result<Vec<f32>> {
    let Some(head) = checkpoint.model.score() else {
        let what = "a language model, not a reward model: a ...ForSequenceClassification is expected";
        return Err(Error::reward(&checkpoint.path, what));
    };
    let label = Label::of(&head.names, label).map_err(|what| Error::reward(&checkpoint.path, what))?;
    let weight = |i: usize| label.value(|row| f64::from(head.rows[row][i])) as f32;
    Ok((0..head.rows[0].len()).map(weight).collect())
}
