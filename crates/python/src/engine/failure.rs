//! What can go wrong with models, as Python exceptions with the words of the command line.

use std::error::Error as StdError;

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::{PyErr, Python};
use stackelberg_data::Error as File;
use stackelberg_decoding::Error as Decoding;
use stackelberg_engine::Error as Engine;
use stackelberg_evaluation::Error as Evaluation;
use stackelberg_hub::SourceError;
use stackelberg_learning::Error as Learning;
use stackelberg_registry::Error as Registry;
use stackelberg_registry::guidance::GuidanceError;

/// Why models cannot be loaded or do not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Loading or scoring failed.
    #[error(transparent)]
    Registry(#[from] Registry),

    /// A request cannot be decoded, or decoding failed.
    #[error(transparent)]
    Decoding(#[from] Decoding),

    /// A model, a template or a tokenizer failed.
    #[error(transparent)]
    Engine(#[from] Engine),

    /// Rollouts cannot be drawn or read, or a head cannot be trained.
    #[error(transparent)]
    Learning(#[from] Learning),

    /// Answers cannot be evaluated.
    #[error(transparent)]
    Evaluation(#[from] Evaluation),

    /// A field of the guidance is wrong.
    #[error(transparent)]
    Guidance(#[from] GuidanceError),

    /// Another argument is wrong.
    #[error("{0}")]
    Value(String),

    /// An argument cannot be read as JSON.
    #[error("{what}: {error}")]
    Json {
        /// The argument.
        what: &'static str,
        /// What is wrong with it.
        error: String,
    },

    /// The thread has ended.
    #[error("the decoding thread has ended: {0}")]
    Ended(String),
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        let raised = match &failure {
            Failure::Decoding(error) | Failure::Learning(Learning::Decoding(error)) => raised(error),
            Failure::Engine(error) | Failure::Registry(Registry::Engine(error)) => of_callback(error),
            _ => None,
        };
        if let Some(error) = raised {
            // The exception itself, with its traceback.
            return Python::attach(|py| error.clone_ref(py));
        }
        let causes = std::iter::successors(StdError::source(&failure), |cause| StdError::source(*cause));
        // A cause that the message already ends with is not repeated.
        let said = causes.fold(failure.to_string(), |said, cause| match cause.to_string() {
            cause if said.ends_with(&cause) => said,
            cause => format!("{said}: {cause}"),
        });
        match failure {
            Failure::Guidance(_) | Failure::Json { .. } if said.contains("invalid type: ") => {
                PyTypeError::new_err(said)
            }
            Failure::Ended(_) => PyRuntimeError::new_err(said),
            Failure::Registry(error) => of_registry(&error, said),
            Failure::Decoding(error) => of_decoding(&error, said),
            Failure::Engine(error) => of_engine(&error, said),
            Failure::Learning(error) => of_learning(&error, said),
            Failure::Evaluation(error) => of_evaluation(&error, said),
            _ => PyValueError::new_err(said),
        }
    }
}

/// The exception that a Python function raised, if one is the cause.
fn raised(error: &Decoding) -> Option<&PyErr> {
    match error {
        Decoding::Engine(error) => of_callback(error),
        Decoding::Prompt { source, .. } => raised(source),
        _ => None,
    }
}

fn of_callback(error: &Engine) -> Option<&PyErr> {
    match error {
        Engine::Callback(error) => error.downcast_ref(),
        _ => None,
    }
}

fn of_registry(error: &Registry, said: String) -> PyErr {
    match error {
        Registry::Within { source, .. } => of_registry(source, said),
        Registry::Engine(error) => of_engine(error, said),
        Registry::Data(error) => of_file(error, said),
        Registry::Hub(
            SourceError::BadReference { .. }
            | SourceError::UnknownName { .. }
            | SourceError::NoSuchPath { .. },
        )
        | Registry::Name(_)
        | Registry::Text(_) => PyValueError::new_err(said),
        Registry::Hub(_) => PyOSError::new_err(said),
        _ => PyValueError::new_err(said),
    }
}

fn of_learning(error: &Learning, said: String) -> PyErr {
    match error {
        Learning::Decoding(error) => of_decoding(error, said),
        Learning::Engine(error) => of_engine(error, said),
        Learning::Registry(error) => of_registry(error, said),
        Learning::File(error) => of_file(error, said),
        Learning::Judged { source, .. } => of_learning(source, said),
        Learning::Diverged { .. } | Learning::Stopped | Learning::Tensor(_) => {
            PyRuntimeError::new_err(said)
        }
        _ => PyValueError::new_err(said),
    }
}

fn of_evaluation(error: &Evaluation, said: String) -> PyErr {
    match error {
        Evaluation::Run { source, .. } => of_evaluation(source, said),
        Evaluation::Answer { source, .. } => of_registry(source, said),
        Evaluation::Engine(error) => of_engine(error, said),
        Evaluation::Registry(error) => of_registry(error, said),
        Evaluation::File(error) => of_file(error, said),
        _ => PyValueError::new_err(said),
    }
}

fn of_file(error: &File, said: String) -> PyErr {
    match error {
        File::Read { .. } | File::Write { .. } => PyOSError::new_err(said),
        _ => PyValueError::new_err(said),
    }
}

fn of_decoding(error: &Decoding, said: String) -> PyErr {
    match error {
        Decoding::Engine(error) => of_engine(error, said),
        Decoding::Prompt { source, .. } => of_decoding(source, said),
        Decoding::Logits { .. } | Decoding::Stopped => PyRuntimeError::new_err(said),
        _ => PyValueError::new_err(said),
    }
}

fn of_engine(error: &Engine, said: String) -> PyErr {
    match error {
        Engine::Read { .. } => PyOSError::new_err(said),
        Engine::Scorer(_) | Engine::Tensor(_) | Engine::Callback(_) => PyRuntimeError::new_err(said),
        _ => PyValueError::new_err(said),
    }
}
