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

    /// Something named cannot be loaded.
    #[error(transparent)]
    Registry(#[from] stackelberg_registry::Error),

    /// A reward cannot score an answer.
    #[error("answer '{id}'")]
    Answer {
        /// The answer's id.
        id: String,
        /// Why.
        source: Box<stackelberg_registry::Error>,
    },

    /// The reward of an answer is NaN or infinite.
    #[error("the reward '{reward}' of answer '{id}' is not a finite number: it is broken for this text")]
    NotFinite {
        /// The reward's name.
        reward: String,
        /// The answer's id.
        id: String,
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
