//! Waiting without the GIL, with Python's signals handled meanwhile, and only in the process that owns the threads.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::{PyResult, Python};

use super::failure::Failure;

/// How long a signal waits at most, such as that of Ctrl-C.
const SIGNALS: Duration = Duration::from_millis(50);

/// The process that has used the engine; 0 if none has.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Whether this process may use the engine. The first one that asks may. Threads do not survive a fork, so that a forked child
/// would wait for them forever.
pub(crate) fn is_owner() -> bool {
    let own = std::process::id();
    match OWNER.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => true,
        Err(owner) => owner == own,
    }
}

/// Refuses forked children.
///
/// # Errors
/// The engine belongs to the parent process.
pub(crate) fn claim() -> PyResult<()> {
    if is_owner() {
        return Ok(());
    }
    Err(PyRuntimeError::new_err(
        "a forked process cannot use models, because the parent process has used them and their threads are not forked: start \
         processes with the method 'spawn', or load models in the child process only",
    ))
}

/// The next message; `None` if there are no more.
///
/// # Errors
/// A Python signal handler raises an exception, such as `KeyboardInterrupt`.
pub(crate) fn receive<T: Send>(py: Python<'_>, from: &Mutex<Receiver<T>>) -> PyResult<Option<T>> {
    loop {
        let received = py.detach(|| {
            let from = from.lock().unwrap_or_else(PoisonError::into_inner);
            from.recv_timeout(SIGNALS)
        });
        match received {
            Ok(message) => return Ok(Some(message)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
        }
    }
}

/// The result of work that is done on a thread of its own.
///
/// # Errors
/// The work fails or panics. A Python signal handler raises an exception: the work ends on its own.
pub(crate) fn interruptible<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> PyResult<T> {
    let (sender, received) = channel();
    Builder::new().name("work".to_owned()).spawn(move || {
        // Nobody waits any more after a signal.
        let _ = sender.send(work());
    })?;
    let outcome = receive(py, &Mutex::new(received))?;
    Ok(outcome.unwrap_or_else(|| Err(Failure::Ended("it panicked".to_owned())))?)
}
