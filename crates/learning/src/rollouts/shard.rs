//! One shard of a dataset, as read.

use std::fs;
use std::path::PathBuf;

use stackelberg_data::Error as FileError;
use stackelberg_shaping::Rule;

use super::columns::ShapedColumns;
use super::hidden::Hidden;
use super::row::Row;
use crate::error::Error;

/// The rows of a shard, and the path of its hidden states.
#[derive(Debug)]
pub struct Shard {
    /// Number of the shard.
    pub number: usize,
    /// The samples, in the order of the prompts.
    pub rows: Vec<Row>,
    /// The shaped rewards under each rule.
    pub shaped: Vec<ShapedColumns>,
    pub(super) rows_file: PathBuf,
    /// Path, length and SHA-256 of the file of hidden states.
    pub(super) hidden: Option<(PathBuf, u64, String)>,
    pub(super) width: usize,
}

impl Shard {
    /// The shaped rewards under a rule, if there are any.
    pub fn shaped(&self, rule: Rule) -> Option<&ShapedColumns> {
        self.shaped.iter().find(|columns| columns.rule == rule)
    }

    /// The samples of each prompt, in order.
    pub fn prompts(&self) -> impl Iterator<Item = &[Row]> {
        self.rows.chunk_by(|a, b| a.prompt_id == b.prompt_id)
    }

    /// Reads the hidden states of the samples.
    ///
    /// # Errors
    /// The dataset has no hidden states, or the file is corrupt or belongs to other rows.
    pub fn hidden(&self) -> Result<Hidden, Error> {
        let Some((path, _, hash)) = &self.hidden else {
            let problem = "the dataset has no hidden states: roll out without --no-hidden".to_owned();
            return Err(Error::Dataset { file: self.rows_file.display().to_string(), problem });
        };
        Hidden::read(path, hash, &self.rows, self.width)
    }

    /// Path of the Parquet file, for messages.
    pub(super) fn file(&self) -> String {
        self.rows_file.display().to_string()
    }

    /// Checks the length of the file of hidden states.
    pub(super) fn check_length(&self) -> Result<(), Error> {
        let Some((path, bytes, _)) = &self.hidden else { return Ok(()) };
        let file = path.display().to_string();
        let about = fs::metadata(path).map_err(|source| FileError::read(path, source))?;
        if about.len() == *bytes {
            return Ok(());
        }
        let problem = format!("it has {} bytes instead of {bytes}", about.len());
        Err(Error::Shard { file, problem })
    }
}
