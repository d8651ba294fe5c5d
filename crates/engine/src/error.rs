//! Errors of models, tokenizers and rewards.

use std::path::{Path, PathBuf};

/// Why a model, a tokenizer or a reward could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system message is given for a prompt that has one.
    #[error("the messages have a system message already: leave out --system, or remove that message")]
    SystemTwice,

    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },

    /// The content of a file is not valid.
    #[error("{}: {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },

    /// The checkpoint has an architecture that this engine does not support.
    #[error("{}: architecture '{found}' is not supported; supported are {supported}", path.display())]
    Architecture {
        /// The file that names it.
        path: PathBuf,
        /// The architecture's name.
        found: String,
        /// The supported architectures.
        supported: String,
    },

    /// The weights lack a tensor that the architecture needs.
    #[error("{}: the tensor '{name}' is missing: the download is incomplete or the model is of another architecture", path.display())]
    MissingTensor {
        /// The file or folder with the weights.
        path: PathBuf,
        /// The tensor's name there.
        name: String,
    },

    /// A tensor has another shape than the configuration says.
    #[error("{}: the tensor '{name}' has shape {found:?} where the configuration says {expected:?}", path.display())]
    TensorShape {
        /// The file or folder with the weights.
        path: PathBuf,
        /// The tensor's name there.
        name: String,
        /// The tensor's shape.
        found: Vec<usize>,
        /// The shape according to the configuration.
        expected: Vec<usize>,
    },

    /// There are more tokens than the model's context can hold.
    #[error(
        "{tokens} tokens do not fit the model's context of {context}: shorten the prompt or the answer"
    )]
    Context {
        /// The number of tokens.
        tokens: usize,
        /// The maximum number of tokens.
        context: usize,
    },

    /// There are more tokens than a reward model's context can hold.
    #[error(
        "{}: {tokens} tokens do not fit this reward's context of {context}: shorten the prompt or the answer",
        path.display()
    )]
    RewardContext {
        /// The reward's file or folder.
        path: PathBuf,
        /// The number of tokens.
        tokens: usize,
        /// The maximum number of tokens.
        context: usize,
    },

    /// There is no token to run the model on.
    #[error("no tokens: a prompt must hold at least one")]
    NoTokens,

    /// Hidden states have another width than the reward expects.
    #[error("hidden states of width {found}, where the reward reads {expected}")]
    Width {
        /// Width of the hidden states.
        found: usize,
        /// Width that the reward expects.
        expected: usize,
    },

    /// A branch does not exist, or it does not belong to this state of the prefix.
    #[error(
        "branch {chosen} of {tokens} was computed for a prefix of {behind} tokens and does not fit this prefix of {len}"
    )]
    NoBranch {
        /// Index of the branch.
        chosen: usize,
        /// Number of branches.
        tokens: usize,
        /// Length of the prefix for which the branches were computed.
        behind: usize,
        /// Length of this prefix.
        len: usize,
    },

    /// A device is missing, or it does not support what was requested.
    #[error("{place}: {what}")]
    Device {
        /// The device's name.
        place: String,
        /// What is wrong and what to do.
        what: String,
    },

    /// A model that others use cannot be changed.
    #[error("the model is in use: choose the dtype of keys and values right after it is loaded")]
    Shared,

    /// A prefix was prefilled on another device than the model's, or with another format of keys and values.
    #[error(
        "the prefix was prefilled on another device or with other keys and values: prefill it again with this model"
    )]
    OtherDevice,

    /// A token is not in the vocabulary.
    #[error("token {token} is outside the vocabulary of {vocabulary}")]
    Token {
        /// The token's ID.
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

    /// A reward is not valid or does not fit the policy.
    #[error("{}: {what}", path.display())]
    Reward {
        /// The reward's file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },

    /// A reward that reads text was given the prompt's tokens without the prompt.
    #[error("this reward reads text: it needs the prompt itself, not only its tokens")]
    NoPrompt,

    /// A reward reads the hidden states of a policy that a server runs.
    #[error(
        "this reward reads the policy's hidden states, which a policy on a server does not give for whole texts: use a \
         reward that reads text (a classifier or reward model, a program, a server, or a head on an embedder such as \
         harmless-minilm)"
    )]
    NoHiddenStates,

    /// A program or a server that scores texts failed.
    #[error("{0}")]
    Scorer(String),

    /// A scorer of the calling program failed. The error is the program's own, so that it can be given back unchanged.
    #[error("{0}")]
    Callback(Box<dyn std::error::Error + Send + Sync>),

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

/// Runs a parser of another library on untrusted input. Returns `None` if it panics.
pub(crate) fn unwinding<T>(read: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).ok()
}

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;
