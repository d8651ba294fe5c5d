//! Ctrl-C and its like, for every command in one place.

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, OnceLock};

use anyhow::{Context, Result};
use stackelberg_decoding::Cancel;

/// Cancelled by the first Ctrl-C.
static CANCEL: LazyLock<Cancel> = LazyLock::new(Cancel::new);

/// An unfinished file that is removed, where a command has nothing to keep: then the first Ctrl-C ends it.
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Has the first Ctrl-C cancel the token that is given back, and a second one end the process.
pub(crate) fn watch() -> Result<Cancel> {
    static WATCHING: OnceLock<()> = OnceLock::new();
    if WATCHING.set(()).is_ok() {
        ctrlc::set_handler(|| {
            let unfinished = UNFINISHED.lock().ok().and_then(|mut path| path.take());
            if let Some(path) = &unfinished {
                let _ = std::fs::remove_file(path);
            }
            if CANCEL.cancel() || unfinished.is_some() {
                std::process::exit(130);
            }
        })
        .context("cannot watch for Ctrl-C")?;
    }
    Ok(CANCEL.clone())
}

/// Has Ctrl-C remove this unfinished file and end the process, until [`forget`] is called.
pub(crate) fn remove_unfinished(path: &Path) -> Result<()> {
    if let Ok(mut unfinished) = UNFINISHED.lock() {
        *unfinished = Some(path.to_owned());
    }
    watch().map(drop)
}

/// The file has its name now.
pub(crate) fn forget() {
    if let Ok(mut unfinished) = UNFINISHED.lock() {
        *unfinished = None;
    }
}

/// What ends a command after Ctrl-C, with exit code 130.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Interrupted(pub(crate) String);
