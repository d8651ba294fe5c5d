//! Causal reward models: a decoder with a scalar head and the policy's tokenizer.

use candle_core::Tensor;

use super::labels::Label;
use super::project::project;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::model::Model;

/// A causal reward model, such as `LlamaForSequenceClassification`. Rewards are raw logits, without a sigmoid. A clone
/// shares the weights.
#[derive(Clone)]
pub struct RewardModel {
    pub(super) checkpoint: Checkpoint,
    /// `[d]`, f32 whatever the dtype of the rest.
    pub(super) score: Vec<f32>,
}

impl RewardModel {
    /// Any model as a reward model. The reward of a text is the product of `score` `[d]` with the hidden state of its
    /// last token. The model must have the policy's tokenizer; this is not checked.
    ///
    /// # Errors
    /// `score` has another width than the hidden states.
    pub fn new(checkpoint: Checkpoint, score: Vec<f32>) -> Result<Self> {
        let (found, width) = (score.len(), checkpoint.model.config().hidden);
        if found != width {
            let what = format!("the score has {found} weights, the hidden states have {width}");
            return Err(Error::reward(&checkpoint.path, what));
        }
        Ok(Self { checkpoint, score })
    }

    /// A classifier as a reward model. The label is chosen as in [`Classifier::load`](super::Classifier::load). The model
    /// must have the policy's tokenizer; this is not checked.
    ///
    /// # Errors
    /// The model is not a classifier; it has several labels and none is chosen; there is no such label.
    pub fn of_label(checkpoint: Checkpoint, label: Option<&str>) -> Result<Self> {
        let score = score_row(&checkpoint, label)?;
        Self::new(checkpoint, score)
    }

    /// The checkpoint of the model.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The model below the head.
    pub fn model(&self) -> &Model {
        &self.checkpoint.model
    }

    /// Rewards of hidden states `[n, d]`.
    ///
    /// # Errors
    /// The hidden states have another width.
    pub fn score(&self, hidden: &Tensor) -> Result<Vec<f64>> {
        project(hidden, &self.score)
    }
}

/// The score row of a classifier, `[d]`: the row of one label or the difference of two, see [`Label::of`].
///
/// # Errors
/// The model is not a classifier; it has several labels and none is chosen; there is no such label.
pub(super) fn score_row(checkpoint: &Checkpoint, label: Option<&str>) -> Result<Vec<f32>> {
    let Some(head) = checkpoint.model.score() else {
        let what = "a language model, not a reward model: a ...ForSequenceClassification is expected";
        return Err(Error::reward(&checkpoint.path, what));
    };
    let label = Label::of(&head.names, label).map_err(|what| Error::reward(&checkpoint.path, what))?;
    let weight = |i: usize| label.value(|row| f64::from(head.rows[row][i])) as f32;
    Ok((0..head.rows[0].len()).map(weight).collect())
}
