//! What can be wrong with generations, settings and what judges them.

/// Why something could not be evaluated. Every variant names the thing at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written, or a line of it is malformed.
    #[error(transparent)]
    File(#[from] stackelberg_learning::Error),

    /// A model failed on a text.
    #[error(transparent)]
    Engine(#[from] stackelberg_engine::Error),

    /// A line that is no answer to a prompt.
    #[error("{file}:{line}: {problem}")]
    Line {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The field, what is wrong with it and what to do.
        problem: String,
    },

    /// A file without answers.
    #[error("{file}: no answers")]
    Empty {
        /// The file.
        file: String,
    },

    /// Two runs that did not answer the same prompts.
    #[error("{first} and {second} do not answer the same prompts: {problem}")]
    Unpaired {
        /// One run.
        first: String,
        /// The other.
        second: String,
        /// Which prompts differ.
        problem: String,
    },

    /// A report whose parts do not fit together.
    #[error("the report cannot be drawn: {problem}")]
    Report {
        /// Which part, and what is wrong with it.
        problem: String,
    },
}

/// What functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;
