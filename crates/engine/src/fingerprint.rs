//! Fingerprints of model weights.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use stackelberg_data::hash::Hash;

use crate::error::{Error, Result};
use crate::model::weight_files;

/// A name for the weights of a model: the SHA-256, in hexadecimal, of a sample of each weight file. The sample consists
/// of the file's size, 1 MiB at its start, 1 MiB at its end and 64 blocks of 4 KiB between. A hash of all bytes would
/// take longer than loading a large model, and different weights differ almost everywhere.
///
/// # Errors
/// A file cannot be read.
pub fn fingerprint(path: &Path) -> Result<String> {
    let files = if path.is_dir() { weight_files(path)? } else { vec![path.to_owned()] };
    let mut hash = Hash::new();
    for file in files {
        add_sample(&file, &mut hash).map_err(Error::read(&file))?;
    }
    Ok(hash.hex())
}

fn add_sample(path: &Path, hash: &mut Hash) -> std::io::Result<()> {
    const END: u64 = 1 << 20;
    const BLOCK: u64 = 4096;
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    hash.update(size.to_le_bytes());
    let mut spans = vec![(0, END)];
    spans.extend((1..=64).map(|i| (size / 65 * i, BLOCK)));
    spans.push((size.saturating_sub(END), END));
    for (at, length) in spans {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(at))?;
        file.by_ref().take(length).read_to_end(&mut bytes)?;
        hash.update(&bytes);
    }
    Ok(())
}
