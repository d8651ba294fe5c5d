//! Settings of the chat client.

use std::time::Duration;

use reqwest::Url;
use serde_json::{Map, Value};
use stackelberg_http::redacted;

use super::error::Error;
use crate::address;
use crate::key::Key;

/// The server, and how long it is waited for.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The address before `/chat/completions`, for example `https://api.openai.com/v1`.
    pub base_url: String,
    /// The API key; `None` sends no key.
    pub key: Option<Key>,
    /// The most tokens of a reply.
    pub max_tokens: u64,
    /// The request's field for it: `max_tokens` or `max_completion_tokens`.
    pub max_tokens_field: String,
    /// The longest wait for one response.
    pub timeout: Duration,
    /// How often a request that failed for a temporary reason is sent again.
    pub retries: u32,
    /// The wait before the first repetition. It doubles with each repetition, up to one minute.
    pub first_wait: Duration,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self {
            base_url: "https://api.openai.com/v1".to_owned(),
            key: None,
            max_tokens: 256,
            max_tokens_field: "max_tokens".to_owned(),
            timeout: Duration::from_secs(120),
            retries: 6,
            first_wait: Duration::from_secs(1),
        }
    }
}

impl Endpoint {
    /// The address of chat completions.
    pub(super) fn url(&self) -> Result<Url, Error> {
        let wrong = |problem: String| Error::Setting { name: "base-url", problem };
        let base = &self.base_url;
        let url = address::parse(&format!("{}/chat/completions", base.trim_end_matches('/')))
            .map_err(|problem| wrong(format!("{}: {problem}", redacted(base))))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            let problem = "it may hold a secret (user, password or query): pass the key by itself";
            return Err(wrong(problem.to_owned()));
        }
        Ok(url)
    }
}

/// The model and how it samples: what each request sends beside the messages.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// The model's name on the server.
    pub model: String,
    /// The sampling temperature; `None` leaves the field out, for models that accept only their default.
    pub temperature: Option<f64>,
    /// The sampling seed, for servers that support one.
    pub seed: Option<u64>,
    /// More fields of the request: `reasoning_effort`, `grammar`, ...
    pub extra: Map<String, Value>,
}
