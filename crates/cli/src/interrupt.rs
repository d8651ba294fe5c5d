//! Ctrl-C and other signals that end a command.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{LazyLock, Mutex, OnceLock};

use anyhow::{Context, Result};
use stackelberg_decoding::Cancel;

/// Cancelled by the first signal.
static CANCEL: LazyLock<Cancel> = LazyLock::new(Cancel::new);

/// The last signal.
static SIGNAL: AtomicI32 = AtomicI32::new(2);

/// The unfinished output file of a command that keeps nothing when it is interrupted. While it is set, the first signal
/// removes it and ends the process.
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Returns a token that Ctrl-C, SIGTERM or SIGHUP cancels. A second signal ends the process. A SIGHUP that the parent
/// process has made this one ignore, as nohup does, stays ignored.
pub(crate) fn watch() -> Result<Cancel> {
    static WATCHING: OnceLock<()> = OnceLock::new();
    if WATCHING.set(()).is_ok() {
        heed().context("cannot watch for Ctrl-C")?;
    }
    Ok(CANCEL.clone())
}

/// What a signal does.
fn end(signal: i32) {
    SIGNAL.store(signal, Ordering::Relaxed);
    let unfinished = UNFINISHED.lock().ok().and_then(|mut path| path.take());
    if let Some(path) = &unfinished {
        let _ = std::fs::remove_file(path);
    }
    if CANCEL.cancel() || unfinished.is_some() {
        std::process::exit(exit_code().into());
    }
}

/// Calls [`end`] at each signal.
#[cfg(unix)]
fn heed() -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new(heeded())?;
    std::thread::spawn(move || signals.forever().for_each(end));
    Ok(())
}

#[cfg(not(unix))]
fn heed() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| end(2))
}

/// The signals that end a command: SIGHUP only if it is known not to be ignored. Shells make background jobs ignore Ctrl-C;
/// a SIGINT that is sent to such a job ends it all the same, so that it can be resumed.
#[cfg(unix)]
fn heeded() -> Vec<i32> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let hangup = mask.is_some_and(|mask| mask & (1 << (SIGHUP - 1)) == 0);
    [SIGINT, SIGTERM].into_iter().chain(hangup.then_some(SIGHUP)).collect()
}

/// The exit code after a signal: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
pub(crate) fn exit_code() -> u8 {
    128 + SIGNAL.load(Ordering::Relaxed) as u8
}

/// Makes a signal remove this unfinished file and end the process, until [`forget`] is called.
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

/// The error that ends a command after a signal.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Interrupted(pub(crate) String);
