//! Rewards for guided decoding: one number for each candidate for the next token of a sequence.
//!
//! A [`Reward`] is loaded once. [`Reward::state`] gives a [`RewardState`] for one sequence, which decoding asks about
//! candidates ([`ask`]) and tells which one was chosen ([`RewardState::commit`]). Decoding does not depend on the kind of
//! reward:
//!
//! - a head on the policy's own hidden states ([`Head`], [`ValueHead`]), which needs no forward pass of its own;
//! - a second causal model of the same tokenizer, with a prefix of its own ([`RewardModel`]);
//! - a reward that reads text, of any tokenizer ([`TextReward`]);
//! - several of these together ([`Combined`]).

mod ask;
mod causal;
mod combination;
mod file;
mod head;
mod labels;
mod loaded;
mod project;
mod state;
mod text;
mod value;

pub use ask::{Question, ask};
pub use causal::RewardModel;
pub use combination::Combination;
pub use head::{Backbone, Head};
pub use loaded::{Combined, PromptInput, Reward};
pub use state::{Ahead, RewardState};
pub use text::{Classifier, EmbeddedHead, Exchange, ForeignModel, RewardFormat, TextReward, TextScorer};
pub use value::ValueHead;

pub use crate::text_format::TextFormat;
