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

    /// Answers of a run cannot be measured.
    #[error("{run}")]
    Run {
        /// The run's name.
        run: String,
        /// Why.
        source: Box<Error>,
    },

    /// The reward of an answer is NaN or infinite.
    #[error("the reward '{reward}' of answer '{id}' is not a finite number: it is broken for this text")]
    NotFinite {
        /// The reward's name.
        reward: String,
        /// The answer's id.
        id: String,
    },

    /// The parts of a report are inconsistent.
    #[error("the report cannot be drawn: {problem}")]
    Report {
        /// The part, and what is wrong with it.
        problem: String,
    },
}

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;
