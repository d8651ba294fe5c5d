//! What can be wrong with a file.

use std::fmt::Display;
use std::io;
use std::path::Path;

use crate::name::name_of;

/// Why a file could not be read or written. Every variant names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be opened, read or unpacked.
    #[error("cannot read {file}: {source}")]
    Read {
        /// The path given, `<stdin>` for `-`.
        file: String,
        /// What the system said.
        source: io::Error,
    },

    /// A file cannot be written. Nothing is left half-written.
    #[error("cannot write {file}: {source}")]
    Write {
        /// The path given, `standard output` for `-`.
        file: String,
        /// What the system said.
        source: io::Error,
    },

    /// A line is not what it should be.
    #[error("{file}:{line}: {problem}")]
    Line {
        /// The path given.
        file: String,
        /// From 1.
        line: usize,
        /// The field, what is wrong with it and what to do.
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

    /// A file or folder is not what it should be.
    #[error("{file}: {problem}")]
    File {
        /// The path given.
        file: String,
        /// What is wrong and what to do.
        problem: String,
    },

    /// Two runs did not answer the same prompts.
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

/// What functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A file that cannot be read.
    pub fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { file: name_of(path), source }
    }

    /// A file that cannot be written.
    pub fn write(path: &Path, source: impl Into<io::Error>) -> Self {
        let standard = path == Path::new("-");
        let file = if standard { "standard output".to_owned() } else { path.display().to_string() };
        Self::Write { file, source: source.into() }
    }

    /// A line that is not what it should be.
    pub fn line(file: &str, line: usize, problem: impl Display) -> Self {
        Self::Line { file: file.to_owned(), line, problem: problem.to_string() }
    }

    /// A file that is not what it should be.
    pub fn file(path: &Path, problem: impl Display) -> Self {
        Self::File { file: path.display().to_string(), problem: problem.to_string() }
    }
}
