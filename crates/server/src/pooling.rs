//! The policy's hidden states: `POST /pooling`, in the shape of vLLM's. Texts are read in chunks between the steps of the engine,
//! so that answers go on meanwhile.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use stackelberg_engine::Error as EngineError;
use utoipa::ToSchema;

use crate::app::{App, now};
use crate::asked::{check_model, check_tokens, numbered};
use crate::body;
use crate::engine::Places;
use crate::error::ApiError;
use crate::openai::answer::Usage;
use crate::openai::prompts::{Prompts, PromptsSchema};

/// Tokens that are read between two steps.
const CHUNK: usize = 64;

/// Texts whose hidden states are wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "some fields are accepted and not used")]
pub(crate) struct PoolingRequest {
    /// The policy.
    model: Option<String>,
    /// Token ids of one text or of several.
    #[schema(value_type = PromptsSchema)]
    input: Prompts,
    /// The states of all tokens, or of each text's last one.
    #[serde(default)]
    task: Task,
    /// Must be false: states are not normalised.
    use_activation: Option<bool>,
    #[serde(default)]
    encoding_format: Encoding,
    /// Accepted and not used.
    user: Option<String>,
}

#[derive(Deserialize, ToSchema, Clone, Copy, Default, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Task {
    #[default]
    TokenEmbed,
    Embed,
}

#[derive(Deserialize, ToSchema, Clone, Copy, Default)]
#[serde(rename_all = "snake_case")]
enum Encoding {
    #[default]
    Float,
    /// Of little-endian 32-bit numbers.
    Base64,
}

/// Hidden states of texts.
#[derive(Serialize, ToSchema)]
pub(crate) struct Pooled {
    id: String,
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: String,
    data: Vec<PooledText>,
    usage: Usage,
}

/// Hidden states of a text.
#[derive(Serialize, ToSchema)]
struct PooledText {
    index: usize,
    object: &'static str,
    data: Rows,
}

/// Hidden states after the final norm.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Rows {
    /// Of all tokens.
    All(Vec<Vec<f32>>),
    /// Of the last token.
    Last(Vec<f32>),
    /// One after the other.
    Base64(String),
}

/// Hidden states of the policy, after the final norm.
#[utoipa::path(post, path = "/pooling", tag = "tokens", request_body = PoolingRequest,
    responses((status = 200, description = "The answer", body = Pooled), (status = "4XX", description = "The request is wrong: the error names the field", body = crate::error::ErrorBody)))]
pub(crate) async fn pooling(
    State(app): State<Arc<App>>,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let PoolingRequest { model, input, task, use_activation, encoding_format, .. } =
        body::read(request, &app).await?;
    check_model(&app, model.as_deref())?;
    if use_activation == Some(true) {
        let message = "use_activation is not supported: hidden states are not normalised";
        return Err(ApiError::unsupported("use_activation", message));
    }
    let Prompts::Ids(texts) = input else {
        return Err(ApiError::invalid("input", "input must be token ids: /tokenize gives them"));
    };
    texts.iter().enumerate().try_for_each(|(number, text)| {
        check_tokens(&app, &numbered("input", number, texts.len()), text)
    })?;
    let (tokens, most) = (texts.iter().map(Vec::len).sum(), app.models.policy.context());
    if tokens > most {
        let message = format!("input has {tokens} tokens: at most {most} fit one request");
        return Err(ApiError::too_long("input", message));
    }
    let place = app.engine.reserve(1)?;
    let read = async {
        let _reads = app.readers.acquire().await.map_err(|error| ApiError::internal(&error))?;
        let mut data = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let rows = encoded(rows(&app, &place, text, task).await?, encoding_format, task);
            data.push(PooledText { index, object: "pooling", data: rows });
        }
        Ok(data)
    };
    let data = app.unless_aborted(read).await?;
    let (id, model) = (app.id("pooling"), app.models.name.clone());
    let usage = Usage::new(tokens, 0);
    body::json(&Pooled { id, object: "list", created: now(), model, data, usage })
}

/// The hidden states of a text, one row per token, or the last row.
async fn rows(app: &App, place: &Places, text: &[u32], task: Task) -> Result<Vec<Vec<f32>>, ApiError> {
    let Some(model) = app.models.policy.local() else {
        let message = "hidden states are not available: the policy runs on a server";
        return Err(ApiError::invalid("model", message));
    };
    let (mut prefix, mut rows) = (model.model.empty(), Vec::new());
    for chunk in text.chunks(CHUNK) {
        let chunk = chunk.to_vec();
        let read = app.engine.run(place, move |policy| {
            let model = &policy.local().ok_or(EngineError::NoHiddenStates)?.model;
            let hidden = model.extend(&mut prefix, &chunk)?; // [chunk, d]
            Ok::<_, EngineError>((prefix, hidden.to_vec2::<f32>()?))
        });
        let (grown, mut found) = read.await?.map_err(|error| ApiError::engine(&error))?;
        prefix = grown;
        if task == Task::Embed {
            rows.clear();
            found.drain(..found.len().saturating_sub(1));
        }
        rows.append(&mut found);
    }
    Ok(rows)
}

fn encoded(mut rows: Vec<Vec<f32>>, encoding: Encoding, task: Task) -> Rows {
    match (encoding, task) {
        (Encoding::Base64, _) => {
            let bytes: Vec<u8> = rows.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
            Rows::Base64(STANDARD.encode(bytes))
        }
        (Encoding::Float, Task::TokenEmbed) => Rows::All(rows),
        (Encoding::Float, Task::Embed) => Rows::Last(rows.pop().unwrap_or_default()),
    }
}
