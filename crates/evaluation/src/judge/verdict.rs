//! What came of a call.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::pairs::{Call, Order};

/// Who judges, and by what: verdicts of two identities are two measurements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The judge, as it is asked for.
    pub model: String,
    /// [`form::version`](super::form::version).
    pub form: String,
    /// `None` leaves the field out, for models that accept their own default only.
    pub temperature: Option<f64>,
    /// For servers that sample by one.
    pub seed: Option<u64>,
    /// More fields of the request, as the server knows them: `reasoning_effort`, `grammar`, ...
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

/// What came of one call: a line of the file. Texts are kept as hashes, the reply as it is.
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
    /// Who judged.
    #[serde(flatten)]
    pub identity: Identity,
    /// The model that the server says it used.
    pub served: Option<String>,
    /// Names the prompt's text.
    pub prompt: String,
    /// Names the text shown first.
    pub first: String,
    /// Names the text shown second.
    pub second: String,
    /// The last reply.
    pub reply: Option<String>,
    /// Replies received: more than one where the first had no scores.
    pub replies: u64,
    /// Requests sent, with those that failed.
    pub requests: u64,
    /// Tokens of all replies' questions, where the server says.
    pub tokens_in: Option<u64>,
    /// Tokens of all replies, where the server says.
    pub tokens_out: Option<u64>,
    /// From the first request to the end, in seconds.
    pub seconds: f64,
}

impl Verdict {
    /// Whether it answers this call: by its texts, whatever the ids.
    pub fn answers(&self, call: &Call<'_>) -> bool {
        [&self.prompt, &self.first, &self.second].into_iter().eq(&call.texts)
    }
}

/// Why a call gave no scores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What sort.
    pub kind: Kind,
    /// In words.
    pub problem: String,
}

/// Sorts of failures of single calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The reply does not hold two scores.
    Reply,
    /// The server or the model refuses these very texts.
    Refused,
    /// No answer in time.
    TimeOut,
    /// The connection broke.
    Cut,
    /// The server said that it failed.
    Server,
    /// What the server sent is no chat completion.
    Body,
}

impl Kind {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reply => "no two scores in the reply",
            Self::Refused => "texts refused",
            Self::TimeOut => "timed out",
            Self::Cut => "connection broke",
            Self::Server => "server error",
            Self::Body => "malformed answer",
        }
    }

    /// Whether the server failed, rather than the judge at its task.
    pub(super) fn is_of_server(self) -> bool {
        !matches!(self, Self::Reply | Self::Refused)
    }
}
