//! Ctrl-C and termination signals, for all commands.

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, OnceLock};

use anyhow::{Context, Result};
use stackelberg_decoding::Cancel;

/// Cancelled by the first Ctrl-C.
static CANCEL: LazyLock<Cancel> = LazyLock::new(Cancel::new);

/// The unfinished output file of a command that keeps nothing when it is interrupted. While it is set, the first Ctrl-C
/// removes it and ends the process.
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Returns a token that the first Ctrl-C cancels. A second Ctrl-C ends the process.
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

/// Makes Ctrl-C remove this unfinished file and end the process, until [`forget`] is called.
pub(crate) fn remove_unfinished(path: &Path) -> Result<()> {
    if let Ok(mut unfinished) = UNFINISHED.lock() {
        *unfinished = Some(path.to_owned());
    }
    watch().map(drop)
}

/// Ends [`remove_unfinished`]: the file is complete.
pub(crate) fn forget() {
    if let Ok(mut unfinished) = UNFINISHED.lock() {
        *unfinished = None;
    }
}

/// The error that ends a command after Ctrl-C, with exit code 130.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Interrupted(pub(crate) String);
