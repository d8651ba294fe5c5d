//! Errors of loading and scoring.

use std::fmt::Display;
use std::path::Path;

/// Why something could not be loaded or scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A reference cannot be fetched.
    #[error(transparent)]
    Hub(#[from] stackelberg_hub::SourceError),

    /// A model or reward cannot be loaded, or fails on a text.
    #[error(transparent)]
    Engine(#[from] stackelberg_engine::Error),

    /// A file cannot be read.
    #[error(transparent)]
    Data(#[from] stackelberg_data::Error),

    /// A name is unknown, malformed, or not the name of the expected kind.
    #[error("{0}")]
    Name(String),

    /// A text cannot be scored.
    #[error("{0}")]
    Text(String),

    /// An error with its place.
    #[error("{place}")]
    Within {
        /// The name, or the operation.
        place: String,
        /// What went wrong.
        source: Box<Error>,
    },
}

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A file that has a problem.
    pub(crate) fn invalid(path: &Path, problem: impl Display) -> Self {
        stackelberg_data::Error::file(path, problem).into()
    }

    /// Adds the place to the error.
    pub(crate) fn within(self, place: impl Into<String>) -> Self {
        Self::Within { place: place.into(), source: Box::new(self) }
    }
}
