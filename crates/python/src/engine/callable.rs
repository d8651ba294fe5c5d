//! A Python function as a reward.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pyo3::types::{PyAnyMethods, PyDict, PyDictMethods, PyList, PyListMethods, PyString};
use pyo3::{Bound, Py, PyAny, PyResult, Python};
use stackelberg_engine::reward::{Exchange, RewardFormat, TextReward, TextScorer};
use stackelberg_engine::{Error, Prompt, Result, Reward};

/// Calls of Python functions that are under way.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// A Python function `f(prompts, answers)` that returns one number for each answer. It is called with the GIL, with all texts of
/// one sequence's step at once.
pub(crate) struct Callable(Py<PyAny>);

impl Callable {
    /// The function as a reward.
    pub(crate) fn reward(function: Py<PyAny>) -> Reward {
        Reward::Text(std::sync::Arc::new(TextReward::new(Self(function))))
    }

    fn call(&self, py: Python<'_>, exchanges: &[Exchange<'_>]) -> PyResult<Vec<f64>> {
        let prompts = PyList::empty(py);
        for exchange in exchanges {
            prompts.append(python_prompt(py, exchange.prompt)?)?;
        }
        let answers = PyList::new(py, exchanges.iter().map(|exchange| exchange.answer))?;
        self.0.bind(py).call1((prompts, answers))?.extract()
    }
}

impl TextScorer for Callable {
    /// A function may take long, and it needs the GIL.
    fn is_remote(&self) -> bool {
        true
    }

    fn score(&self, exchanges: &[Exchange<'_>], _: RewardFormat) -> Result<Vec<f64>> {
        let _call = Call::begin();
        Python::attach(|py| self.call(py, exchanges)).map_err(|error| Error::Callback(Box::new(error)))
    }

    fn usual_format(&self) -> RewardFormat {
        RewardFormat::Answer
    }
}

/// Counts a call while it is under way.
struct Call;

impl Call {
    fn begin() -> Self {
        CALLS.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        CALLS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits until no Python function is under way. Without it, a function could outlive the interpreter.
///
/// # Errors
/// A Python signal handler raises an exception.
pub(crate) fn wait_for_calls(py: Python<'_>) -> PyResult<()> {
    while CALLS.load(Ordering::SeqCst) > 0 {
        py.detach(|| std::thread::sleep(Duration::from_millis(5)));
        py.check_signals()?;
    }
    Ok(())
}

/// A prompt in the form that users give it: a text, or a list of messages.
fn python_prompt<'py>(py: Python<'py>, prompt: &Prompt) -> PyResult<Bound<'py, PyAny>> {
    let messages = match prompt {
        Prompt::Text(text) => return Ok(PyString::new(py, text).into_any()),
        Prompt::Messages(messages) => messages,
    };
    let list = PyList::empty(py);
    for message in messages {
        let fields = PyDict::new(py);
        fields.set_item("role", &message.role)?;
        fields.set_item("content", &message.content)?;
        list.append(fields)?;
    }
    Ok(list.into_any())
}
