//! Hashes that identify rewards.

use stackelberg_data::hash::{Hash, sha256, sha256_file};
use stackelberg_engine::fingerprint;
use stackelberg_remote::HttpReward;

use crate::builtin::Builtin;
use crate::error::{Error, Result};
use crate::names::{combination, shown, split_format, split_label};
use crate::registry::Registry;

impl Registry {
    /// The hash of a reward: the SHA-256 of a head's file, the fingerprint of a model, or the hash of a combination's
    /// expression and parts. The text format and the label enter the hash.
    ///
    /// # Errors
    /// The name is malformed, or its file cannot be fetched or read.
    pub fn reward_hash(&self, name: &str) -> Result<String> {
        let combination = combination(name)?;
        if let Some(name) = combination.only() {
            return self.one_hash(name);
        }
        let mut hash = Hash::new();
        hash.update(combination.renamed(hashed).to_string());
        for name in combination.names() {
            hash.update(self.one_hash(name)?);
        }
        Ok(hash.hex())
    }

    fn one_hash(&self, name: &str) -> Result<String> {
        let (format, bare) = split_format(name);
        let hash = self.file_hash(bare)?;
        // Another text format or label is another reward, even if the file is the same.
        if format.is_none() && split_label(bare).1.is_none() {
            return Ok(hash);
        }
        Ok(sha256(format!("{}\n{hash}", hashed(name))))
    }

    fn file_hash(&self, name: &str) -> Result<String> {
        if let Some(builtin) = Builtin::find(name) {
            return Ok(sha256(builtin.bytes));
        }
        // Programs and servers cannot be hashed, so their name is.
        if name.starts_with("program:") || HttpReward::is_address(name) {
            return Ok(sha256(hashed(name)));
        }
        let path = self.fetch(split_label(name).0)?;
        if path.is_dir() {
            return Ok(fingerprint(&path)?);
        }
        sha256_file(&path).map_err(|e| Error::from(stackelberg_data::Error::read(&path, e)))
    }
}

/// A name as it enters hashes: another password or key of a server does not make another reward.
fn hashed(name: &str) -> String {
    if HttpReward::is_address(split_format(name).1) { shown(name) } else { name.to_owned() }
}
