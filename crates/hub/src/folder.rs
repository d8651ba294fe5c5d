//! The cache folder of packages: checksums, markers that say a path is complete, and locks.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use stackelberg_data::hash::{Hash, sha256_file};

use crate::{Progress, SourceError};

/// The variable that names the cache of packages.
pub(crate) const PACKAGES: &str = "STACKELBERG_CACHE";
/// The variable that names the cache of models from the hub.
pub(crate) const HUB: &str = "HF_HOME";

/// The SHA-256 of a folder in lower-case hexadecimal: the digest of the lines that `sha256sum` prints (digest,
/// two spaces, path relative to the folder, newline) for all its files in byte order of their paths.
///
/// # Errors
/// The folder or one of its files cannot be read.
pub fn sha256_folder(path: &Path) -> io::Result<String> {
    let mut hash = Hash::new();
    for (name, _) in files(path)? {
        hash.update(format!("{}  {name}\n", sha256_file(&path.join(&name))?));
    }
    Ok(hash.hex())
}

/// All files below a folder with their sizes in bytes, sorted by path. A file is listed as itself, named "".
fn files(path: &Path) -> io::Result<Vec<(String, u64)>> {
    fn walk(path: &Path, name: String, found: &mut Vec<(String, u64)>) -> io::Result<()> {
        let about = fs::metadata(path)?;
        if !about.is_dir() {
            found.push((name, about.len()));
            return Ok(());
        }
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let own = entry.file_name();
            let own = own.to_string_lossy();
            let below = if name.is_empty() { own.into_owned() } else { format!("{name}/{own}") };
            walk(&entry.path(), below, found)?;
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(path, String::new(), &mut found)?;
    found.sort();
    Ok(found)
}

/// The marker beside a path: `PATH.sha256`.
pub(crate) fn marker(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sha256");
    name.into()
}

/// Whether the path has a marker that agrees with its sizes and with the pinned digest, if there is one.
pub(crate) fn is_ready(path: &Path, pin: Option<&str>) -> bool {
    let Ok(marker) = fs::read_to_string(marker(path)) else { return false };
    let mut lines = marker.lines();
    let Some(digest) = lines.next() else { return false };
    let agrees = |line: &str| {
        let Some((size, name)) = line.split_once(' ') else { return false };
        let file = if name.is_empty() { path.to_owned() } else { path.join(name) };
        fs::metadata(file).is_ok_and(|about| about.is_file() && size == about.len().to_string())
    };
    let mut sizes = lines.peekable();
    pin.is_none_or(|pin| pin == digest) && sizes.peek().is_some() && sizes.all(agrees)
}

/// Hashes a path and compares the digest with the pinned one. The path is removed if they differ.
pub(crate) fn verify(
    path: &Path,
    pin: Option<&str>,
    what: &str,
    progress: &dyn Fn(Progress),
) -> Result<String, SourceError> {
    progress(Progress::Verifying { what: what.to_owned() });
    let found = if path.is_dir() { sha256_folder(path) } else { sha256_file(path) };
    let found = found.map_err(|source| SourceError::Io { path: path.to_owned(), source })?;
    match pin {
        Some(expected) if expected != found => {
            remove(path)?;
            let (what, expected) = (what.to_owned(), expected.to_owned());
            Err(SourceError::WrongSha256 { what, expected, found })
        }
        _ => Ok(found),
    }
}

/// Moves a verified path to its place and replaces what is there.
pub(crate) fn install(from: &Path, place: &Path) -> Result<(), SourceError> {
    let parent = place.parent().unwrap_or(place);
    fs::create_dir_all(parent).map_err(|e| unwritable(parent, e))?;
    remove(&marker(place))?;
    remove(place)?;
    fs::rename(from, place).map_err(|e| unwritable(place, e))
}

/// Writes the marker in one step; from then on the path counts as complete.
pub(crate) fn seal(place: &Path, digest: &str) -> Result<(), SourceError> {
    let sizes = files(place).map_err(|source| SourceError::Io { path: place.to_owned(), source })?;
    let lines: String = sizes.iter().map(|(name, size)| format!("{size} {name}\n")).collect();
    let marker = marker(place);
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(marker.parent().unwrap_or(&marker))?;
        io::Write::write_all(&mut file, format!("{digest}\n{lines}").as_bytes())?;
        file.persist(&marker)?;
        Ok(())
    };
    write().map_err(|e: io::Error| unwritable(&marker, e))
}

/// Removes a file or folder if it exists.
fn remove(path: &Path) -> Result<(), SourceError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(unwritable(path, e)),
        _ => Ok(()),
    }
}

/// Waits until no other process holds the lock file at `path`. Dropping the file releases the lock. Returns
/// `None` on a file system without locks; there two processes may both download a file, which does no harm
/// because files are renamed into place when they are complete. `variable` names the cache in errors.
pub(crate) fn lock(
    path: &Path,
    what: &str,
    variable: &'static str,
    progress: &dyn Fn(Progress),
) -> Result<Option<File>, SourceError> {
    let unwritable = |source| SourceError::CacheUnwritable { path: path.to_owned(), variable, source };
    let file = File::create(path).map_err(unwritable)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::Error(_)) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            progress(Progress::Waiting { what: what.to_owned() });
            file.lock().map_err(unwritable)?;
            Ok(Some(file))
        }
    }
}

/// The error for a path in the cache of packages that cannot be written.
pub(crate) fn unwritable(path: &Path, source: io::Error) -> SourceError {
    SourceError::CacheUnwritable { path: path.to_owned(), variable: PACKAGES, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn digests_of_a_file_and_a_folder() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("d"))?;
        fs::write(folder.path().join("d/x"), "abc")?;
        fs::write(folder.path().join("e"), "")?;
        assert_eq!(sha256_file(&folder.path().join("d/x"))?, ABC);
        let listing = format!("{ABC}  d/x\n{}  e\n", sha256_file(&folder.path().join("e"))?);
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), listing)?;
        assert_eq!(sha256_folder(folder.path())?, sha256_file(file.path())?);
        Ok(())
    }

    #[test]
    fn a_marker_vouches_for_sizes_and_pin() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("model.bin");
        fs::write(&path, "abc")?;
        assert!(!is_ready(&path, None));
        seal(&path, ABC)?;
        assert!(is_ready(&path, None) && is_ready(&path, Some(ABC)) && !is_ready(&path, Some("00")));
        fs::write(&path, "abcd")?;
        assert!(!is_ready(&path, None));
        Ok(())
    }

    #[test]
    fn a_wrong_file_is_removed() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("model.bin");
        fs::write(&path, "abc")?;
        let said = verify(&path, Some("00"), "model.bin", &|_| ()).expect_err("an error").to_string();
        assert!(said.starts_with(&format!("model.bin has sha256 {ABC}, expected 00")), "{said}");
        assert!(!path.exists());
        Ok(())
    }
}
