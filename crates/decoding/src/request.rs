//! What is asked of a session, and what it tells.

use std::sync::Arc;

use stackelberg_engine::reward::ValueHead;
use stackelberg_engine::{Prompt, Reward};

use crate::error::Error;
use crate::generation::Generation;
use crate::settings::Settings;
use crate::step::Step;

/// A prompt to answer, with everything that decides the answer.
#[derive(Clone)]
pub struct Request {
    /// The prompt's name. With the seed it decides all random numbers.
    pub id: String,
    /// The policy's tokens of the prompt.
    pub prompt: Vec<u32>,
    /// The prompt itself, which rewards that read text need.
    pub asked: Option<Arc<Prompt>>,
    /// How to decode.
    pub settings: Arc<Settings>,
    /// Scores candidates ([`Method::Args`](crate::Method::Args)), samples (best-of-n and its siblings) and every finished
    /// answer.
    pub reward: Option<Reward>,
    /// Scores the candidates of [`Method::Cd`](crate::Method::Cd).
    pub value: Option<Arc<ValueHead>>,
    /// What is wanted.
    pub want: Want,
    /// Whether each step is told, see [`Event::Token`].
    pub steps: bool,
}

impl Request {
    /// The value head that scores blocks, if one does. Best-of-n drops samples by their rewards.
    pub(crate) fn block_value(&self) -> Option<&Arc<ValueHead>> {
        self.value.as_ref().filter(|_| self.settings.method.decodes_blocks())
    }

    /// The largest number of answers that are sampled on their own.
    pub(crate) fn most_samples(&self) -> usize {
        match self.want {
            Want::Answer
                if !self.settings.method.chooses_answers() || self.settings.decodes_blocks() =>
            {
                1
            }
            Want::Answer | Want::Samples { .. } => self.settings.samples,
        }
    }
}

/// What is wanted of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// The answer.
    Answer,
    /// [`Settings::samples`] answers of the base policy, all of them.
    Samples {
        /// Whether with the hidden states of their tokens.
        hidden: bool,
    },
}

/// The name of a request in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(crate) u64);

/// One of the answers to a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The answer and its reward.
    pub answer: Generation,
    /// Hidden states of the answer's tokens after the final norm, `[tokens, d]` row by row; empty where they are not
    /// kept.
    pub hidden: Vec<f32>,
}

/// What happened to a request.
#[derive(Debug)]
pub enum Event {
    /// A step was decided, of a request that wants its steps. Where one of several samples is chosen at the end, its steps
    /// come when it is chosen.
    Token {
        /// The request.
        ticket: Ticket,
        /// The number of the step, from 0.
        number: usize,
        /// The step.
        step: Box<Step>,
        /// The text that it adds to the answer. It is never taken back: all texts together are the answer.
        text: String,
    },
    /// The request is finished.
    Done {
        /// The request.
        ticket: Ticket,
        /// One answer, or all samples.
        samples: Vec<Sample>,
    },
    /// The request failed. Others are not affected.
    Failed {
        /// The request.
        ticket: Ticket,
        /// Why.
        error: Error,
    },
}

impl Event {
    /// The request that it is about.
    pub fn ticket(&self) -> Ticket {
        match self {
            Self::Token { ticket, .. } | Self::Done { ticket, .. } | Self::Failed { ticket, .. } => {
                *ticket
            }
        }
    }
}
