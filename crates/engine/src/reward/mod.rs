//! Rewards for guided decoding: one number for each candidate for the next token of a sequence.
//!
//! A [`Reward`] is loaded once. [`Reward::guide`] gives a [`Guide`] for one sequence, which decoding asks about
//! candidates ([`ask`]) and tells which one was chosen ([`Guide::commit`]). Decoding does not depend on the kind of
//! reward:
//!
//! - a head on the policy's own hidden states ([`Head`], [`ValueHead`]), which needs no forward pass of its own;
//! - a second causal model of the same tokenizer, with a prefix of its own ([`RewardModel`]);
//! - a reward that reads text, of any tokenizer ([`TextReward`]);
//! - several of these together ([`Combined`]).

mod causal;
mod combination;
mod file;
mod guide;
mod head;
mod labels;
mod loaded;
mod project;
mod text;
mod value;

pub use causal::RewardModel;
pub use combination::Combination;
pub use guide::{Ahead, Guide, Question, ask};
pub use head::{Backbone, Head};
pub use loaded::{Asked, Combined, Reward};
pub use text::{Classifier, EmbeddedHead, Exchange, ForeignModel, RewardFormat, TextReward, TextScorer};
pub use value::ValueHead;

pub use crate::text_format::TextFormat;
