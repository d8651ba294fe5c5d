//! What can be wrong with generations, settings and what judges them.

/// Why something could not be evaluated. Every variant names the thing at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written, or a line of it is malformed.
    #[error(transparent)]
    File(#[from] stackelberg_data::Error),

    /// A model failed on a text.
    #[error(transparent)]
    Engine(#[from] stackelberg_engine::Error),

    /// A report whose parts do not fit together.
    #[error("the report cannot be drawn: {problem}")]
    Report {
        /// Which part, and what is wrong with it.
        problem: String,
    },
}

/// What functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;
