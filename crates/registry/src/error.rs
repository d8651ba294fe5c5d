//! What can be wrong with a reference.

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

    /// A name means nothing, or not what is asked for.
    #[error("{0}")]
    Name(String),

    /// A text cannot be scored.
    #[error("{0}")]
    Text(String),

    /// An error with the place where it happened.
    #[error("{place}")]
    Within {
        /// The name, or what was done.
        place: String,
        /// What went wrong.
        source: Box<Error>,
    },
}

/// What functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The same, with the place where it happened.
    pub(crate) fn within(self, place: impl Into<String>) -> Self {
        Self::Within { place: place.into(), source: Box::new(self) }
    }
}
