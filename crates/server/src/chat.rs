//! `POST /v1/chat/completions`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use serde_json::Value;
use stackelberg_data::Prompt;
use stackelberg_engine::{Argument, ChatEnd, ChatTemplate, Message};

use crate::app::{App, blocking};
use crate::asked::{Asked, Plan, Prompted, check_length};
use crate::body;
use crate::error::ApiError;
use crate::openai::message::{ChatMessage, messages};
use crate::openai::request::{ChatRequest, Object};
use crate::pieces::Kind;
use crate::respond::respond;
use crate::{refuse, settings};

/// How messages become a prompt.
pub(crate) struct Layout {
    end: ChatEnd,
    args: BTreeMap<String, Argument>,
    /// Whether special tokens such as BOS are added to what the template writes.
    pub(crate) special: bool,
}

impl Layout {
    /// From the fields of a request.
    ///
    /// # Errors
    /// They contradict each other, or a variable is no good.
    pub(crate) fn new(
        add_generation_prompt: Option<bool>,
        continue_final_message: Option<bool>,
        args: Option<Object>,
    ) -> Result<Self, ApiError> {
        let continues = continue_final_message.unwrap_or(false);
        let end = match (continues, add_generation_prompt) {
            (true, Some(true)) => {
                let message =
                    "continue_final_message and add_generation_prompt exclude each other: give one";
                return Err(ApiError::invalid("continue_final_message", message));
            }
            (true, _) => ChatEnd::Continue,
            (false, Some(false)) => ChatEnd::Complete,
            (false, _) => ChatEnd::Answer,
        };
        let field = "chat_template_kwargs";
        let wrong = |error: serde_json::Error| ApiError::invalid(field, format!("{field}: {error}"));
        let args: BTreeMap<String, Argument> =
            serde_json::from_value(Value::Object(args.unwrap_or_default())).map_err(wrong)?;
        ChatTemplate::check_args(&args)
            .map_err(|error| ApiError::invalid(field, format!("{field}: {error}")))?;
        Ok(Self { end, args, special: false })
    }

    /// The tokens of messages.
    ///
    /// # Errors
    /// The model has no chat template, or it refuses the messages.
    pub(crate) fn tokens(&self, app: &App, messages: &[Message]) -> Result<Vec<u32>, ApiError> {
        let policy = &app.models.policy;
        if policy.template.is_none() {
            let message = "this model has no chat template: use /v1/completions";
            return Err(ApiError::invalid("messages", message));
        }
        let text = policy.lay_out_chat(messages, self.end, self.args.clone());
        let tokens = text.and_then(|text| {
            let mut tokens = policy.read(&text)?;
            if self.special {
                // Not by the tokenizer: it would read what messages spell as control tokens.
                let around = policy.tokenizer.encode("", true)?;
                tokens.splice(0..0, around.first().copied());
            }
            Ok(tokens)
        });
        tokens.map_err(|error| ApiError::engine(&error))
    }
}

/// Answers a chat.
#[utoipa::path(
    post, operation_id = "createChatCompletion", path = "/v1/chat/completions", tag = "answers", request_body = ChatRequest,
    responses((status = 200, description = "The answer; with `stream` its chunks as server-sent events: `data: ` and the JSON of a chunk, at the end `data: [DONE]`", content(
                  (inline(crate::openai::answer::Answer<crate::openai::answer::ChatChoice>) = "application/json"),
                  (inline(crate::openai::answer::Answer<crate::openai::answer::ChatDelta>) = "text/event-stream"))),
              (status = "4XX", description = "The request is wrong: the error names the field", body = crate::error::ErrorBody))
)]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let request: ChatRequest = body::read(request, &app).await?;
    let shared = app.clone();
    let asked = blocking(move || asked(&shared, request)).await?;
    respond(&app, Kind::Chat, asked).await
}

/// What the request asks for.
fn asked(app: &App, mut request: ChatRequest) -> Result<Asked, ApiError> {
    let mut common = request.common();
    refuse::chat(&request, common.echo)?;
    if let Some(tokens) = request.max_completion_tokens
        && common.max_tokens.replace(tokens).is_some_and(|other| other != tokens)
    {
        let message = "max_completion_tokens and max_tokens differ: give one";
        return Err(ApiError::invalid("max_completion_tokens", message));
    }
    let top = settings::likeliest("top_logprobs", request.top_logprobs)?;
    let wanted = request.logprobs == Some(true);
    if top.is_some_and(|top| top > 0) && !wanted {
        let message = "top_logprobs has no effect without logprobs: set it to true";
        return Err(ApiError::invalid("top_logprobs", message));
    }
    let logprobs = wanted.then(|| top.unwrap_or(0));
    let plan = Plan::new(app, common, 1, logprobs)?;
    let mut layout = Layout::new(
        request.add_generation_prompt,
        request.continue_final_message,
        request.chat_template_kwargs.take(),
    )?;
    layout.special = plan.special(false);
    let prompted = prompted(app, &layout, request.messages.take().unwrap_or_default())?;
    plan.with_prompts(app, vec![prompted], "messages", usize::MAX)
}

fn prompted(app: &App, layout: &Layout, list: Vec<ChatMessage>) -> Result<Prompted, ApiError> {
    let messages = messages(list, app.config.limits.messages)?;
    check_length(app, "messages", messages.iter().map(|message| message.content.len()).sum())?;
    let tokens = layout.tokens(app, &messages)?;
    Ok(Prompted { tokens, text: None, prompt: Prompt::Messages(messages) })
}
