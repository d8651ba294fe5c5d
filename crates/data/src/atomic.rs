//! Atomic writes: a file appears under its name only when it is complete.
//!
//! The content is written to a temporary file in the same folder (`.NAME-XXXXXX.partial`), flushed to disk, and
//! renamed.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// A file that gets its name when it is finished. Dropping it before removes the temporary file.
#[derive(Debug)]
pub struct AtomicFile {
    unfinished: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl AtomicFile {
    /// Begins a file. An existing file is unchanged until [`AtomicFile::finish`] and keeps its permissions. If the
    /// path is a symbolic link, its target is replaced.
    ///
    /// # Errors
    /// The folder is not writable, or the path is a folder or a dangling link.
    pub fn create(path: &Path) -> Result<Self> {
        let existing = std::fs::metadata(path).ok();
        let failed = |source| Error::write(path, source);
        if existing.as_ref().is_some_and(|there| there.is_dir()) {
            return Err(failed(io::Error::other("it is a folder; name a file")));
        }
        if existing.is_none() && path.is_symlink() {
            return Err(failed(io::Error::other("it is a link to nothing")));
        }
        let place =
            if existing.is_some() { path.canonicalize().map_err(failed)? } else { path.to_owned() };
        let mut builder = tempfile::Builder::new();
        let prefix = unfinished(&place);
        builder.prefix(&prefix).suffix(".partial");
        // The permissions of any new file (minus the umask), since temporary files are private by default.
        #[cfg(unix)]
        builder.permissions(existing.map_or_else(
            || std::os::unix::fs::PermissionsExt::from_mode(0o666),
            |there| there.permissions(),
        ));
        let file = builder.tempfile_in(folder(&place)).map_err(failed)?;
        Ok(Self { unfinished: BufWriter::with_capacity(1 << 16, file), path: place })
    }

    /// Path of the temporary file.
    pub fn temporary_path(&self) -> &Path {
        self.unfinished.get_ref().path()
    }

    /// Flushes the buffer to disk and renames the file.
    ///
    /// # Errors
    /// The disk is full, or the file cannot be renamed.
    pub fn finish(self) -> Result<()> {
        let (file, path) = self.staged()?;
        file.persist(&path).map(drop).map_err(|e| Error::write(&path, e.error))
    }

    /// Like [`AtomicFile::finish`], but keeps a file that another process has created since.
    ///
    /// # Errors
    /// As [`AtomicFile::finish`].
    pub fn finish_new(self) -> Result<()> {
        let (file, path) = self.staged()?;
        match file.persist_noclobber(&path) {
            Err(e) if e.error.kind() != io::ErrorKind::AlreadyExists => {
                Err(Error::write(&path, e.error))
            }
            _ => Ok(()),
        }
    }

    fn staged(self) -> Result<(NamedTempFile, PathBuf)> {
        let Self { unfinished, path } = self;
        let file = unfinished.into_inner().map_err(|e| Error::write(&path, e.into_error()))?;
        file.as_file().sync_all().map_err(|e| Error::write(&path, e))?;
        Ok((file, path))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unfinished.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unfinished.flush()
    }
}

/// Writes `bytes` to a temporary file next to `path` and flushes it to disk, without renaming it yet.
///
/// # Errors
/// As [`AtomicFile::create`].
pub fn stage(path: &Path, bytes: &[u8]) -> Result<AtomicFile> {
    let mut file = AtomicFile::create(path)?;
    let write = |file: &mut AtomicFile| {
        file.write_all(bytes)?;
        file.flush()?;
        file.unfinished.get_ref().as_file().sync_all()
    };
    write(&mut file).map_err(|e| Error::write(path, e))?;
    Ok(file)
}

/// Writes a file atomically.
///
/// # Errors
/// As [`AtomicFile::create`] and [`AtomicFile::finish`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    stage(path, bytes)?.finish()
}

/// Writes a file atomically, but keeps a file that another process has created since.
///
/// # Errors
/// As [`write()`].
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    stage(path, bytes)?.finish_new()
}

/// Removes temporary files of `path` that a killed process left behind.
///
/// # Errors
/// The folder cannot be read, or a file in it cannot be removed.
pub fn sweep(path: &Path) -> Result<()> {
    let failed = |source| Error::write(path, source);
    let prefix = unfinished(path);
    for entry in std::fs::read_dir(folder(path)).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
            std::fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// The prefix of the temporary names of a file.
fn unfinished(path: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push("-");
    prefix
}
