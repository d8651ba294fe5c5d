//! Rewards that read text instead of the policy's tokens: a model with another tokenizer, a program, a server. They can
//! guide too: the text of each candidate is decoded and scored.
//!
//! [`RewardFormat`] is the layout of prompt and answer for such a reward. It is the same wherever the reward is used.

mod classifier;
mod embedded;
mod foreign;
mod format;
mod scorer;

pub use classifier::Classifier;
pub use embedded::EmbeddedHead;
pub use foreign::ForeignModel;
pub use format::{Exchange, RewardFormat};
pub use scorer::{TextReward, TextScorer};
