//! Long work on a thread of its own, which tells its caller how far it is and can be stopped.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyUserWarning;
use pyo3::types::PyAnyMethods;
use pyo3::{Py, PyAny, PyErr, PyResult, Python};
use stackelberg_decoding::Cancel;

use super::failure::Failure;
use super::thread::said;
use super::wait::receive;

/// How long an interrupted caller waits for the work to stop. Work that takes longer, such as a fit, ends on its own.
const SETTLES: Duration = Duration::from_secs(2);

/// What work tells its caller.
enum News {
    /// So much is done.
    Progress(usize, usize),
    /// A warning for the user.
    Warning(String),
}

/// The caller, as work sees it.
pub(crate) struct Caller {
    news: Sender<News>,
    cancel: Cancel,
}

impl Caller {
    /// Tells that so much is done. An interrupted caller does not listen any more.
    pub(crate) fn progress(&self, done: usize, total: usize) {
        let _ = self.news.send(News::Progress(done, total));
    }

    /// Warns the user.
    pub(crate) fn warning(&self, text: &str) {
        let _ = self.news.send(News::Warning(text.to_owned()));
    }

    /// Whether to stop.
    pub(crate) fn stop(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

impl News {
    fn tell(self, py: Python<'_>, progress: Option<&Py<PyAny>>) -> PyResult<()> {
        match (self, progress) {
            (Self::Progress(done, total), Some(progress)) => {
                progress.bind(py).call1((done, total)).map(drop)
            }
            (Self::Progress(..), None) => Ok(()),
            (Self::Warning(text), _) => {
                let text = std::ffi::CString::new(text).unwrap_or_default();
                // Of the function that calls the package.
                PyErr::warn(py, &py.get_type::<PyUserWarning>(), &text, 2)
            }
        }
    }
}

/// The result of work. Meanwhile `progress(done, total)` is called on this thread, and warnings are given.
///
/// # Errors
/// The work fails or panics. A signal handler, the function or a warning raises an exception: the work is stopped.
pub(crate) fn watched<T: Send + 'static>(
    py: Python<'_>,
    progress: Option<&Py<PyAny>>,
    work: impl FnOnce(&Caller) -> Result<T, Failure> + Send + 'static,
) -> PyResult<T> {
    let (news, told) = channel();
    let cancel = Cancel::new();
    let caller = Caller { news, cancel: cancel.clone() };
    let worker = Builder::new().name("work".to_owned()).spawn(move || work(&caller))?;
    let told = Mutex::new(told);
    loop {
        let heard = match receive(py, &told) {
            // News may come so fast that waiting for them never handles signals.
            Ok(Some(news)) => news.tell(py, progress).and_then(|()| py.check_signals()),
            Ok(None) => break,
            Err(error) => Err(error),
        };
        if let Err(error) = heard {
            cancel.cancel();
            py.detach(|| settle(told));
            return Err(error);
        }
    }
    // The sender is dropped where the work ends.
    let outcome = py.detach(|| worker.join());
    Ok(outcome.unwrap_or_else(|panic| Err(Failure::Ended(said(&*panic))))?)
}

/// Waits until the work has stopped, so that it can be resumed.
fn settle(told: Mutex<Receiver<News>>) {
    let Ok(told) = told.into_inner() else { return };
    let until = Instant::now() + SETTLES;
    while told.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok() {}
}
