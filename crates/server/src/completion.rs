//! `POST /v1/completions`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use stackelberg_data::Prompt;

use crate::app::{App, blocking};
use crate::asked::{Asked, Plan, Prompted, check_length, check_tokens, numbered};
use crate::body;
use crate::error::ApiError;
use crate::openai::prompts::Prompts;
use crate::openai::request::CompletionRequest;
use crate::pieces::Kind;
use crate::respond::respond;
use crate::{refuse, settings};

/// New tokens if the request does not say how many, as of OpenAI.
const TOKENS: usize = 16;

/// Continues texts.
#[utoipa::path(
    post, operation_id = "createCompletion", path = "/v1/completions", tag = "answers", request_body = CompletionRequest,
    responses((status = 200, description = "The answer; with `stream` its chunks as server-sent events: `data: ` and the JSON of a chunk, at the end `data: [DONE]`", content(
                  (inline(crate::openai::answer::Answer<crate::openai::answer::CompletionChoice>) = "application/json"),
                  (inline(crate::openai::answer::Answer<crate::openai::answer::CompletionChoice>) = "text/event-stream"))),
              (status = "4XX", description = "The request is wrong: the error names the field", body = crate::error::ErrorBody))
)]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let request: CompletionRequest = body::read(request, &app).await?;
    let shared = app.clone();
    let asked = blocking(move || asked(&shared, request)).await?;
    respond(&app, Kind::Completion, asked).await
}

/// What the request asks for.
fn asked(app: &App, mut request: CompletionRequest) -> Result<Asked, ApiError> {
    let common = request.common();
    let prompts = request.prompt.take();
    let count = match &prompts {
        None => 0,
        Some(Prompts::Texts(texts)) => texts.len(),
        Some(Prompts::Ids(lists)) => lists.len(),
    };
    let Some(prompts) = prompts.filter(|_| count > 0) else {
        return Err(ApiError::invalid("prompt", "prompt is missing: give a text or token ids"));
    };
    let logprobs = settings::likeliest("logprobs", request.logprobs)?;
    let plan = Plan::new(app, common, count, logprobs)?;
    refuse::completion(&request, plan.n())?;
    let prompts = prompted(app, prompts, plan.special(true))?;
    plan.with_prompts(app, prompts, "prompt", TOKENS)
}

/// Tokenizes prompts.
fn prompted(app: &App, prompts: Prompts, special: bool) -> Result<Vec<Prompted>, ApiError> {
    let tokenizer = &app.models.policy.tokenizer;
    let failed = |error| ApiError::engine(&error);
    match prompts {
        Prompts::Texts(texts) => {
            let count = texts.len();
            let prompted = |(number, text): (usize, String)| {
                check_length(app, &numbered("prompt", number, count), text.len())?;
                let tokens = tokenizer.encode(&text, special).map_err(failed)?;
                Ok(Prompted { tokens, text: None, prompt: Prompt::Text(text) })
            };
            texts.into_iter().enumerate().map(prompted).collect()
        }
        Prompts::Ids(lists) => {
            let count = lists.len();
            let prompted = |(number, tokens): (usize, Vec<u32>)| {
                let (context, field) = (app.models.policy.context(), numbered("prompt", number, count));
                if tokens.len() > context {
                    return Err(ApiError::no_room(&field, tokens.len(), context));
                }
                check_tokens(app, &field, &tokens)?;
                // Rewards read the text without special tokens.
                let prompt = Prompt::Text(tokenizer.decode(&tokens, false).map_err(failed)?);
                let text = tokenizer.decode(&tokens, true).map_err(failed)?;
                Ok(Prompted { tokens, text: Some(text), prompt })
            };
            lists.into_iter().enumerate().map(prompted).collect()
        }
    }
}
