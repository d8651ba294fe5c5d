//! Answers and their steps, as dictionaries for Python.

use pyo3::IntoPyObject;
use stackelberg_data::trace::TraceStep;
use stackelberg_decoding::{Generation, StoppedBy};

use super::failure::Failure;

/// What is new of an answer.
#[derive(IntoPyObject)]
pub(crate) struct News {
    /// The place of the answer among those that were submitted together.
    number: usize,
    piece: Option<Piece>,
    answer: Option<Answer>,
}

impl News {
    pub(crate) fn of_piece(number: usize, piece: Piece) -> Self {
        Self { number, piece: Some(piece), answer: None }
    }

    pub(crate) fn of_answer(number: usize, answer: Answer) -> Self {
        Self { number, piece: None, answer: Some(answer) }
    }
}

/// A decoding step.
#[derive(IntoPyObject)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) token: u32,
    pub(crate) steered: bool,
    /// The step as a line of a trace file, if it is wanted.
    pub(crate) step: Option<String>,
}

/// A finished answer.
#[derive(IntoPyObject)]
pub(crate) struct Answer {
    text: String,
    token_ids: Vec<u32>,
    finish_reason: &'static str,
    stop_reason: Option<Stop>,
    reward: Option<f64>,
    /// What a combination of rewards is made of.
    rewards: Vec<(String, f64)>,
    mean_log_prob: f64,
    kl: Option<f64>,
    kl_bound: Option<f64>,
    steered: usize,
    reward_calls: usize,
    skipped: usize,
    tokens_run: usize,
    tokens_scored: usize,
    elapsed: f64,
    /// The settings in force, as JSON.
    settings: String,
}

/// What ended an answer, beside the model's own end.
#[derive(IntoPyObject)]
enum Stop {
    Text(String),
    Token(u32),
}

impl Answer {
    /// The answer, with the names of the parts of its reward.
    pub(crate) fn new(answer: Generation, parts: &[String], settings: &str) -> Self {
        Self {
            finish_reason: answer.finish.name(),
            stop_reason: answer.stopped_by.as_ref().map(|stop| match stop {
                StoppedBy::Text(text) => Stop::Text(text.clone()),
                StoppedBy::Token(token) => Stop::Token(*token),
            }),
            reward: answer.reward,
            rewards: parts.iter().cloned().zip(answer.parts.iter().copied()).collect(),
            mean_log_prob: answer.mean_log_prob,
            kl: answer.kl,
            kl_bound: answer.kl_bound(),
            steered: answer.steered,
            reward_calls: answer.reward_calls,
            skipped: answer.skipped,
            tokens_run: answer.tokens_run,
            tokens_scored: answer.tokens_scored,
            elapsed: answer.elapsed.as_secs_f64(),
            settings: settings.to_owned(),
            text: answer.text,
            token_ids: answer.tokens,
        }
    }
}

/// A step as a line of a trace file.
///
/// # Errors
/// The step cannot be written.
pub(crate) fn trace_line(step: &TraceStep) -> Result<String, Failure> {
    serde_json::to_string(step).map_err(|error| no_trace(&error))
}

/// The error of a step that cannot be written.
pub(crate) fn no_trace(error: &dyn std::fmt::Display) -> Failure {
    Failure::Json { what: "trace", error: error.to_string() }
}
