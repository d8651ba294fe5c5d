//! Errors of the chat client.

use std::fmt;

/// Why no request to this endpoint can succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is wrong.
    #[error("{name}: {problem}")]
    Setting {
        /// The setting: `base-url`, `key`, `HTTP client` or `more of the request`.
        name: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },

    /// The server refuses, and would refuse every request.
    #[error("{url} refuses with status {status}: {said}{}", hint.map(|hint| format!("; {hint}")).unwrap_or_default())]
    Refused {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The server's message, shortened.
        said: String,
        /// What to change, where that is known.
        hint: Option<Hint>,
    },

    /// There is no connection to the server.
    #[error("cannot connect to {url}: {problem}: is the server running, and the address right?")]
    Unreachable {
        /// The address.
        url: String,
        /// What the system said.
        problem: String,
    },
}

/// What to change after a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// The key is missing or wrong.
    Key,
    /// The address or the model's name is wrong.
    Address,
    /// The server redirects to another address.
    Redirect,
    /// The quota is used up.
    Quota,
    /// The server asks for a wait of more than ten minutes.
    Later,
    /// [`Endpoint::max_tokens_field`](super::Endpoint::max_tokens_field) must be `max_completion_tokens`.
    TokensField,
    /// The model accepts only its default temperature.
    Temperature,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "is the key right?",
            Self::Address => "are the address (it often ends in /v1) and the model right?",
            Self::Redirect => "give that address",
            Self::Quota => "the quota is used up",
            Self::Later => "it asks for a wait of more than ten minutes: try again later",
            Self::TokensField => "name the field for the most tokens max_completion_tokens",
            Self::Temperature => "leave the temperature out",
        })
    }
}

/// Why a request has no completion.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// This request failed. Others may succeed.
    #[error("{problem}")]
    Request {
        /// The kind of failure.
        kind: Kind,
        /// What happened.
        problem: String,
    },

    /// All requests would fail.
    #[error(transparent)]
    Fatal(#[from] Error),

    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,
}

/// Kinds of failures of single requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The server refuses the texts of this request: they are too long, or a content filter rejects them.
    Refused,
    /// There was no response in time.
    TimeOut,
    /// The connection broke.
    Cut,
    /// The server reported an error of its own.
    Server,
    /// The response is no chat completion.
    Body,
}
