//! What can go wrong with models, tokenizers and rewards.

use std::path::{Path, PathBuf};

use crate::place::Place;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// A file's content is not what it should be.
    #[error("{}: {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },

    /// An architecture that this engine does not have.
    #[error("{}: architecture '{found}' is not supported; supported are {supported}", path.display())]
    Architecture {
        /// The file that names it.
        path: PathBuf,
        /// The architecture named.
        found: String,
        /// Those that there are.
        supported: String,
    },

    /// A tensor that the architecture needs is not in the weights.
    #[error("{}: the tensor '{name}' is missing: the download is incomplete or the model is of another architecture", path.display())]
    MissingTensor {
        /// The file or folder with the weights.
        path: PathBuf,
        /// The tensor's name there.
        name: String,
    },

    /// A tensor of another shape than the configuration says.
    #[error("{}: the tensor '{name}' has shape {found:?} where the configuration says {expected:?}", path.display())]
    TensorShape {
        /// The file or folder with the weights.
        path: PathBuf,
        /// The tensor's name there.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that fits the configuration.
        expected: Vec<usize>,
    },

    /// More tokens than the model's context holds.
    #[error(
        "{tokens} tokens do not fit the model's context of {context}: shorten the prompt or the answer"
    )]
    Context {
        /// Tokens asked for.
        tokens: usize,
        /// Tokens that fit.
        context: usize,
    },

    /// No token to run the model on.
    #[error("no tokens: a prompt must hold at least one")]
    NoTokens,

    /// Hidden states of another width than the reward reads.
    #[error("hidden states of width {found}, where the reward reads {expected}")]
    Width {
        /// Their width.
        found: usize,
        /// The reward's.
        expected: usize,
    },

    /// A branch that is not there, or no longer behind this prefix.
    #[error("branch {chosen} of {tokens}, run behind {behind} tokens, does not fit a prefix of {len}")]
    NoBranch {
        /// The branch asked for.
        chosen: usize,
        /// How many there are.
        tokens: usize,
        /// Tokens that they were run behind.
        behind: usize,
        /// Tokens of the prefix.
        len: usize,
    },

    /// A device that is not there, or cannot do what it should.
    #[error("{place}: {what}")]
    Place {
        /// Where the model should run.
        place: Place,
        /// What is wrong and what to do.
        what: String,
    },

    /// A prefix that a model in another place has read.
    #[error("a prefix that was read on another device: read it again with this model")]
    OtherDevice,

    /// A token that the vocabulary does not have.
    #[error("token {token} is outside the vocabulary of {vocabulary}")]
    Token {
        /// The token's number.
        token: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },

    /// The tokenizer failed.
    #[error("tokenizer: {0}")]
    Tokenizer(String),

    /// The chat template failed.
    #[error("chat template: {0}")]
    Template(String),

    /// A reward that does not fit the policy.
    #[error("{}: {what}", path.display())]
    Reward {
        /// The reward's file or folder.
        path: PathBuf,
        /// What does not fit and what to do.
        what: String,
    },

    /// A reward that reads text was not told what was asked.
    #[error("this reward reads text: it must be told what was asked, not only its tokens")]
    NoPrompt,

    /// A program or a server that scores texts failed.
    #[error("{0}")]
    Scorer(String),

    /// The tensor library failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    pub(crate) fn invalid(path: &Path, what: impl std::fmt::Display) -> Self {
        Self::Invalid { path: path.to_owned(), what: what.to_string() }
    }

    pub(crate) fn reward(path: &Path, what: impl std::fmt::Display) -> Self {
        Self::Reward { path: path.to_owned(), what: what.to_string() }
    }

    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Read { path: path.to_owned(), source }
    }
}

/// Runs a library's reader of files from strangers; `None` if it panics over what it finds there.
pub(crate) fn unwinding<T>(read: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).ok()
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;
