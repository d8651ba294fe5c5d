//! Verdicts: the results of single calls.

use serde::{Deserialize, Serialize};
use stackelberg_remote::chat;

use super::identity::Identity;
use super::pairs::{Call, Order};

/// The result of one call: one line of the verdict file. The line holds the hashes of the texts and the whole reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The pair's id.
    pub id: String,
    /// Which answer was shown first.
    pub order: Order,
    /// The scores of the answer shown first and of the one shown second.
    pub scores: Option<[f64; 2]>,
    /// Why there are no scores.
    pub failure: Option<Failure>,
    /// The judge.
    #[serde(flatten)]
    pub identity: Identity,
    /// The model that the server used, by its own account.
    pub served: Option<String>,
    /// The hash of the prompt.
    pub prompt: String,
    /// The hash of the answer shown first.
    pub first: String,
    /// The hash of the answer shown second.
    pub second: String,
    /// The last reply.
    pub reply: Option<String>,
    /// The number of replies: more than one if the first had no scores.
    pub replies: u64,
    /// The number of requests, including those that failed.
    pub requests: u64,
    /// The tokens of all prompts, if the server reports them.
    pub tokens_in: Option<u64>,
    /// The tokens of all replies, if the server reports them.
    pub tokens_out: Option<u64>,
    /// The time from the first request to the last response, in seconds.
    pub seconds: f64,
}

impl Verdict {
    /// Whether this is a verdict on a call: whether the texts are the same. Ids are not compared.
    pub fn answers(&self, call: &Call<'_>) -> bool {
        [&self.prompt, &self.first, &self.second].into_iter().eq(&call.texts)
    }
}

/// Why a call gave no scores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind of failure.
    pub kind: Kind,
    /// What happened.
    pub problem: String,
}

/// Kinds of failures of single calls. The string forms are descriptions for people.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The reply does not hold two scores.
    #[strum(serialize = "no two scores in the reply")]
    Reply,
    /// The server or the model refuses the texts of this call.
    #[strum(serialize = "texts refused")]
    Refused,
    /// There was no response in time.
    #[strum(serialize = "timed out")]
    TimeOut,
    /// The connection broke.
    #[strum(serialize = "connection broke")]
    Cut,
    /// The server reported an error of its own.
    #[strum(serialize = "server error")]
    Server,
    /// The response is no chat completion.
    #[strum(serialize = "malformed answer")]
    Body,
}

impl Kind {
    /// A description for people.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether the server failed, and not the judge.
    pub(super) fn is_of_server(self) -> bool {
        !matches!(self, Self::Reply | Self::Refused)
    }
}

impl From<chat::Kind> for Kind {
    fn from(kind: chat::Kind) -> Self {
        match kind {
            chat::Kind::Refused => Self::Refused,
            chat::Kind::TimeOut => Self::TimeOut,
            chat::Kind::Cut => Self::Cut,
            chat::Kind::Server => Self::Server,
            chat::Kind::Body => Self::Body,
        }
    }
}
