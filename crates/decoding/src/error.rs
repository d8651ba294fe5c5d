//! What can go wrong while decoding.

use crate::method::Method;

/// Why a text could not be generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model, the reward or the tokenizer failed.
    #[error(transparent)]
    Engine(#[from] stackelberg_engine::Error),

    /// The policy's server failed.
    #[error("{0}")]
    Server(String),

    /// A request that the policy's server cannot fulfil.
    #[error("the policy runs on a server, which {0}")]
    NotRemote(String),

    /// The settings of the shaping are no good, or rewards of finished answers could not be shaped.
    #[error(transparent)]
    Rule(stackelberg_shaping::Error),

    /// The rewards of a step could not be shaped.
    #[error("step {step}: {source}")]
    Shaping {
        /// The step, from 0.
        step: usize,
        /// What the mathematics said.
        source: stackelberg_shaping::Error,
    },

    /// A candidate's reward is NaN or infinite.
    #[error(
        "step {step}: the reward of candidate {token} is {reward}: the reward model is broken for this text"
    )]
    Reward {
        /// The step, from 0.
        step: usize,
        /// The candidate.
        token: u32,
        /// Its reward.
        reward: f64,
    },

    /// The model's logits are NaN or infinite.
    #[error("step {step}: the model's logits are not finite numbers: its weights are broken")]
    Logits {
        /// The step, from 0.
        step: usize,
    },

    /// A setting outside its range.
    #[error("{name} is {value}: it must be {must}")]
    Setting {
        /// The setting's name, as on the command line.
        name: &'static str,
        /// The value given.
        value: f64,
        /// The values allowed.
        must: &'static str,
    },

    /// A count above its limit.
    #[error("{name} is {value}: it must be at most {most}")]
    TooLarge {
        /// The setting's name, as on the command line.
        name: &'static str,
        /// The value given.
        value: usize,
        /// The limit.
        most: usize,
    },

    /// A setting that the method does not use.
    #[error("{field} has no effect with method {method}: leave it out")]
    Unused {
        /// The setting's name in files and requests.
        field: &'static str,
        /// The method.
        method: Method,
    },

    /// A setting of the shaping, where the best continuation is kept.
    #[error("{field} has no effect if the best continuation is kept: leave it out, or set keep to draw")]
    UnusedByBest {
        /// The setting's name in files and requests.
        field: &'static str,
    },

    /// The price of a token, where a continuation is drawn.
    #[error("{field} has no effect if a continuation is drawn: leave it out, or set keep to best")]
    UnusedByDraw {
        /// The setting's name in files and requests.
        field: &'static str,
    },

    /// A setting of blocks with best-of-n, where no samples are dropped.
    #[error("{field} has no effect with method best-of-n without reject: leave it out, or set reject")]
    UnusedWithoutReject {
        /// The setting's name in files and requests.
        field: &'static str,
    },

    /// A prompt could not be answered.
    #[error("prompt {id}")]
    Prompt {
        /// The prompt's name.
        id: String,
        /// Why.
        source: Box<Error>,
    },

    /// The caller said stop.
    #[error("stopped")]
    Stopped,

    /// A method that needs a reward, without one.
    #[error("the method {0} needs a reward")]
    NoReward(&'static str),

    /// Controlled decoding without a value head.
    #[error("the method cd needs a value head")]
    NoValueHead,
}

impl Error {
    /// The same, saying which prompt it was. A stop is none of a prompt's.
    pub(crate) fn of(self, id: &str) -> Self {
        match self {
            Self::Stopped => self,
            error => Self::Prompt { id: id.to_owned(), source: Box::new(error) },
        }
    }
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;
