//! One server: its address, and how it is doing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::LOCATION;
use reqwest::{Client, StatusCode, Url};
use serde_json::Value;
use stackelberg_http::redacted;

use crate::address;
use crate::connection::{Broken, headers, without};
use crate::key::Key;
use crate::message::{said, unexpected};
use crate::retry::{asked_wait, is_temporary};

/// Bytes of a response that are read at most.
pub(crate) const LONGEST_ANSWER: usize = 64 << 20;

/// A server.
pub(crate) struct Server {
    client: Client,
    /// The address that paths are below, such as `http://HOST:PORT/v1`.
    base: Url,
    /// The address as messages name it.
    shown: String,
    /// Texts that messages must not show.
    secrets: Vec<String>,
    timeout: Duration,
    /// Calls under way.
    busy: AtomicUsize,
    answered: AtomicBool,
    /// Until when it is left alone.
    until: Mutex<Option<Instant>>,
    /// Failures in a row.
    failures: AtomicUsize,
}

/// Why a call failed.
pub(crate) enum Failure {
    /// It may succeed later, or elsewhere.
    Temporary {
        problem: String,
        /// The wait that the server asks for.
        wait: Option<Duration>,
        /// Whether the server only has too much to do.
        busy: bool,
    },
    /// The response is not what it should be.
    Malformed(String),
    /// It would fail again.
    Final {
        problem: String,
        /// The status with which the server refused it.
        refused: Option<u16>,
    },
}

/// Counts a call while it is under way.
struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    /// A server whose paths are below the address `base`. Messages name it as `shown`. `timeout` is the longest time of a call.
    ///
    /// # Errors
    /// A sentence says what is wrong with the address or the key.
    pub(crate) fn new(
        base: &str,
        shown: String,
        key: Option<&Key>,
        timeout: Duration,
    ) -> Result<Self, String> {
        let fails = |problem: String| format!("{shown}: {problem}");
        let url = address::parse(base).map_err(fails)?;
        let (headers, secrets) =
            headers(&url, key).map_err(|setup| fails(format!("{}: {}", setup.name, setup.problem)))?;
        // Redirects are not followed: another server would see the key.
        let client = stackelberg_http::async_builder(base, timeout)
            .map_err(|error| fails(error.to_string()))?
            .timeout(timeout)
            .default_headers(headers)
            .build()
            .map_err(|error| fails(error.to_string()))?;
        Ok(Self {
            client,
            base: url,
            shown,
            secrets,
            timeout,
            busy: AtomicUsize::new(0),
            answered: AtomicBool::new(false),
            until: Mutex::new(None),
            failures: AtomicUsize::new(0),
        })
    }

    /// The address as messages name it.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Calls under way.
    pub(super) fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    /// Counts a call until the value is dropped.
    fn begin(&self) -> Busy<'_> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(&self.busy)
    }

    /// How long it is to be left alone.
    pub(super) fn rest(&self) -> Duration {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// It is left alone for so long.
    pub(super) fn leave_alone(&self, wait: Duration) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = (*until).max(Some(Instant::now() + wait));
    }

    /// Notes a failure; gives how many there were in a row.
    pub(super) fn failed(&self) -> usize {
        self.failures.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Notes a success.
    pub(super) fn succeeded(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// Posts a body to a path below the address (`completions`), or below its parent (`../tokenize`).
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.send_body(path, body.to_string()).await
    }

    async fn send_body(&self, path: &str, body: String) -> Result<Value, Failure> {
        let _busy = self.begin();
        self.send(self.client.post(self.url(path)).body(body)).await
    }

    /// Posts a body likewise, and reads the response.
    pub(super) async fn ask<T>(
        &self,
        path: &str,
        body: &str,
        read: impl Fn(&Value) -> Result<T, String>,
    ) -> Result<T, Failure> {
        let response = self.send_body(path, body.to_owned()).await?;
        read(&response).map_err(|problem| Failure::Malformed(self.named(problem)))
    }

    /// Gets a path, likewise.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(self.client.get(self.url(path))).await
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let own = url.path().trim_end_matches('/').to_owned();
        let path = match path.strip_prefix("../") {
            Some(path) => format!("{}/{path}", own.strip_suffix("/v1").unwrap_or(&own)),
            None => format!("{own}/{path}"),
        };
        url.set_path(&path);
        url
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, Failure> {
        let broken = |error| self.broken(error);
        let mut response = request.send().await.map_err(broken)?;
        self.answered.store(true, Ordering::Relaxed);
        let (status, wait) = (response.status(), asked_wait(response.headers()));
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("?");
            let problem = format!("{status}: it says to go to {}: give that address", redacted(to));
            return Err(self.refusal(problem, status));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if bytes.len() + chunk.len() > LONGEST_ANSWER {
                let problem = self.named(format!("answers with more than {LONGEST_ANSWER} bytes"));
                return Err(Failure::Final { problem, refused: None });
            }
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|_| {
                let said = String::from_utf8_lossy(&bytes);
                Failure::Malformed(self.named(unexpected(&said, "JSON")))
            });
        }
        let text = String::from_utf8_lossy(&bytes);
        let problem = match text.trim() {
            "" => status.to_string(),
            text => format!("{status}: {}", said(text)),
        };
        match is_temporary(status) && status != StatusCode::NOT_IMPLEMENTED {
            true => {
                let busy = status == StatusCode::TOO_MANY_REQUESTS;
                Err(Failure::Temporary { problem: self.named(problem), wait, busy })
            }
            false => Err(self.refusal(problem, status)),
        }
    }

    fn refusal(&self, problem: String, status: StatusCode) -> Failure {
        Failure::Final { problem: self.named(problem), refused: Some(status.as_u16()) }
    }

    fn broken(&self, error: reqwest::Error) -> Failure {
        match Broken::of(error, self.timeout, self.answered.load(Ordering::Relaxed)) {
            Broken::Connect { problem, hopeless: true } => {
                Failure::Final { problem: self.named(problem), refused: None }
            }
            Broken::Connect { problem, .. } | Broken::TimeOut(problem) | Broken::Cut(problem) => {
                Failure::Temporary { problem: self.named(problem), wait: None, busy: false }
            }
        }
    }

    /// A problem with the address in front, without the key and the secrets of the address.
    pub(crate) fn named(&self, problem: String) -> String {
        format!("{}: {}", self.shown, without(&self.secrets, problem))
    }
}

impl Failure {
    /// The problem.
    pub(crate) fn problem(self) -> String {
        match self {
            Self::Temporary { problem, .. } | Self::Malformed(problem) | Self::Final { problem, .. } => {
                problem
            }
        }
    }
}
