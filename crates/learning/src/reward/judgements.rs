//! Files of judgements: preference pairs, or rated texts.

use std::path::{Path, PathBuf};

use stackelberg_data::{Pair, Rated, read_pairs, read_rated};
use stackelberg_registry::Registry;

use crate::error::Error;

/// Judgements to train on, and others to measure the head on.
pub struct Judgements {
    /// Each file's name, its content, and whether it is trained on.
    pub(super) files: Vec<(String, Judged, bool)>,
}

/// One file of preference pairs or ratings.
pub(super) enum Judged {
    Pairs(Vec<Pair>),
    Rated(Vec<Rated>),
}

impl Judgements {
    /// Reads files, or references to files. The held-out ones are of the same kind as those to train on: pairs if there are
    /// any, else rated texts.
    ///
    /// # Errors
    /// There is nothing to train on. A file cannot be fetched or read, or a line is malformed; the error names file, line and
    /// field.
    pub fn read(
        registry: &Registry,
        pairs: &[String],
        rated: &[String],
        held_out: &[String],
    ) -> Result<Self, Error> {
        let paired = !pairs.is_empty();
        let training = if paired { pairs } else { rated };
        if training.is_empty() {
            return Err(Error::NoJudgements);
        }
        let mut files = Vec::new();
        for (names, trained_on) in [(training, true), (held_out, false)] {
            for reference in names {
                let file = match Path::new(reference).exists() {
                    true => PathBuf::from(reference),
                    false => registry.fetch(reference)?,
                };
                let judged = match paired {
                    true => Judged::Pairs(read_pairs(&file)?),
                    false => Judged::Rated(read_rated(&file)?),
                };
                files.push((name(&file), judged, trained_on));
            }
        }
        Ok(Self { files })
    }
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned()
}
