//! Errors of runs and experiments.

use std::fmt::Display;

/// Why a run or an experiment ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting or a file is invalid. The message says what is wrong and what to do.
    #[error("{0}")]
    Invalid(String),

    /// Some prompts could not be answered, all others were. The message says how many, and how to try them again.
    #[error("{0}")]
    Prompts(String),

    /// The caller cancelled. The message says what is saved and how to resume.
    #[error("{0}")]
    Interrupted(String),

    /// An error with its place.
    #[error("{place}")]
    Within {
        /// A file, a setting or a prompt.
        place: String,
        /// What went wrong.
        source: Box<Error>,
    },

    /// A file cannot be read or written.
    #[error(transparent)]
    Data(#[from] stackelberg_data::Error),

    /// An I/O error.
    #[error(transparent)]
    Io(#[from] std::io::Error),

    /// JSON cannot be written.
    #[error(transparent)]
    Json(#[from] serde_json::Error),

    /// A model, a reward or prompts cannot be loaded.
    #[error(transparent)]
    Registry(#[from] stackelberg_registry::Error),

    /// A model failed.
    #[error(transparent)]
    Engine(#[from] stackelberg_engine::Error),

    /// Decoding failed.
    #[error(transparent)]
    Decoding(#[from] stackelberg_decoding::Error),

    /// Rollouts or the training of a value head failed.
    #[error(transparent)]
    Learning(#[from] stackelberg_learning::Error),

    /// Measuring or the report failed.
    #[error(transparent)]
    Evaluation(#[from] stackelberg_evaluation::Error),

    /// A setting of a shaping is out of range.
    #[error(transparent)]
    Shaping(#[from] stackelberg_shaping::Error),
}

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Adds the place to an error.
pub(crate) trait Context<T> {
    /// Adds a place.
    fn context(self, place: impl Display) -> Result<T>;

    /// Adds a place that is computed only in case of an error.
    fn with_context<D: Display>(self, place: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, place: impl Display) -> Result<T> {
        self.with_context(|| place)
    }

    fn with_context<D: Display>(self, place: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| Error::Within {
            place: place().to_string(),
            source: Box::new(error.into()),
        })
    }
}

/// An error that names what is wrong and what to do.
pub(crate) fn invalid<T>(problem: impl Into<String>) -> Result<T> {
    Err(Error::Invalid(problem.into()))
}
