//! Rewards that can look ahead: given a text and candidates for its next token, one number each.
//!
//! Decoding sees the contract [`Guide`] alone and cannot tell its members apart: a head on the policy's
//! own hidden states ([`Head`]), which costs no forward of its own, or a second causal model with a prefix
//! of its own ([`RewardModel`]).

mod causal;
mod head;

pub use causal::RewardModel;
pub use head::{Head, TextFormat};

use std::path::Path;

use candle_core::Tensor;

use crate::cache::{Branches, Prefix};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::kernel::Dtype;
use crate::model::Model;

/// A loaded reward.
pub enum Reward {
    /// A head on the policy's hidden states.
    Head(Head),
    /// A causal reward model.
    Model(Box<RewardModel>),
}

impl Reward {
    /// Loads a head (`.safetensors`) or a reward model (an HF folder) for this policy.
    ///
    /// # Errors
    /// As [`Head::load`] and [`RewardModel::load`].
    pub fn load(path: &Path, policy: &Checkpoint, dtype: Dtype) -> Result<Self> {
        if path.is_dir() {
            let model = RewardModel::load(path, policy, dtype)?;
            return Ok(Self::Model(Box::new(model)));
        }
        if !path.is_file() {
            let what = "there is no such file or folder: give a head (.safetensors) or a model folder";
            return Err(Error::reward(path, what));
        }
        let head = Head::load(path)?;
        head.fits(policy)?;
        Ok(Self::Head(head))
    }

    /// How text should be laid out for it: as a head was trained; for a reward model as a chat, if the
    /// policy knows chats.
    pub fn text_format(&self, policy: &Checkpoint) -> TextFormat {
        match self {
            Self::Head(head) => head.text_format,
            Self::Model(_) if policy.template.is_some() => TextFormat::Chat,
            Self::Model(_) => TextFormat::Raw,
        }
    }

    /// Most tokens that it can read.
    pub fn context(&self, policy: &Model) -> usize {
        match self {
            Self::Head(_) => policy.context(),
            Self::Model(model) => model.model().context(),
        }
    }

    /// A guide through one text.
    pub fn guide(&self) -> Guide<'_> {
        match self {
            Self::Head(head) => Guide::Head(head),
            Self::Model(model) => {
                let prefix = model.model().empty();
                Guide::Model { model, prefix, unread: Vec::new(), ahead: None }
            }
        }
    }

    /// The reward of a whole text, by the hidden state of its last token.
    ///
    /// # Errors
    /// As [`Model::prefill`].
    pub fn of_tokens(&self, policy: &Model, tokens: &[u32]) -> Result<f64> {
        let last = |model: &Model| -> Result<Tensor> {
            let hidden = model.prefill(tokens)?.1;
            Ok(hidden.narrow(0, tokens.len() - 1, 1)?)
        };
        let scores = match self {
            Self::Head(head) => head.score(&last(policy)?)?,
            Self::Model(model) => model.score(&last(model.model())?)?,
        };
        Ok(scores[0])
    }
}

/// `h · w` of hidden states `[n, d]`, summed in f64.
pub(crate) fn project(hidden: &Tensor, weight: &[f32]) -> Result<Vec<f64>> {
    let rows: Vec<Vec<f32>> = hidden.to_vec2()?;
    if let Some(row) = rows.iter().find(|row| row.len() != weight.len()) {
        let (found, expected) = (row.len(), weight.len());
        return Err(Error::Width { found, expected });
    }
    let dot = |row: &Vec<f32>| row.iter().zip(weight).map(|(h, w)| f64::from(*h) * f64::from(*w)).sum();
    Ok(rows.iter().map(dot).collect())
}

/// The contract of a step: what was read, what might come next, what was chosen.
pub enum Guide<'a> {
    /// Reads the policy's look ahead.
    Head(&'a Head),
    /// Looks ahead itself.
    Model {
        /// The reward model.
        model: &'a RewardModel,
        /// What it has read.
        prefix: Prefix,
        /// What was chosen since, and it has not read.
        unread: Vec<u32>,
        /// The candidates it scored last.
        ahead: Option<Branches>,
    },
}

impl Guide<'_> {
    /// Whether the guide needs the policy to look ahead over the candidates.
    pub fn needs_policy(&self) -> bool {
        matches!(self, Self::Head(_))
    }

    /// Takes in tokens that were not scored: the prompt, or steps that were skipped.
    pub fn read(&mut self, tokens: &[u32]) {
        if let Self::Model { unread, ahead, .. } = self {
            unread.extend_from_slice(tokens);
            *ahead = None;
        }
    }

    /// Rewards of `k` candidates for the next token; `policy` is the policy's own look ahead over them,
    /// which guides that need it must be given.
    ///
    /// # Errors
    /// The forward fails.
    pub fn score(&mut self, candidates: &[u32], policy: Option<&Branches>) -> Result<Vec<f64>> {
        match self {
            Self::Head(head) => {
                let branches = policy.ok_or(Error::NoTokens)?;
                head.score(&branches.hidden)
            }
            Self::Model { model, prefix, unread, ahead } => {
                if !unread.is_empty() {
                    model.model().extend(prefix, unread)?;
                    unread.clear();
                }
                let branches = model.model().branch(prefix, candidates)?;
                let scores = model.score(&branches.hidden)?;
                *ahead = Some(branches);
                Ok(scores)
            }
        }
    }

    /// The candidate at `index` of those scored last was chosen.
    ///
    /// # Errors
    /// Nothing was scored.
    pub fn commit(&mut self, index: usize) -> Result<()> {
        match self {
            Self::Head(_) => Ok(()),
            Self::Model { prefix, ahead, .. } => {
                let branches = ahead.take().ok_or(Error::NoTokens)?;
                prefix.commit(&branches, index)
            }
        }
    }
}
