//! One shard of a dataset, as read.

use std::fs;
use std::path::PathBuf;

use stackelberg_data::Error as FileError;
use stackelberg_shaping::Rule;

use super::columns::ShapedColumns;
use super::hidden::Hidden;
use super::row::Row;
use crate::error::Error;

/// The rows of a shard, and where its hidden states are.
#[derive(Debug)]
pub struct Shard {
    /// The shard's number.
    pub number: usize,
    /// Its samples, prompt by prompt in order.
    pub rows: Vec<Row>,
    /// Their shaped rewards, rule by rule.
    pub shaped: Vec<ShapedColumns>,
    pub(super) rows_file: PathBuf,
    /// The file, its length and its SHA-256.
    pub(super) hidden: Option<(PathBuf, u64, String)>,
    pub(super) width: usize,
}

impl Shard {
    /// Shaped rewards of its samples under a rule, if they were added.
    pub fn shaped(&self, rule: Rule) -> Option<&ShapedColumns> {
        self.shaped.iter().find(|columns| columns.rule == rule)
    }

    /// Its prompts: the samples of each.
    pub fn prompts(&self) -> impl Iterator<Item = &[Row]> {
        self.rows.chunk_by(|a, b| a.prompt_id == b.prompt_id)
    }

    /// The hidden states of its samples.
    ///
    /// # Errors
    /// The dataset has none, or the file is not whole or not that of these rows.
    pub fn hidden(&self) -> Result<Hidden, Error> {
        let Some((path, _, hash)) = &self.hidden else {
            let problem = "the dataset has no hidden states: roll out without --no-hidden".to_owned();
            return Err(Error::Dataset { file: self.rows_file.display().to_string(), problem });
        };
        Hidden::read(path, hash, &self.rows, self.width)
    }

    /// Its file, for messages.
    pub(super) fn file(&self) -> String {
        self.rows_file.display().to_string()
    }

    /// Whether the file of hidden states is as long as it was.
    pub(super) fn check_length(&self) -> Result<(), Error> {
        let Some((path, bytes, _)) = &self.hidden else { return Ok(()) };
        let file = path.display().to_string();
        let about = fs::metadata(path).map_err(|source| FileError::read(path, source))?;
        if about.len() == *bytes {
            return Ok(());
        }
        let problem = format!("it has {} bytes of {bytes}", about.len());
        Err(Error::Shard { file, problem })
    }
}
