//! Errors about files.

use std::fmt::Display;
use std::io;
use std::path::Path;

use crate::name::name_of;

/// Why a file could not be read or written. Each variant names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be opened, read or decompressed.
    #[error("cannot read {file}: {source}")]
    Read {
        /// The path, `<stdin>` for `-`.
        file: String,
        /// The error of the operating system.
        source: io::Error,
    },

    /// A file cannot be written. No partial file is left.
    #[error("cannot write {file}: {source}")]
    Write {
        /// The path, `standard output` for `-`.
        file: String,
        /// The error of the operating system.
        source: io::Error,
    },

    /// A line is malformed.
    #[error("{file}:{line}: {problem}")]
    Line {
        /// The path given.
        file: String,
        /// Line number, from 1.
        line: usize,
        /// The field, what is wrong with it and how to fix it.
        problem: String,
    },

    /// A file has no rows.
    #[error("{file} holds no {what}: is it the right file?")]
    NoRows {
        /// The path given.
        file: String,
        /// `pairs`, `rated texts`, `prompts` or `answers`.
        what: &'static str,
    },

    /// A file or folder is invalid.
    #[error("{file}: {problem}")]
    File {
        /// The path given.
        file: String,
        /// What is wrong and how to fix it.
        problem: String,
    },

    /// Two runs have responses to different prompts.
    #[error("{first} and {second} do not answer the same prompts: {problem}")]
    Unpaired {
        /// One run.
        first: String,
        /// The other.
        second: String,
        /// Which prompts differ.
        problem: String,
    },
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An [`Error::Read`] of this path.
    pub fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { file: name_of(path), source }
    }

    /// An [`Error::Write`] of this path.
    pub fn write(path: &Path, source: impl Into<io::Error>) -> Self {
        let standard = path == Path::new("-");
        let file = if standard { "standard output".to_owned() } else { path.display().to_string() };
        Self::Write { file, source: source.into() }
    }

    /// An [`Error::Line`].
    pub fn line(file: &str, line: usize, problem: impl Display) -> Self {
        Self::Line { file: file.to_owned(), line, problem: problem.to_string() }
    }

    /// An [`Error::File`] of this path.
    pub fn file(path: &Path, problem: impl Display) -> Self {
        Self::File { file: path.display().to_string(), problem: problem.to_string() }
    }
}
