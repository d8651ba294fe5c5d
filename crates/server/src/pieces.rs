//! From events of the engine to pieces of choices. Streams send the pieces, whole answers are the pieces put together: so
//! both have the same text.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use stackelberg_data::trace::TraceStep;
use stackelberg_decoding::{Event, Generation, Step, StoppedBy};
use stackelberg_experiment::record;

use crate::asked::Asked;
use crate::error::ApiError;
use crate::logprobs::Context;
use crate::openai::answer::GuidanceReport;
use crate::openai::logprobs::{ChatLogprobs, CompletionLogprobs};

/// What is new of a choice.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
    pub(crate) trace: Option<TraceStep>,
    pub(crate) logprobs: Option<Logprobs>,
    pub(crate) end: Option<End>,
}

/// Which of the two kinds of answers it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The message of a role in a chat.
    Chat,
    /// The continuation of a text.
    Completion,
}

/// Log-probabilities of the tokens of a piece.
#[derive(Debug)]
pub(crate) enum Logprobs {
    Chat(ChatLogprobs),
    Completion(CompletionLogprobs),
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
pub(crate) struct Pieces {
    kind: Kind,
    asked: Arc<Asked>,
    /// Of each choice the last tokens, and where the next token's text begins, as its log-probabilities say it.
    places: Vec<(Context, usize)>,
}

impl Pieces {
    pub(crate) fn new(kind: Kind, asked: Arc<Asked>) -> Self {
        let places = vec![(Context::default(), 0); asked.choices()];
        Self { kind, asked, places }
    }

    /// The pieces that come before anything is generated: the prompts, if they are wanted, and the ends if they are all.
    pub(crate) fn before(&mut self) -> Vec<(usize, Piece)> {
        let mut pieces = Vec::new();
        let choices = if self.asked.echo { self.asked.choices() } else { 0 };
        for choice in 0..choices {
            pieces.push((choice, self.prompt(choice)));
            if !self.asked.generates {
                let end = End { finish_reason: "length", stop_reason: None, guidance: None };
                pieces.push((choice, Piece { end: Some(end), ..Piece::default() }));
            }
        }
        pieces
    }

    fn prompt(&mut self, choice: usize) -> Piece {
        let (asked, (context, offset)) = (&self.asked, &mut self.places[choice]);
        let prompted = asked.prompt(choice);
        let mut list = CompletionLogprobs::default();
        if let Some(top) = asked.logprobs {
            let rows = asked.prompt_rows(choice).iter().map(Some);
            for (&token, row) in prompted.tokens.iter().zip(std::iter::once(None).chain(rows)) {
                let likeliest = row.map_or(&[][..], |row| &row.top[..top.min(row.top.len())]);
                let token = (token, row.map(|row| row.log_prob));
                asked.names().completion(&mut list, (&mut *context, &mut *offset), token, likeliest);
            }
        }
        // An answer's text begins without the prompt.
        *context = Context::default();
        let logprobs = asked.logprobs.map(|_| Logprobs::Completion(list));
        let text = prompted.text.clone().unwrap_or_else(|| prompted.prompt.readable());
        Piece { text, logprobs, ..Piece::default() }
    }

    /// The piece that an event brings.
    ///
    /// # Errors
    /// The choice has failed.
    pub(crate) fn piece(&mut self, choice: usize, event: Event) -> Result<Piece, ApiError> {
        match event {
            Event::Token { number, step, text, .. } => self.token(choice, number, &step, text),
            Event::Failed { error, .. } => Err(ApiError::decoding(&error)),
            Event::Done { samples, .. } => {
                let sample = samples.into_iter().next();
                let answer =
                    sample.ok_or_else(|| ApiError::internal(&"an answer without a text"))?.answer;
                let end = End {
                    finish_reason: answer.finish.name(),
                    stop_reason: answer.stopped_by.as_ref().map(|stop| match stop {
                        StoppedBy::Text(text) => json!(text),
                        StoppedBy::Token(token) => json!(token),
                    }),
                    guidance: Some(self.report(choice, &answer)),
                };
                Ok(Piece { end: Some(end), ..Piece::default() })
            }
        }
    }

    fn token(
        &mut self,
        choice: usize,
        number: usize,
        step: &Step,
        text: String,
    ) -> Result<Piece, ApiError> {
        let asked = self.asked.clone();
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
        let logprobs = asked.logprobs.map(|top| {
            let (names, top) = (asked.names(), &step.log_probs[..top.min(step.log_probs.len())]);
            match self.kind {
                Kind::Chat => {
                    let (context, _) = &mut self.places[choice];
                    Logprobs::Chat(names.chat(context, (step.chosen, step.log_prob), top))
                }
                Kind::Completion => {
                    let mut list = CompletionLogprobs::default();
                    let token = (step.chosen, Some(step.log_prob));
                    let (context, offset) = &mut self.places[choice];
                    names.completion(&mut list, (context, offset), token, top);
                    Logprobs::Completion(list)
                }
            }
        });
        Ok(Piece { text, tokens, trace, logprobs, end: None })
    }

    fn report(&self, choice: usize, answer: &Generation) -> GuidanceReport {
        let asked = &self.asked;
        let settings = asked.settings(choice);
        let mut rewards: BTreeMap<String, f64> =
            asked.parts().iter().cloned().zip(answer.parts.iter().copied()).collect();
        if let (true, Some(name), Some(reward)) =
            (rewards.is_empty(), &asked.guidance.reward, answer.reward)
        {
            rewards.insert(name.clone(), reward);
        }
        GuidanceReport {
            method: settings.method.name(),
            reward: answer.reward,
            rewards,
            kl: answer.kl,
            kl_bound: answer.kl_bound(),
            steered: answer.steered,
            reward_calls: answer.reward_calls,
            skipped: answer.skipped,
            tokens_run: answer.tokens_run,
            settings: asked.guidance.in_force(settings),
        }
    }
}
