//! Files that are written whole or not at all.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use crate::error::Error;

/// A finished file next to `path`, not yet under its name.
pub(crate) fn staged(path: &Path, bytes: &[u8]) -> Result<NamedTempFile, Error> {
    let folder = folder(path);
    let write = || -> io::Result<NamedTempFile> {
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        {
            // As any new file, less the umask; temporary files are private otherwise.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let prefix = unfinished(path);
        let mut file = builder.prefix(&prefix).suffix(".partial").tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        Ok(file)
    };
    write().map_err(|source| Error::Write { file: path.display().to_string(), source })
}

pub(crate) fn replace(file: NamedTempFile, path: &Path) -> Result<(), Error> {
    file.persist(path)
        .map(drop)
        .map_err(|e| Error::Write { file: path.display().to_string(), source: e.error })
}

/// Writes a file whole.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace(staged(path, bytes)?, path)
}

/// Writes a file whole, unless another process was faster.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    match staged(path, bytes)?.persist_noclobber(path) {
        Err(e) if e.error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::Write { file: path.display().to_string(), source: e.error })
        }
        _ => Ok(()),
    }
}

/// Removes what a killed run left unfinished of a file.
///
/// # Errors
/// Its folder cannot be read, or a file in it cannot be removed.
pub fn sweep(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Write { file: path.display().to_string(), source };
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

/// How the names of a file's unfinished forms begin.
fn unfinished(path: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push("-");
    prefix
}
