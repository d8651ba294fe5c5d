//! The weight files of a checkpoint.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use safetensors::tensor::Metadata;

use crate::error::{Error, Result};

/// The weight files of a folder: `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
///
/// # Errors
/// The folder has neither, a shard is missing, or the index is malformed.
pub fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let single = folder.join("model.safetensors");
    let index = folder.join("model.safetensors.index.json");
    if index.is_file() {
        return shards(folder, &index);
    }
    if single.is_file() {
        return Ok(vec![single]);
    }
    let pickle =
        |file: &Path| file.extension().is_some_and(|end| ["bin", "pt", "pth"].iter().any(|e| end == *e));
    let mut files = std::fs::read_dir(folder).map_err(Error::read(folder))?.flatten();
    let what = match files.any(|file| pickle(&file.path())) {
        true => "the weights are a pickle (.bin, .pt), which can run code; convert them to safetensors",
        false => "neither model.safetensors nor model.safetensors.index.json is there",
    };
    Err(Error::invalid(folder, what))
}

fn shards(folder: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string(index).map_err(Error::read(index))?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| Error::invalid(index, e))?;
    let map: HashMap<String, String> =
        serde_json::from_value(value["weight_map"].clone()).map_err(|e| Error::invalid(index, e))?;
    let mut names: Vec<&String> = map.values().collect();
    names.sort_unstable();
    names.dedup();
    if let Some(name) = names.iter().find(|name| name.contains(['/', '\\'])) {
        return Err(Error::invalid(index, format!("names the shard '{name}', outside its own folder")));
    }
    let files: Vec<PathBuf> = names.into_iter().map(|name| folder.join(name)).collect();
    match files.iter().find(|file| !file.is_file()) {
        Some(file) => Err(Error::invalid(index, format!("the shard {} is not there", file.display()))),
        None => Ok(files),
    }
}

/// The largest header of a safetensors file that is read, in bytes.
const HEADER: u64 = 100 << 20;

/// The header of a safetensors file, and the offset in bytes at which its data begin.
///
/// # Errors
/// The file cannot be read, or is not a whole safetensors file.
pub fn safetensors_header(path: &Path, file: &mut File) -> Result<(u64, Metadata)> {
    let broken = |what: String| {
        Error::invalid(path, format!("not a whole safetensors file ({what}): download it again"))
    };
    let size = file.seek(std::io::SeekFrom::End(0)).map_err(Error::read(path))?;
    file.rewind().map_err(Error::read(path))?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| broken("no header".into()))?;
    let header = u64::from_le_bytes(length);
    if header > size.saturating_sub(8).min(HEADER) {
        return Err(broken(format!("a header of {header} bytes in a file of {size}")));
    }
    let mut bytes = vec![0; header as usize];
    file.read_exact(&mut bytes).map_err(|_| broken("a cut header".into()))?;
    let metadata: Metadata = serde_json::from_slice(&bytes).map_err(|e| broken(e.to_string()))?;
    let needed = (8 + header).saturating_add(metadata.data_len() as u64);
    if needed > size {
        return Err(broken(format!("{needed} bytes are announced, {size} are there")));
    }
    Ok((8 + header, metadata))
}
