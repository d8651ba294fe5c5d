//! What ends a run of the judge. What fails a single call is a [`Failure`](super::Failure) instead.

use std::io;

/// Why judging stopped. Verdicts that came before stay in their file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot be.
    #[error("{name}: {problem}")]
    Setting {
        /// Its name.
        name: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },

    /// The server refuses, and would refuse every call.
    #[error("{url} refuses with status {status}: {said}{hint}")]
    Refused {
        /// The address asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the server said, shortened.
        said: String,
        /// What to do, where that is known.
        hint: &'static str,
    },

    /// Nobody answers at the address.
    #[error("cannot connect to {url}: {problem}: is the server running, and the address right?")]
    Unreachable {
        /// The address asked.
        url: String,
        /// What the system said.
        problem: String,
    },

    /// Call after call failed.
    #[error("{url}: {count} calls in a row failed, the last with: {problem}: try again later")]
    GaveUp {
        /// The address asked.
        url: String,
        /// How many.
        count: usize,
        /// The last one's failure.
        problem: String,
    },

    /// The file of verdicts cannot be read or written.
    #[error("cannot {doing} {file}: {source}")]
    File {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },

    /// A line of the file of verdicts that is none.
    #[error("{file}:{line}: not a verdict of `judge`: {problem}")]
    Line {
        /// The file.
        file: String,
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },

    /// The file holds verdicts of another judge.
    #[error("{file}:{line}: written with {field} {was}, this run has {is}: name another file")]
    OtherJudge {
        /// The file.
        file: String,
        /// From 1.
        line: usize,
        /// What differs: `model`, `form`, `temperature`, `seed` or `more of the request`.
        field: &'static str,
        /// Its value in the file.
        was: String,
        /// Its value now.
        is: String,
    },

    /// Another process writes the same file.
    #[error("{file}: another run is writing to it: wait for it, or name another file")]
    Locked {
        /// The file.
        file: String,
    },
}
