//! Errors that end a run of the judge. A [`Failure`](super::Failure) concerns a single call.

use std::io;

use stackelberg_remote::chat::{self, Hint};

/// Why judging stopped. Earlier verdicts stay in their file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is wrong.
    #[error("{name}: {problem}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },

    /// No call to the server can succeed.
    #[error("{0}{option}", option = option(.0))]
    Server(chat::Error),

    /// Several calls in a row failed.
    #[error("{url}: {count} calls in a row failed, the last with: {problem}: try again later")]
    GaveUp {
        /// The address.
        url: String,
        /// The number of calls.
        count: usize,
        /// The failure of the last call.
        problem: String,
    },

    /// The verdict file cannot be read or written.
    #[error("cannot {doing} {file}: {source}")]
    File {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        file: String,
        /// The system's error.
        source: io::Error,
    },

    /// A line of the verdict file is no verdict.
    #[error("{file}:{line}: not a verdict of `judge`: {problem}")]
    Line {
        /// The file.
        file: String,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },

    /// The verdict file holds verdicts of another judge.
    #[error("{file}:{line}: written with {field} {was}, this run has {is}: name another file")]
    OtherJudge {
        /// The file.
        file: String,
        /// The line's number, from 1.
        line: usize,
        /// What differs: `model`, `form`, `temperature`, `seed` or `more of the request`.
        field: &'static str,
        /// Its value in the file.
        was: String,
        /// Its value in this run.
        is: String,
    },

    /// Another process writes to the verdict file.
    #[error("{file}: another run is writing to it: wait for it, or name another file")]
    Locked {
        /// The file.
        file: String,
    },
}

impl From<chat::Error> for Error {
    fn from(error: chat::Error) -> Self {
        Self::Server(error)
    }
}

/// The option of `stackelberg judge` that a refusal is about.
fn option(error: &chat::Error) -> &'static str {
    match error {
        chat::Error::Refused { hint: Some(Hint::TokensField), .. } => {
            " (--max-tokens-field max_completion_tokens)"
        }
        chat::Error::Refused { hint: Some(Hint::Temperature), .. } => " (--no-temperature)",
        chat::Error::Refused { hint: Some(Hint::Key), .. } => " (--key-env)",
        _ => "",
    }
}
