//! Temporary files and helpers for assertions.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::{Compression, write::GzEncoder};
use stackelberg_data::{Conversation, Error};
use tempfile::TempDir;

pub fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

pub fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn turns(conversation: &Conversation) -> Vec<(&str, &str)> {
    conversation.messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect()
}

/// The error message without the folder's path.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(read: impl Fn(&Path) -> Result<T, Error>, bytes: &[u8]) -> String {
    let (folder, path) = file("f.jsonl", bytes);
    read(&path).unwrap_err().to_string().replace(&format!("{}/", folder.path().display()), "")
}
