//! Answers under way: what a caller waits for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use pyo3::{PyResult, Python, pyclass, pymethods};
use stackelberg_decoding::{Cancel, Error, Event, Method};
use stackelberg_engine::Tokenizer;
use stackelberg_experiment::record::trace_step;

use super::answer::{Answer, News, Piece, no_trace, trace_line};
use super::failure::Failure;
use super::thread::{Decoding, Told};
use super::wait::{claim, receive};

/// Answers to the prompts of one call. They are cancelled when this object is dropped.
#[pyclass(frozen, module = "stackelberg._lib")]
pub(crate) struct Answers {
    pub(crate) decoding: Arc<Decoding>,
    pub(crate) events: Mutex<Receiver<Told>>,
    pub(crate) cancel: Cancel,
    /// Answers that are not finished.
    pub(crate) left: AtomicUsize,
    pub(crate) describe: Describe,
}

/// What is needed to describe answers.
pub(crate) struct Describe {
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) method: Method,
    /// The settings in force, as JSON.
    pub(crate) settings: String,
    /// The names of the rewards of a combination.
    pub(crate) parts: Vec<String>,
    pub(crate) trace: bool,
    pub(crate) warnings: Vec<String>,
}

#[pymethods]
impl Answers {
    /// What is new; None if all answers are finished.
    fn next(&self, py: Python<'_>) -> PyResult<Option<News>> {
        claim()?;
        if self.left.load(Ordering::Relaxed) == 0 || self.cancel.is_cancelled() {
            return Ok(None);
        }
        let news = self.news(py);
        if news.is_err() {
            self.cancel.cancel();
        }
        news
    }

    /// Cancels all answers that are not finished.
    fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Warnings about the prompts.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.describe.warnings.clone()
    }
}

impl Answers {
    fn news(&self, py: Python<'_>) -> PyResult<Option<News>> {
        let Some((number, event)) = receive(py, &self.events)? else {
            return Err(self.decoding.failure().into());
        };
        Ok(Some(match event {
            Event::Token { number: place, step, text, .. } => {
                let Describe { tokenizer, method, parts, trace, .. } = &self.describe;
                let step_line = match trace {
                    true => {
                        let id = number.to_string();
                        let line = trace_step(&id, *method, place, &step, parts, tokenizer);
                        Some(trace_line(&line.map_err(|error| no_trace(&error))?)?)
                    }
                    false => None,
                };
                let steered = step.chosen != step.base_choice;
                News::of_piece(number, Piece { text, token: step.chosen, steered, step: step_line })
            }
            Event::Failed { error, .. } => return Err(Failure::from(error).into()),
            Event::Done { samples, .. } => {
                self.left.fetch_sub(1, Ordering::Relaxed);
                let sample = samples.into_iter().next().ok_or(Failure::Decoding(Error::Stopped))?;
                let Describe { settings, parts, .. } = &self.describe;
                News::of_answer(number, Answer::new(sample.answer, parts, settings))
            }
        }))
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
