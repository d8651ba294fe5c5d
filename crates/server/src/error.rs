//! Errors: those that clients get, in the shape of OpenAI, and those that end the server.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use stackelberg_decoding::Error as Decoding;
use stackelberg_engine::Error as Engine;
use stackelberg_shaping::Error as Shaping;
use utoipa::ToSchema;

/// Why the server cannot start, or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is no good.
    #[error("{0}")]
    Setting(String),

    /// A model or reward cannot be loaded.
    #[error(transparent)]
    Registry(#[from] stackelberg_registry::Error),

    /// The address cannot be listened on, or the runtime cannot start.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },

    /// The thread that decodes has ended. Nothing can be answered any more.
    #[error("the decoding thread has ended: {0}")]
    Engine(String),
}

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error as clients get it.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// The field of the request that is wrong, if one is.
    pub(crate) param: Option<String>,
    code: &'static str,
    /// Seconds after which to try again.
    retry_after: Option<u64>,
}

/// The body of an error.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorInfo,
}

/// What went wrong.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorInfo {
    /// One line that says what is wrong and what to do.
    message: String,
    /// The kind of error: `invalid_request_error`, `authentication_error`, `rate_limit_error` or `server_error`.
    r#type: &'static str,
    /// The field of the request that is wrong.
    param: Option<String>,
    /// A name for programs.
    code: &'static str,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code, retry_after: None }
    }

    /// 400: this field is wrong.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        let param = Some(param.into());
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, "invalid_value", message) }
    }

    /// 400: the body is no JSON object of the right shape.
    pub(crate) fn body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_body", message)
    }

    /// 400: the field exists, and is not supported.
    pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: "unsupported", ..Self::invalid(param, message) }
    }

    /// 400: prompt and answer do not fit.
    pub(crate) fn too_long(param: &str, message: impl Into<String>) -> Self {
        Self { code: "context_length_exceeded", ..Self::invalid(param, message) }
    }

    /// 400: the prompt alone does not fit.
    pub(crate) fn no_room(field: &str, prompt: usize, context: usize) -> Self {
        let message = format!(
            "{field} has {prompt} tokens: with one new token it must fit the context of {context}"
        );
        Self::too_long(field, message)
    }

    /// 401.
    pub(crate) fn key() -> Self {
        let message = "the API key is missing or wrong: send it as 'Authorization: Bearer KEY'";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
    }

    /// 403: the request came under a name that this server does not have.
    pub(crate) fn host() -> Self {
        let message = "this server answers to localhost only: its address is a loopback address";
        Self::new(StatusCode::FORBIDDEN, "wrong_host", message)
    }

    /// 404: there is no such page.
    pub(crate) fn no_page() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "unknown path: see /openapi.json")
    }

    /// 404: there is no such model.
    pub(crate) fn no_model(message: impl Into<String>) -> Self {
        let param = Some("model".to_owned());
        Self { param, ..Self::new(StatusCode::NOT_FOUND, "model_not_found", message) }
    }

    /// 405.
    pub(crate) fn method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "method not allowed for this path",
        )
    }

    /// 408: the body did not come in time.
    pub(crate) fn slow_body() -> Self {
        let message = "the body of the request did not arrive in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
    }

    /// 413.
    pub(crate) fn too_large(most: usize) -> Self {
        let message = format!("the body is too large: this server takes at most {most} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    }

    /// 415.
    pub(crate) fn media_type() -> Self {
        let message = "the body must be JSON: send 'Content-Type: application/json'";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    /// 503: too much has to be kept in memory.
    pub(crate) fn memory() -> Self {
        let message = "the bodies of other requests use all memory for bodies: try again in 1 s";
        let full = Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message);
        Self { retry_after: Some(1), ..full }
    }

    /// The client reads so slowly that its answer is given up.
    pub(crate) fn slow_reader() -> Self {
        let message = "the client does not read the stream: the answer was stopped";
        Self::new(StatusCode::REQUEST_TIMEOUT, "slow_reader", message)
    }

    /// 429: the queue is full.
    pub(crate) fn busy(retry_after: u64) -> Self {
        let message = format!("the queue is full: try again in {retry_after} s");
        let busy = Self::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message);
        Self { retry_after: Some(retry_after), ..busy }
    }

    /// 503: the server is about to end.
    pub(crate) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", "the server is shutting down")
    }

    /// 500. What happened is for the operator: it may name files and addresses.
    pub(crate) fn internal(error: &dyn std::fmt::Display) -> Self {
        let error = error.to_string();
        tracing::error!(?error, "a request failed");
        let message = "internal error: see the server's log";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// What decoding says of a request.
    pub(crate) fn decoding(error: &Decoding) -> Self {
        match error {
            Decoding::Setting { name, value, must } => {
                let field = field(name);
                let value = if *value < 1e15 { value.to_string() } else { format!("{value:e}") };
                Self::invalid(&field, format!("{field} is {value}: it must be {must}"))
            }
            Decoding::TooLarge { name, value, most } => {
                let field = field(name);
                Self::invalid(&field, format!("{field} is {value}: it must be at most {most}"))
            }
            Decoding::Unused { field: name, .. }
            | Decoding::UnusedByBest { field: name }
            | Decoding::UnusedByDraw { field: name }
            | Decoding::UnusedWithoutReject { field: name } => {
                let said = error.to_string();
                let field = field(name);
                Self::invalid(&field, said.replacen(name, &field, 1))
            }
            Decoding::Rule(Shaping::Setting { name, value, must }) => {
                let field = field(name);
                Self::invalid(&field, format!("{field} is {value}: it must be {must}"))
            }
            Decoding::Rule(rule) => Self::invalid("guidance", format!("guidance: {rule}")),
            Decoding::NotRemote(_) => Self::invalid("guidance", error.to_string()),
            // The address of the server is the operator's.
            Decoding::Server(error) => {
                tracing::error!(?error, "the policy's server failed");
                let message = "the policy's server failed: see the log of this one";
                Self::new(StatusCode::BAD_GATEWAY, "bad_gateway", message)
            }
            Decoding::NoReward(_) => Self::invalid("guidance.reward", error.to_string()),
            Decoding::NoValueHead => Self::invalid("guidance.value", error.to_string()),
            Decoding::Engine(engine) => Self::engine(engine),
            Decoding::Prompt { source, .. } => Self::decoding(source),
            // The texts of these name no files.
            Decoding::Shaping { .. } | Decoding::Reward { .. } | Decoding::Logits { .. } => {
                Self { message: error.to_string(), ..Self::internal(error) }
            }
            _ => Self::internal(error),
        }
    }

    /// What the engine says of a request.
    pub(crate) fn engine(error: &Engine) -> Self {
        match error {
            Engine::Context { .. } => Self::too_long("prompt", error.to_string()),
            Engine::RewardContext { tokens, context, .. } => Self::too_long(
                "prompt",
                format!(
                    "{tokens} tokens do not fit the reward's context of {context}: shorten the prompt"
                ),
            ),
            Engine::NoTokens => Self::invalid("prompt", "the prompt is empty"),
            Engine::NoHiddenStates => Self::invalid("model", error.to_string()),
            Engine::Token { .. } => Self::invalid("prompt", error.to_string()),
            Engine::Tokenizer(_) => Self::invalid("prompt", error.to_string()),
            Engine::Template(_) => Self::invalid("messages", error.to_string()),
            _ => Self::internal(error),
        }
    }

    /// The body, also for errors in a stream.
    pub(crate) fn json(&self) -> String {
        let r#type = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let (message, param) = (cut(&self.message, MESSAGE), self.param.as_deref());
        let param = param.map(|param| cut(param, PARAM));
        let body = ErrorBody { error: ErrorInfo { message, r#type, param, code: self.code } };
        serde_json::to_string(&body).unwrap_or_default()
    }
}

/// Characters of a message, which may repeat what a request says.
const MESSAGE: usize = 1000;
/// Characters of a field's name.
const PARAM: usize = 200;

/// The beginning of a text that is too long.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// Settings that are fields of requests under the same name.
const OF_REQUESTS: [&str; 11] = [
    "temperature",
    "top_p",
    "min_p",
    "top_k",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "min_tokens",
    "seed",
    "stop",
];

/// The name of a setting in requests.
fn field(name: &str) -> String {
    match name {
        "max-new-tokens" | "max_new_tokens" => "max_tokens".to_owned(),
        "the length of a stop text" => "stop".to_owned(),
        "the perturbation's standard deviation" => "guidance.perturbation".to_owned(),
        "stop-tokens" | "stop_tokens" => "stop_token_ids".to_owned(),
        name => match name.replace('-', "_") {
            field if OF_REQUESTS.contains(&field.as_str()) => field,
            field => format!("guidance.{field}"),
        },
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.json()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
