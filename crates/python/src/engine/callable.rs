//! A Python function as a reward.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::types::{PyAnyMethods, PyDict, PyDictMethods, PyList, PyListMethods, PyString};
use pyo3::{Bound, Py, PyAny, PyResult, Python};
use stackelberg_engine::reward::{Exchange, RewardFormat, TextReward, TextScorer};
use stackelberg_engine::{Error, Prompt, Result, Reward};

/// Calls of Python functions that are under way.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// A Python function `f(prompts, answers)` that returns one number for each answer. It is called with the GIL, and once for all
/// texts that wait: those of one sequence's step, and those that other sequences have asked for while it was busy.
pub(crate) struct Callable {
    function: Py<PyAny>,
    waiting: Mutex<Vec<Waiting>>,
    /// Held by the thread that calls the function.
    turn: Mutex<()>,
}

/// Texts that wait for their rewards.
struct Waiting {
    texts: Vec<(Prompt, String)>,
    reply: Sender<Result<Vec<f64>>>,
}

impl Callable {
    /// The function as a reward.
    pub(crate) fn reward(function: Py<PyAny>) -> Reward {
        let callable = Self { function, waiting: Mutex::default(), turn: Mutex::default() };
        Reward::Text(Arc::new(TextReward::new(callable)))
    }

    /// Answers all that wait. If the function fails for all texts together, each part is asked alone, so that one sequence's error is
    /// not another's.
    fn answer(&self, py: Python<'_>, waiting: Vec<Waiting>) {
        let texts = || waiting.iter().flat_map(|one| &one.texts);
        if waiting.len() > 1
            && let Ok(rewards) = self.call(py, texts())
            && rewards.len() == texts().count()
        {
            let mut rewards = rewards.into_iter();
            for Waiting { texts, reply } in &waiting {
                let _ = reply.send(Ok(rewards.by_ref().take(texts.len()).collect()));
            }
            return;
        }
        for Waiting { texts, reply } in &waiting {
            let rewards = self.call(py, texts.iter());
            let _ = reply.send(rewards.map_err(|error| Error::Callback(Box::new(error))));
        }
    }

    fn call<'t>(
        &self,
        py: Python<'_>,
        texts: impl Iterator<Item = &'t (Prompt, String)>,
    ) -> PyResult<Vec<f64>> {
        let (prompts, answers) = (PyList::empty(py), PyList::empty(py));
        for (prompt, answer) in texts {
            prompts.append(python_prompt(py, prompt)?)?;
            answers.append(answer)?;
        }
        self.function.bind(py).call1((prompts, answers))?.extract()
    }
}

impl TextScorer for Callable {
    /// A function may take long, and it needs the GIL.
    fn is_remote(&self) -> bool {
        true
    }

    fn score(&self, exchanges: &[Exchange<'_>], _: RewardFormat) -> Result<Vec<f64>> {
        let _call = Call::begin();
        let own = |exchange: &Exchange<'_>| (exchange.prompt.clone(), exchange.answer.to_owned());
        let (reply, replied) = channel();
        locked(&self.waiting).push(Waiting { texts: exchanges.iter().map(own).collect(), reply });
        {
            let _turn = locked(&self.turn);
            // Another thread may have asked for these texts, too.
            if let Ok(rewards) = replied.try_recv() {
                return rewards;
            }
            let waiting = std::mem::take(&mut *locked(&self.waiting));
            Python::attach(|py| self.answer(py, waiting));
        }
        replied.recv().unwrap_or_else(|_| Err(Error::Scorer("the reward gave no answer".to_owned())))
    }

    fn usual_format(&self) -> RewardFormat {
        RewardFormat::Answer
    }
}

/// What is behind a lock that no panic leaves in a wrong state.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
