//! The policy: a local model, or one that a server runs.

use std::ops::Deref;
use std::sync::Arc;

use stackelberg_engine::{Checkpoint, Reward, TextProcessor};

use crate::settings::Settings;

/// What proposes tokens. A clone shares what is loaded.
#[derive(Clone)]
pub enum Policy {
    /// A model in this process.
    Local(Checkpoint),
    /// A model on a server.
    Remote(RemotePolicy),
}

/// A model on a server, with its text side here.
#[derive(Clone)]
pub struct RemotePolicy {
    /// Tokenizer, chat template and end-of-text tokens of the model.
    pub text: TextProcessor,
    /// What asks the server.
    pub server: Arc<dyn PolicyServer>,
    /// What gives hidden states of the same model, if something does.
    pub states: Option<Arc<dyn StateServer>>,
}

/// A server that continues token sequences. It batches for itself: many calls may be under way.
///
/// Its numbers depend on its batch and its version, so answers are not bit-identical from run to run.
pub trait PolicyServer: Send + Sync {
    /// The maximum length of a text in tokens, prompt and answer.
    fn context(&self) -> usize;

    /// The most log-probabilities of one step that it gives.
    fn most_log_probs(&self) -> usize;

    /// The most continuations of one text that one call draws, at least 1.
    fn most_continuations(&self) -> usize;

    /// The model's name on the server.
    fn model(&self) -> &str;

    /// What identifies the model in records: the server, its version, the model's name.
    fn identity(&self) -> String;

    /// Asks for what follows these tokens. `answer` is called once, on another thread, unless the returned call is dropped
    /// before.
    fn ask(&self, call: Call, answer: Answered) -> InFlight;
}

/// A server that gives hidden states of the policy's model, after the final norm. They do not depend on what follows.
pub trait StateServer: Send + Sync {
    /// Width `d` of a hidden state.
    fn width(&self) -> usize;

    /// The maximum length of a text in tokens.
    fn context(&self) -> usize;

    /// Whether it gives the states of all tokens of a text; otherwise that of the last one alone.
    fn gives_all(&self) -> bool;

    /// What identifies it in records: the model's name, the server, its version.
    fn identity(&self) -> String;

    /// The states at the ends of texts, `[rows, d]` each, row by row, in order. All numbers are finite. Waits for the server.
    ///
    /// # Errors
    /// A sentence says why there are none.
    fn states(&self, ends: &[End]) -> Result<Vec<Vec<f32>>, String>;
}

/// The end of a text, whose hidden states are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The whole text.
    pub tokens: Vec<u32>,
    /// How many of its last tokens: 1 where the server gives the last state alone.
    pub rows: usize,
}

/// Receives what a call found, or a sentence that says why there is nothing. A call for several continuations finds as many.
pub type Answered = Box<dyn FnOnce(Result<Vec<Found>, String>) + Send>;

/// A call under way. Dropping it cancels the call.
pub struct InFlight(Option<Box<dyn FnOnce() + Send + Sync>>);

impl InFlight {
    /// A call that `cancel` cancels. It has no effect on a call that is finished.
    pub fn new(cancel: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(cancel)))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(cancel) = self.0.take() {
            cancel();
        }
    }
}

/// A question to a server.
#[derive(Debug, Clone)]
pub struct Call {
    /// The text so far, prompt and answer.
    pub tokens: Vec<u32>,
    /// What is asked.
    pub wanted: Wanted,
}

impl Call {
    /// Whether one call can ask for the continuations of both: they differ in nothing but their seeds. Greedy continuations
    /// are not joined, since servers refuse to draw several of them.
    pub(crate) fn joins(&self, other: &Self) -> bool {
        let Wanted::Continuation { tokens, least, settings, log_probs, .. } = &self.wanted else {
            return false;
        };
        let Wanted::Continuation { tokens: t, least: l, settings: s, log_probs: p, .. } = &other.wanted
        else {
            return false;
        };
        (tokens, least, log_probs) == (t, l, p)
            && self.tokens == other.tokens
            && settings.sampling.temperature > 0.0
            && (Arc::ptr_eq(settings, s) || settings == s)
    }
}

/// What a server is asked for.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// The `k` likeliest next tokens with their log-probabilities.
    Likeliest {
        /// How many.
        k: usize,
    },
    /// Continuations that the server draws.
    Continuation {
        /// How many, each by random numbers of its own.
        n: usize,
        /// The maximum number of tokens, at least 1.
        tokens: usize,
        /// Tokens that the answer must still get before it may end.
        least: usize,
        /// The sampling settings, stop texts and stop tokens.
        settings: Arc<Settings>,
        /// The seed of the draws. The continuations after the first have the seeds that follow it.
        seed: u64,
        /// The likeliest tokens of each step that are to be told. The log-probability of the drawn token is told in any case.
        log_probs: usize,
    },
}

impl Wanted {
    /// How many answers a call has.
    pub fn n(&self) -> usize {
        match self {
            Self::Likeliest { .. } => 1,
            Self::Continuation { n, .. } => *n,
        }
    }
}

/// What a server found.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// The likeliest next tokens.
    Likeliest(Likeliest),
    /// A continuation.
    Continuation {
        /// The tokens that were drawn.
        tokens: Vec<Drawn>,
        /// Whether the text ended, by the end-of-text token or a stop.
        ended: bool,
    },
}

/// The likeliest next tokens, likeliest first, with their log-probabilities at temperature 1 in nats.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Likeliest(pub Vec<(u32, f64)>);

/// A token that a server drew.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// The token.
    pub token: u32,
    /// Its log-probability at temperature 1, in nats.
    pub log_prob: f64,
    /// The likeliest tokens of its step.
    pub likeliest: Likeliest,
}

impl Policy {
    /// The model, if it is in this process.
    pub fn local(&self) -> Option<&Checkpoint> {
        match self {
            Self::Local(checkpoint) => Some(checkpoint),
            Self::Remote(_) => None,
        }
    }

    /// The server, if one runs the model.
    pub fn server(&self) -> Option<&Arc<dyn PolicyServer>> {
        match self {
            Self::Local(_) => None,
            Self::Remote(remote) => Some(&remote.server),
        }
    }

    /// The maximum length of a text in tokens.
    pub fn context(&self) -> usize {
        match self {
            Self::Local(checkpoint) => checkpoint.model.context(),
            Self::Remote(RemotePolicy { server, states, .. }) => {
                let states = states.as_ref().map_or(usize::MAX, |states| states.context());
                server.context().min(states)
            }
        }
    }

    /// The number of tokens in the vocabulary.
    pub fn vocabulary(&self) -> usize {
        match self {
            Self::Local(checkpoint) => checkpoint.model.config().vocabulary,
            Self::Remote(remote) => remote.text.tokenizer.vocabulary(),
        }
    }

    /// Width `d` of the hidden states of all tokens; `None` if a server runs the model and nothing gives them.
    pub fn width(&self) -> Option<usize> {
        match self {
            Self::Local(checkpoint) => Some(checkpoint.model.config().hidden),
            Self::Remote(RemotePolicy { states, .. }) => {
                states.as_ref().filter(|states| states.gives_all()).map(|states| states.width())
            }
        }
    }

    /// Whether a reward is waited for: something outside of this process computes it, or the hidden states that it reads.
    pub(crate) fn waits_for(&self, reward: &Reward) -> bool {
        reward.is_remote() || self.server().is_some() && reward.reads_policy()
    }

    /// Bytes of the weights in this process.
    pub fn bytes(&self) -> usize {
        self.local().map_or(0, |checkpoint| checkpoint.model.bytes())
    }

    /// What identifies the weights in records.
    pub fn fingerprint(&self) -> String {
        match self {
            Self::Local(checkpoint) => checkpoint.fingerprint.clone(),
            Self::Remote(RemotePolicy { server, states, .. }) => match states {
                Some(states) => format!("{}; states of {}", server.identity(), states.identity()),
                None => server.identity(),
            },
        }
    }
}

impl Deref for Policy {
    type Target = TextProcessor;

    fn deref(&self) -> &TextProcessor {
        match self {
            Self::Local(checkpoint) => &checkpoint.text,
            Self::Remote(remote) => &remote.text,
        }
    }
}

impl From<Checkpoint> for Policy {
    fn from(checkpoint: Checkpoint) -> Self {
        Self::Local(checkpoint)
    }
}

impl From<&Checkpoint> for Policy {
    fn from(checkpoint: &Checkpoint) -> Self {
        Self::Local(checkpoint.clone())
    }
}

impl From<&Policy> for Policy {
    fn from(policy: &Policy) -> Self {
        policy.clone()
    }
}
