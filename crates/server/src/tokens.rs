//! The policy's tokenizer: `POST /tokenize`, `POST /detokenize`, `GET /tokenizer_info`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::{App, blocking};
use crate::asked::{check_model, check_tokens};
use crate::body;
use crate::chat::Layout;
use crate::error::ApiError;
use crate::openai::message::{ChatMessage, messages};
use crate::openai::objects;
use crate::openai::request::Object;

/// A text or messages to tokenize.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizeRequest {
    model: Option<String>,
    /// A text.
    prompt: Option<String>,
    /// Or a conversation.
    #[serde(default, deserialize_with = "objects::several")]
    messages: Option<Vec<ChatMessage>>,
    /// Whether special tokens such as BOS are added. Default: true for a text, false for messages.
    add_special_tokens: Option<bool>,
    /// Whether the answer has the tokens' texts in the vocabulary.
    return_token_strs: Option<bool>,
    /// Whether the template begins the assistant's message. Default: true.
    add_generation_prompt: Option<bool>,
    /// Whether the last message is continued.
    continue_final_message: Option<bool>,
    /// Variables of the chat template.
    #[schema(value_type = Option<Object>)]
    chat_template_kwargs: Option<Object>,
}

/// The tokens of a text.
#[derive(Serialize, ToSchema)]
pub(crate) struct Tokens {
    count: usize,
    /// The most tokens of prompt and answer together.
    max_model_len: usize,
    tokens: Vec<u32>,
    token_strs: Option<Vec<String>>,
}

/// The tokens of a text, or of messages.
#[utoipa::path(post, path = "/tokenize", tag = "tokens", request_body = TokenizeRequest,
    responses((status = 200, description = "The answer", body = Tokens), (status = "4XX", description = "The request is wrong: the error names the field", body = crate::error::ErrorBody)))]
pub(crate) async fn tokenize(
    State(app): State<Arc<App>>,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let request: TokenizeRequest = body::read(request, &app).await?;
    let work = move || {
        check_model(&app, request.model.as_deref())?;
        let tokenizer = &app.models.policy.tokenizer;
        let tokens = match (request.prompt, request.messages) {
            (Some(text), None) => {
                let special = request.add_special_tokens.unwrap_or(true);
                tokenizer.encode(&text, special).map_err(|error| ApiError::engine(&error))?
            }
            (None, Some(list)) => {
                let (add, go_on) = (request.add_generation_prompt, request.continue_final_message);
                let mut layout = Layout::new(add, go_on, request.chat_template_kwargs)?;
                layout.special = request.add_special_tokens.unwrap_or(false);
                layout.tokens(&app, &messages(list, app.config.limits.messages)?)?
            }
            _ => return Err(ApiError::invalid("prompt", "give either prompt or messages")),
        };
        let text = |token: &u32| tokenizer.token(*token).unwrap_or_default();
        let strings = request.return_token_strs.unwrap_or(false);
        body::json(&Tokens {
            count: tokens.len(),
            max_model_len: app.models.policy.context(),
            token_strs: strings.then(|| tokens.iter().map(text).collect()),
            tokens,
        })
    };
    blocking(work).await
}

/// Tokens whose text is wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetokenizeRequest {
    model: Option<String>,
    tokens: Vec<u32>,
}

/// The text of tokens.
#[derive(Serialize, ToSchema)]
pub(crate) struct Detokenized {
    prompt: String,
}

/// The text of tokens, special ones included.
#[utoipa::path(post, path = "/detokenize", tag = "tokens", request_body = DetokenizeRequest,
    responses((status = 200, description = "The answer", body = Detokenized), (status = "4XX", description = "The request is wrong: the error names the field", body = crate::error::ErrorBody)))]
pub(crate) async fn detokenize(
    State(app): State<Arc<App>>,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let request: DetokenizeRequest = body::read(request, &app).await?;
    let work = move || {
        check_model(&app, request.model.as_deref())?;
        if !request.tokens.is_empty() {
            check_tokens(&app, "tokens", &request.tokens)?;
        }
        let text = app.models.policy.tokenizer.decode(&request.tokens, true);
        body::json(&Detokenized { prompt: text.map_err(|error| ApiError::engine(&error))? })
    };
    blocking(work).await
}

/// The tokenizer.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenizerInfo {
    tokenizer_class: &'static str,
    /// Tokens, added ones included.
    vocab_size: usize,
    model_max_length: usize,
    bos_token: Option<String>,
    eos_token: Option<String>,
    pad_token: Option<String>,
    /// Tokens that end an answer.
    eos_token_ids: Vec<u32>,
    chat_template: Option<String>,
}

/// The special tokens and the chat template.
#[utoipa::path(get, path = "/tokenizer_info", tag = "tokens", responses((status = 200, description = "The answer", body = TokenizerInfo)))]
pub(crate) async fn tokenizer_info(State(app): State<Arc<App>>) -> Result<Response<Body>, ApiError> {
    let policy = &app.models.policy;
    let template = policy.template.as_ref();
    let special = |name: &str| template.and_then(|template| template.variable(name)).map(str::to_owned);
    let first_end = || policy.eos.first().and_then(|token| policy.tokenizer.token(*token));
    body::json(&TokenizerInfo {
        tokenizer_class: "PreTrainedTokenizerFast",
        vocab_size: policy.tokenizer.vocabulary(),
        model_max_length: policy.context(),
        bos_token: special("bos_token"),
        eos_token: special("eos_token").or_else(first_end),
        pad_token: special("pad_token"),
        eos_token_ids: policy.eos.clone(),
        chat_template: template.map(|template| template.source().to_owned()),
    })
}
