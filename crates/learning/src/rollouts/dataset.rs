//! Reads and writes the folder of a dataset.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;
use stackelberg_data::{Error as FileError, atomic, hash};

use super::columns::ShapedColumns;
use super::hidden::Hidden;
use super::manifest::{Manifest, difference};
use super::part::Part;
use super::row::Row;
use super::row_file;
use super::shard::Shard;
use crate::error::Error;

/// A dataset of rollouts: a folder with a manifest and shards.
#[derive(Debug, Clone)]
pub struct Dataset {
    folder: PathBuf,
    manifest: Manifest,
}

/// Statistics of a dataset.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Number of prompts.
    pub prompts: usize,
    /// Number of samples.
    pub samples: usize,
    /// Number of tokens of all samples.
    pub tokens: usize,
    /// Number of samples that ended with an EOS token or a stop text.
    pub finished: usize,
    /// Number of prompts without such a sample.
    pub unfinished_prompts: usize,
    /// Sum and number of all rewards.
    pub rewards: (f64, usize),
}

/// Metadata keys in the Parquet file of a shard.
pub(super) const MANIFEST: &str = "stackelberg.manifest";
const NUMBER: &str = "stackelberg.shard";
const HIDDEN_BYTES: &str = "stackelberg.hidden_bytes";
const HIDDEN_HASH: &str = "stackelberg.hidden_sha256";

impl Dataset {
    /// Opens a dataset.
    ///
    /// # Errors
    /// There is no dataset, or its manifest is malformed or has no prompts.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("manifest.json");
        if !path.is_file() {
            let problem = "not a dataset of rollouts: it has no manifest.json".to_owned();
            return Err(Error::Dataset { file: folder.display().to_string(), problem });
        }
        Ok(Self { folder: folder.to_owned(), manifest: Manifest::read(&path)? })
    }

    /// Creates a dataset, or opens an existing one with the same manifest.
    ///
    /// # Errors
    /// The folder has a dataset with another manifest, or cannot be written.
    pub fn create(folder: &Path, manifest: Manifest) -> Result<Self, Error> {
        let path = folder.join("manifest.json");
        manifest.check(&path.display().to_string())?;
        let failed = |source| FileError::write(folder, source);
        fs::create_dir_all(folder).map_err(failed)?;
        if !path.exists() {
            let mut bytes = serde_json::to_vec_pretty(&manifest)
                .map_err(|source| failed(io::Error::from(source)))?;
            bytes.push(b'\n');
            atomic::write_new(&path, &bytes)?;
        }
        let there = Self::open(folder)?;
        there.same(&manifest.summary(), &folder.display().to_string())?;
        Ok(there)
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Checks that another manifest's summary, found at `place`, equals that of this dataset.
    fn same(&self, summary: &Value, place: &str) -> Result<(), Error> {
        match difference(&self.manifest.summary(), summary) {
            None => Ok(()),
            Some((field, was, is)) => {
                let (was, is) = (was.to_string(), is.to_string());
                Err(Error::OtherSettings { folder: place.to_owned(), field, was, is })
            }
        }
    }

    fn rows_file(&self, shard: usize) -> PathBuf {
        self.folder.join(format!("rollouts-{shard:05}.parquet"))
    }

    fn hidden_file(&self, shard: usize) -> PathBuf {
        self.folder.join(format!("hidden-{shard:05}.safetensors"))
    }

    /// The numbers of the missing shards.
    pub fn missing(&self) -> Vec<usize> {
        (0..self.manifest.shards()).filter(|&shard| !self.is_there(shard)).collect()
    }

    /// The numbers of prompts of a part that are done, and of all its prompts.
    pub fn progress(&self, part: Part) -> (usize, usize) {
        let prompts = |shards: &mut dyn Iterator<Item = usize>| -> usize {
            shards
                .filter(|&shard| part.has(shard))
                .map(|shard| self.manifest.prompts_of(shard).len())
                .sum()
        };
        let all = prompts(&mut (0..self.manifest.shards()));
        (all - prompts(&mut self.missing().into_iter()), all)
    }

    /// The missing shards of a part. Existing shards are read to check them.
    ///
    /// # Errors
    /// An existing shard is corrupt.
    pub(super) fn left(&self, part: Part) -> Result<Vec<usize>, Error> {
        let mut left = Vec::new();
        for shard in (0..self.manifest.shards()).filter(|&shard| part.has(shard)) {
            match self.is_there(shard) {
                true => drop(self.read(shard)?),
                false => left.push(shard),
            }
        }
        Ok(left)
    }

    fn is_there(&self, shard: usize) -> bool {
        let hidden = self.manifest.hidden.is_none() || self.hidden_file(shard).is_file();
        hidden && self.rows_file(shard).is_file()
    }

    /// Reads all shards in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Shard, Error>> {
        (0..self.manifest.shards()).map(|shard| self.read(shard))
    }

    /// Reads the rows of a shard.
    ///
    /// # Errors
    /// The shard is missing or truncated, belongs to another dataset, or has other samples than its prompts require.
    pub fn read(&self, shard: usize) -> Result<Shard, Error> {
        if !self.is_there(shard) {
            let missing = self.missing();
            let first = missing.first().copied().unwrap_or(shard);
            let (folder, shards) = (self.folder.display().to_string(), self.manifest.shards());
            return Err(Error::Unfinished { folder, missing: missing.len(), shards, first });
        }
        let path = self.rows_file(shard);
        let wrong = |problem: String| Error::Shard { file: path.display().to_string(), problem };
        let row_file::Read { rows, shaped, notes } = row_file::read(&path)?;
        let note = |key: &str| {
            let found = notes.iter().find(|note| note.key == key).and_then(|note| note.value.as_deref());
            found.ok_or_else(|| wrong(format!("its metadata has no {key}")))
        };
        let summary: Value = serde_json::from_str(note(MANIFEST)?).unwrap_or_default();
        if let Some((field, was, is)) = difference(&summary, &self.manifest.summary()) {
            return Err(wrong(format!("of another dataset: {field} is {was}, the manifest has {is}")));
        }
        if note(NUMBER)? != shard.to_string() {
            return Err(wrong(format!("it is shard {} with another file name", note(NUMBER)?)));
        }
        self.check_rows(shard, &rows).map_err(wrong)?;
        let hidden = match self.manifest.hidden {
            None => None,
            Some(_) => {
                let path = self.hidden_file(shard);
                let bytes = note(HIDDEN_BYTES)?.parse().unwrap_or_default();
                Some((path, bytes, note(HIDDEN_HASH)?.to_owned()))
            }
        };
        let width = self.manifest.hidden.unwrap_or_default();
        let shard = Shard { number: shard, rows, shaped, rows_file: path.clone(), hidden, width };
        shard.check_length()?;
        Ok(shard)
    }

    /// Checks that the rows are those of the shard's prompts, complete and in order.
    fn check_rows(&self, shard: usize, rows: &[Row]) -> Result<(), String> {
        let mut groups = rows.chunk_by(|a, b| a.prompt_id == b.prompt_id);
        for prompt in self.manifest.prompts_of(shard) {
            let id = &self.manifest.prompts.ids[prompt];
            let group = groups.next().unwrap_or_default();
            if group.first().is_none_or(|row| row.prompt_id != *id) {
                return Err(format!("the samples of prompt '{id}' are missing or out of order"));
            }
            if self.manifest.samples.is_some_and(|samples| samples != group.len()) {
                let (found, samples) = (group.len(), self.manifest.samples.unwrap_or_default());
                return Err(format!("prompt '{id}' has {found} samples, not {samples}"));
            }
            if let Some((i, row)) = (0..).zip(group).find(|(i, row)| row.sample != *i) {
                return Err(format!("prompt '{id}' has sample {} where {i} should be", row.sample));
            }
            let scored = self.manifest.reward.is_some();
            if let Some(row) = group.iter().find(|row| row.reward.is_some() != scored) {
                let has = if scored { "no reward" } else { "a reward that the manifest does not name" };
                return Err(format!("sample {} of prompt '{id}' has {has}", row.sample));
            }
        }
        match groups.next() {
            None => Ok(()),
            Some(more) => Err(format!("prompt '{}' does not belong to this shard", more[0].prompt_id)),
        }
    }

    /// Writes a shard atomically: first the hidden states, if the dataset has them, then the rows.
    ///
    /// # Errors
    /// The rows are not those of the shard's prompts, or a file cannot be written.
    pub fn write(&self, shard: usize, rows: &[Row], hidden: &Hidden) -> Result<(), Error> {
        let path = self.rows_file(shard);
        let file = path.display().to_string();
        let wrong = |problem| Error::Dataset { file: file.clone(), problem };
        self.check_rows(shard, rows).map_err(wrong)?;
        let other = |e: &dyn std::fmt::Display| io::Error::other(e.to_string());
        let failed = |source| FileError::write(&path, source);
        let mut about = None;
        if self.manifest.hidden.is_some() {
            let hidden_file = self.hidden_file(shard);
            let bytes = hidden.to_bytes().map_err(|e| failed(other(&e)))?;
            atomic::sweep(&hidden_file)?;
            atomic::write(&hidden_file, &bytes)?;
            about = Some((bytes.len() as u64, hash::sha256(&bytes)));
        }
        self.write_rows(shard, rows, &[], about)
    }

    /// Adds shaped rewards to a shard and replaces those under the same rule. The Parquet file is replaced
    /// atomically; the hidden states are unchanged.
    ///
    /// # Errors
    /// A column does not have one value per sample, or the file cannot be written.
    pub fn add_shaped(&self, shard: Shard, columns: ShapedColumns) -> Result<(), Error> {
        if let Some((found, expected)) = columns.differs_from(shard.rows.len()) {
            let (what, unit, beside) = ("shaped rewards", "rows", "the shard");
            return Err(Error::Length { what, found, unit, beside, expected });
        }
        let mut shaped = shard.shaped;
        shaped.retain(|other| other.rule != columns.rule);
        shaped.push(columns);
        shaped.sort_by_key(ShapedColumns::place);
        let hidden = shard.hidden.map(|(_, bytes, hash)| (bytes, hash));
        self.write_rows(shard.number, &shard.rows, &shaped, hidden)
    }

    /// Writes the Parquet file of a shard. `hidden` is the length and the SHA-256 of its file of hidden states.
    fn write_rows(
        &self,
        shard: usize,
        rows: &[Row],
        shaped: &[ShapedColumns],
        hidden: Option<(u64, String)>,
    ) -> Result<(), Error> {
        let mut notes =
            vec![(MANIFEST, self.manifest.summary().to_string()), (NUMBER, shard.to_string())];
        if let Some((bytes, hash)) = hidden {
            notes.push((HIDDEN_BYTES, bytes.to_string()));
            notes.push((HIDDEN_HASH, hash));
        }
        let path = self.rows_file(shard);
        let bytes = row_file::to_bytes(rows, shaped, &notes)
            .map_err(|e| FileError::write(&path, io::Error::other(e.to_string())))?;
        atomic::sweep(&path)?;
        Ok(atomic::write(&path, &bytes)?)
    }

    /// Copies missing shards from another folder. Returns the number of copied shards.
    ///
    /// # Errors
    /// The other dataset has another manifest or a corrupt shard, or a file cannot be written.
    pub fn take(&self, other: &Self) -> Result<usize, Error> {
        self.same(&other.manifest.summary(), &other.folder.display().to_string())?;
        let missing = self.missing().into_iter().filter(|&shard| other.is_there(shard));
        let mut taken = 0;
        for shard in missing {
            let from = other.read(shard)?;
            if from.hidden.is_some() {
                from.hidden()?;
            }
            let copy = |from: &Path, to: &Path| {
                let bytes = fs::read(from).map_err(|source| FileError::read(from, source))?;
                atomic::write(to, &bytes)
            };
            if let Some((path, ..)) = &from.hidden {
                copy(path, &self.hidden_file(shard))?;
            }
            copy(&from.rows_file, &self.rows_file(shard))?;
            taken += 1;
        }
        Ok(taken)
    }

    /// Reads and checks all files and returns statistics. `progress` is called after each shard.
    ///
    /// # Errors
    /// A shard is missing or corrupt.
    pub fn check(&self, progress: &mut dyn FnMut()) -> Result<Summary, Error> {
        let mut summary = Summary { prompts: self.manifest.prompts.ids.len(), ..Summary::default() };
        for shard in self.iter() {
            let shard = shard?;
            if self.manifest.hidden.is_some() {
                shard.hidden()?;
            }
            let stopped = |row: &&Row| row.finish_reason != "length";
            summary.samples += shard.rows.len();
            summary.tokens += shard.rows.iter().map(|row| row.tokens.len()).sum::<usize>();
            summary.finished += shard.rows.iter().filter(stopped).count();
            summary.unfinished_prompts +=
                shard.prompts().filter(|p| !p.iter().any(|r| stopped(&r))).count();
            for reward in shard.rows.iter().filter_map(|row| row.reward) {
                summary.rewards.0 += reward;
                summary.rewards.1 += 1;
            }
            progress();
        }
        Ok(summary)
    }
}
