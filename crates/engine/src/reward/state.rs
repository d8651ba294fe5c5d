//! The state of a reward for one sequence during decoding.

use std::sync::Arc;

use super::causal::RewardModel;
use super::combination::Combination;
use super::head::Head;
use super::text::TextReward;
use super::value::ValueHead;
use crate::cache::{Branches, Prefix};
use crate::chat::Prompt;
use crate::error::{Error, Result};
use crate::tokenizer::TextStream;

/// The state of a reward for one sequence. [`ask`](super::ask()) scores candidates, [`RewardState::commit`] appends the chosen one, and
/// [`RewardState::read`] appends a token that was not scored.
#[derive(Clone)]
pub enum RewardState {
    /// Scores the policy's hidden states of the candidates.
    Head(Arc<Head>),
    /// Estimates the shaped reward of the finished answer from the policy's hidden states of the candidates.
    Value(Arc<ValueHead>),
    /// Runs a reward model on the candidates.
    Model {
        /// The reward model.
        model: Arc<RewardModel>,
        /// The prefix that the reward model has prefilled.
        prefix: Prefix,
        /// Tokens of the sequence that are not in the prefix yet.
        unread: Vec<u32>,
        /// State after the candidates that were scored last.
        ahead: Option<Ahead>,
    },
    /// Scores the text of each candidate.
    Text {
        /// The reward.
        reward: Arc<TextReward>,
        /// The prompt.
        prompt: Arc<Prompt>,
        /// The answer so far.
        answer: String,
        /// Decoder from tokens to text.
        stream: TextStream,
        /// The candidates that were scored last, each with its continuation.
        ahead: Vec<Vec<u32>>,
    },
    /// Combines several rewards.
    Combined {
        /// The expression that combines them.
        combination: Arc<Combination>,
        /// One state for each reward.
        states: Vec<RewardState>,
        /// Rewards of the candidates that were scored last, `[rewards][candidates]`.
        parts: Vec<Vec<f64>>,
    },
}

/// The state of a reward model after the candidates that it scored last.
#[derive(Clone)]
pub enum Ahead {
    /// Single tokens after the common prefix.
    Tokens(Branches),
    /// Candidates with continuations: one prefix for each candidate.
    Texts(Vec<Prefix>),
}

impl RewardState {
    /// Whether the reward needs the policy's hidden states of the candidates.
    pub fn needs_policy(&self) -> bool {
        match self {
            Self::Head(_) | Self::Value(_) => true,
            Self::Model { .. } | Self::Text { .. } => false,
            Self::Combined { states, .. } => states.iter().any(RewardState::needs_policy),
        }
    }

    /// Whether scoring waits for something outside of this process, such as a server.
    pub fn is_remote(&self) -> bool {
        match self {
            Self::Head(_) | Self::Value(_) | Self::Model { .. } => false,
            Self::Text { reward, .. } => reward.is_remote(),
            Self::Combined { states, .. } => states.iter().any(RewardState::is_remote),
        }
    }

    /// Tells states of the same reward from those of others.
    pub(super) fn identity(&self) -> usize {
        match self {
            Self::Head(head) => Arc::as_ptr(head).addr(),
            Self::Value(head) => Arc::as_ptr(head).addr(),
            Self::Model { model, .. } => Arc::as_ptr(model).addr(),
            Self::Text { reward, .. } => Arc::as_ptr(reward).addr(),
            Self::Combined { combination, .. } => Arc::as_ptr(combination).addr(),
        }
    }

    /// For a combination, the rewards of the candidates that were scored last, `[rewards][candidates]`; else empty.
    pub fn parts(&self) -> &[Vec<f64>] {
        if let Self::Combined { parts, .. } = self { parts } else { &[] }
    }

    /// The maximum difference between two rewards; `None` if there is no known limit.
    pub fn span(&self) -> Option<f64> {
        match self {
            Self::Value(head) => head.bound,
            Self::Head(_) | Self::Model { .. } | Self::Text { .. } | Self::Combined { .. } => None,
        }
    }

    /// Runs the tokens that a reward model has not prefilled yet, such as the prompt, so that clones share them.
    ///
    /// # Errors
    /// A forward pass fails.
    pub fn prefill(&mut self) -> Result<()> {
        match self {
            Self::Model { model, prefix, unread, .. } if !unread.is_empty() => {
                model.model().read_all(&mut [(prefix, &unread[..])])?;
                unread.clear();
            }
            Self::Combined { states, .. } => states.iter_mut().try_for_each(Self::prefill)?,
            _ => {}
        }
        Ok(())
    }

    /// Appends a token of the answer that was not scored, because guidance was skipped at this step.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn read(&mut self, token: u32) -> Result<()> {
        match self {
            Self::Head(_) | Self::Value(_) => {}
            Self::Model { unread, ahead, .. } => {
                unread.push(token);
                *ahead = None;
            }
            Self::Text { answer, stream, .. } => answer.push_str(&stream.push(token)?),
            Self::Combined { states, .. } => {
                states.iter_mut().try_for_each(|state| state.read(token))?
            }
        }
        Ok(())
    }

    /// Appends the candidate with this index among those scored last, including its continuation.
    ///
    /// # Errors
    /// No candidates were scored, or there is no such candidate.
    pub fn commit(&mut self, index: usize) -> Result<()> {
        match self {
            Self::Head(_) | Self::Value(_) => Ok(()),
            Self::Model { prefix, ahead, .. } => {
                match ahead.take().ok_or(Error::NoTokens)? {
                    Ahead::Tokens(branches) => prefix.commit(&branches, index)?,
                    Ahead::Texts(texts) => {
                        *prefix = texts.into_iter().nth(index).ok_or(Error::NoTokens)?;
                    }
                }
                Ok(())
            }
            Self::Text { ahead, .. } => {
                let tokens = std::mem::take(ahead.get_mut(index).ok_or(Error::NoTokens)?);
                tokens.into_iter().try_for_each(|token| self.read(token))
            }
            Self::Combined { states, .. } => states.iter_mut().try_for_each(|state| state.commit(index)),
        }
    }
}
