//! From pieces to bodies: chunks of a stream, and whole answers.

use std::sync::Arc;

use serde::Serialize;

use crate::app::{App, now};
use crate::asked::Asked;
use crate::body::text;
use crate::error::ApiError;
use crate::logprobs::join;
use crate::openai::answer::{
    Answer, AnswerMessage, ChatChoice, ChatDelta, CompletionChoice, Delta, Rest, Usage,
};
use crate::openai::logprobs::{ChatLogprobs, CompletionLogprobs};
use crate::pieces::{End, Kind, Logprobs, Piece};

/// Writes the bodies of a request's answers.
pub(crate) struct Renderer {
    kind: Kind,
    id: String,
    created: u64,
    model: String,
    asked: Arc<Asked>,
}

/// A choice as it is put together.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    text: String,
    rest: Rest,
    chat: Option<ChatLogprobs>,
    completion: Option<CompletionLogprobs>,
    /// Tokens that were generated.
    pub(crate) tokens: usize,
}

impl Whole {
    /// Adds a piece.
    pub(crate) fn add(&mut self, piece: Piece) {
        self.text.push_str(&piece.text);
        self.tokens += piece.tokens.len();
        self.rest.token_ids.get_or_insert_default().extend(piece.tokens);
        self.rest.trace.extend(piece.trace);
        match piece.logprobs {
            Some(Logprobs::Chat(list)) => {
                self.chat.get_or_insert_default().content.extend(list.content);
            }
            Some(Logprobs::Completion(list)) => join(self.completion.get_or_insert_default(), list),
            None => {}
        }
        if let Some(end) = piece.end {
            finish(&mut self.rest, end);
        }
    }

    /// Whether it is finished.
    pub(crate) fn is_finished(&self) -> bool {
        self.rest.finish_reason.is_some()
    }
}

fn finish(rest: &mut Rest, end: End) {
    rest.finish_reason = Some(end.finish_reason);
    rest.stop_reason = end.stop_reason;
    rest.guidance = end.guidance;
}

impl Renderer {
    pub(crate) fn new(app: &App, kind: Kind, asked: Arc<Asked>) -> Self {
        let id = app.id(if kind == Kind::Chat { "chatcmpl" } else { "cmpl" });
        Self { kind, id, created: now(), model: app.models.name.clone(), asked }
    }

    fn answer<C: Serialize>(
        &self,
        object: &'static str,
        choices: Vec<C>,
        usage: Option<Usage>,
    ) -> Answer<C> {
        Answer {
            id: self.id.clone(),
            object,
            created: self.created,
            model: self.model.clone(),
            choices,
            seed: self.asked.seed,
            usage,
            prompt_token_ids: None,
            prompt_logprobs: None,
        }
    }

    /// Whether chunks say more of a token than its text.
    pub(crate) fn tells_tokens(&self) -> bool {
        self.asked.token_ids || self.asked.logprobs.is_some()
    }

    /// The ids of the prompt of a choice, if they are wanted.
    fn prompt_ids(&self, choice: usize) -> Option<Vec<u32>> {
        self.asked.token_ids.then(|| self.asked.prompt(choice).tokens.clone())
    }

    /// A chunk of a choice. The first one of a completion has the ids of the prompt, if they are wanted.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub(crate) fn chunk(
        &self,
        index: usize,
        piece: Piece,
        usage: Option<Usage>,
        begins: bool,
    ) -> Result<String, ApiError> {
        let token_ids = self.asked.token_ids.then_some(piece.tokens);
        let mut rest = Rest { token_ids, trace: piece.trace.into_iter().collect(), ..Rest::default() };
        let ends = piece.end.is_some();
        let (chat, completion) = match piece.logprobs {
            Some(Logprobs::Chat(list)) => (Some(list), None),
            Some(Logprobs::Completion(list)) => (None, Some(list)),
            None => (None, None),
        };
        if let Some(end) = piece.end {
            finish(&mut rest, end);
        }
        match self.kind {
            Kind::Chat => {
                let content = Some(piece.text).filter(|text| !(ends && text.is_empty()));
                let delta = Delta { role: None, content };
                text(&self.answer(
                    CHAT_CHUNK,
                    vec![ChatDelta { index, delta, logprobs: chat, rest }],
                    usage,
                ))
            }
            Kind::Completion => {
                let choice = CompletionChoice {
                    index,
                    text: piece.text,
                    logprobs: completion,
                    prompt_token_ids: self.prompt_ids(index).filter(|_| begins),
                    prompt_logprobs: None,
                    rest,
                };
                text(&self.answer(COMPLETION, vec![choice], usage))
            }
        }
    }

    /// The chunk with which a choice of a chat begins.
    ///
    /// # Errors
    /// As [`Renderer::chunk`].
    pub(crate) fn first(&self, index: usize, usage: Option<Usage>) -> Result<Option<String>, ApiError> {
        if self.kind != Kind::Chat {
            return Ok(None);
        }
        let delta = Delta { role: Some("assistant"), content: Some(String::new()) };
        let choice = ChatDelta { index, delta, logprobs: None, rest: Rest::default() };
        let mut answer = self.answer(CHAT_CHUNK, vec![choice], usage);
        if index == 0 {
            answer.prompt_token_ids = self.prompt_ids(0);
        }
        text(&answer).map(Some)
    }

    /// The chunk with the numbers of tokens.
    ///
    /// # Errors
    /// As [`Renderer::chunk`].
    pub(crate) fn usage_chunk(&self, tokens: usize) -> Result<String, ApiError> {
        let object = if self.kind == Kind::Chat { CHAT_CHUNK } else { COMPLETION };
        text(&self.answer(object, Vec::<CompletionChoice>::new(), Some(self.usage(tokens))))
    }

    /// The numbers of tokens, after so many generated ones.
    pub(crate) fn usage(&self, tokens: usize) -> Usage {
        Usage::new(self.asked.prompt_tokens(), tokens)
    }

    /// The whole answer.
    ///
    /// # Errors
    /// As [`Renderer::chunk`].
    pub(crate) fn whole(&self, choices: Vec<Whole>) -> Result<String, ApiError> {
        let usage = Some(self.usage(choices.iter().map(|choice| choice.tokens).sum()));
        let choices = choices.into_iter().enumerate().map(|(index, mut whole)| {
            whole.rest.token_ids = whole.rest.token_ids.filter(|_| self.asked.token_ids);
            (index, whole)
        });
        let asked = &self.asked;
        let prompt = |choice: usize| {
            let (tokens, rows) = (&asked.prompt(choice).tokens, asked.prompt_rows(choice));
            asked.prompt_logprobs.map(|top| asked.names().prompt(tokens, rows, top))
        };
        match self.kind {
            Kind::Chat => {
                let choices = choices.map(|(index, Whole { text, rest, chat, .. })| {
                    let message = AnswerMessage { role: "assistant", content: text, refusal: None };
                    ChatChoice { index, message, logprobs: chat, rest }
                });
                let mut answer = self.answer("chat.completion", choices.collect(), usage);
                answer.prompt_token_ids = self.prompt_ids(0);
                answer.prompt_logprobs = prompt(0);
                text(&answer)
            }
            Kind::Completion => {
                let choices =
                    choices.map(|(index, Whole { text, rest, completion, .. })| CompletionChoice {
                        index,
                        text,
                        logprobs: completion,
                        prompt_token_ids: self.prompt_ids(index),
                        prompt_logprobs: prompt(index),
                        rest,
                    });
                text(&self.answer(COMPLETION, choices.collect(), usage))
            }
        }
    }
}

const CHAT_CHUNK: &str = "chat.completion.chunk";
const COMPLETION: &str = "text_completion";
