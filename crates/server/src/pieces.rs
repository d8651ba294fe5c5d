//! From events of the engine to pieces of choices. Streams send the pieces, whole answers are the pieces put together: so
//! both have the same text.

use std::sync::Arc;

use serde_json::{Value, json};
use stackelberg_data::trace::TraceStep;
use stackelberg_decoding::{Event, Generation, Options, Settings, Step};
use stackelberg_experiment::record;

use crate::asked::Asked;
use crate::error::ApiError;
use crate::openai::answer::GuidanceReport;
use crate::settings::guides_steps;

/// What is new of a choice.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
    pub(crate) trace: Option<TraceStep>,
    pub(crate) end: Option<End>,
}

/// How a choice ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) finish_reason: &'static str,
    pub(crate) stop_reason: Option<Value>,
    /// How guidance went, unless the choice was aborted.
    pub(crate) guidance: Option<GuidanceReport>,
}

impl Piece {
    /// The end of a choice that the server aborts.
    pub(crate) fn aborted() -> Self {
        let end = End { finish_reason: "abort", stop_reason: None, guidance: None };
        Self { end: Some(end), ..Self::default() }
    }
}

/// Makes pieces of a request's events.
pub(crate) struct Pieces(Arc<Asked>);

impl Pieces {
    pub(crate) fn new(asked: Arc<Asked>) -> Self {
        Self(asked)
    }

    /// The piece that an event brings.
    ///
    /// # Errors
    /// The choice has failed.
    pub(crate) fn piece(&self, choice: usize, event: Event) -> Result<Piece, ApiError> {
        match event {
            Event::Token { number, step, text, .. } => self.token(choice, number, &step, text),
            Event::Failed { error, .. } => Err(ApiError::decoding(&error)),
            Event::Done { samples, .. } => {
                let sample = samples.into_iter().next();
                let answer =
                    sample.ok_or_else(|| ApiError::internal(&"an answer without a text"))?.answer;
                let end = End {
                    finish_reason: answer.finish.name(),
                    stop_reason: None,
                    guidance: Some(self.report(choice, &answer)),
                };
                Ok(Piece { end: Some(end), ..Piece::default() })
            }
        }
    }

    fn token(&self, choice: usize, number: usize, step: &Step, text: String) -> Result<Piece, ApiError> {
        let asked = &self.0;
        let tokens = vec![step.chosen];
        let trace = match asked.guidance.trace {
            false => None,
            true => {
                let (id, method) = (choice.to_string(), asked.settings(choice).method);
                let line =
                    record::trace_step(&id, method, number, step, asked.parts(), &asked.tokenizer);
                Some(line.map_err(|error| ApiError::internal(&error))?)
            }
        };
        Ok(Piece { text, tokens, trace, end: None })
    }

    fn report(&self, choice: usize, answer: &Generation) -> GuidanceReport {
        let asked = &self.0;
        let settings = asked.settings(choice);
        let rewards = asked.parts().iter().cloned().zip(answer.parts.iter().copied());
        GuidanceReport {
            method: settings.method.name(),
            reward: answer.reward,
            rewards: rewards.collect(),
            kl: answer.kl,
            kl_bound: answer.kl_bound(),
            steered: answer.steered,
            reward_calls: answer.reward_calls,
            skipped: answer.skipped,
            tokens_run: answer.tokens_run,
            settings: in_force(asked, settings),
        }
    }
}

/// The settings in force, with the names of the reward and the value head.
fn in_force(asked: &Asked, settings: &Settings) -> Value {
    let mut options = Options::used(settings);
    if !guides_steps(settings.method) && !asked.guidance.trace {
        options.candidates = None;
    }
    let mut settings = json!(options);
    for (name, value) in [("reward", &asked.guidance.reward), ("value", &asked.guidance.value)] {
        if let Some(value) = value {
            settings[name] = json!(value);
        }
    }
    settings
}
