//! Errors of this crate.

/// Why an evaluation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written, or a line of it is malformed.
    #[error(transparent)]
    File(#[from] stackelberg_data::Error),

    /// A model failed.
    #[error(transparent)]
    Engine(#[from] stackelberg_engine::Error),

    /// The parts of a report are inconsistent.
    #[error("the report cannot be drawn: {problem}")]
    Report {
        /// The part, and what is wrong with it.
        problem: String,
    },
}

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;
