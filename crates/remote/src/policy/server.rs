//! One server: its address, and how it is doing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode, Url};
use serde_json::Value;
use stackelberg_http::redacted;

use crate::address;
use crate::connection::{Broken, headers, without};
use crate::key::Key;
use crate::message::said;
use crate::retry::{asked_wait, is_temporary};

/// The longest time of a call.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Bytes of a response that are read at most.
const LONGEST_ANSWER: usize = 64 << 20;

/// A server.
pub(super) struct Server {
    client: Client,
    /// `http://HOST:PORT/v1`.
    base: Url,
    pub(super) shown: String,
    secrets: Vec<String>,
    /// Calls under way.
    busy: AtomicUsize,
    answered: AtomicBool,
    /// Until when it is left alone.
    until: Mutex<Option<Instant>>,
    /// Failures in a row.
    failures: AtomicUsize,
}

/// Why a call failed.
pub(super) enum Failure {
    /// It may succeed later, or elsewhere.
    Temporary {
        problem: String,
        /// The wait that the server asks for.
        wait: Option<Duration>,
        /// Whether the server only has too much to do.
        busy: bool,
    },
    /// It would fail again.
    Final(String),
}

/// Counts a call while it is under way.
pub(super) struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    /// # Errors
    /// A sentence says what is wrong with the address or the key.
    pub(super) fn new(text: &str, key: Option<&Key>) -> Result<Self, String> {
        let shown = redacted(text);
        let fails = |problem: String| format!("{shown}: {problem}");
        let base = address::parse(text.trim_end_matches('/')).map_err(fails)?;
        let (headers, secrets) =
            headers(&base, key).map_err(|setup| fails(format!("{}: {}", setup.name, setup.problem)))?;
        // Redirects are not followed: another server would see the key.
        let client = stackelberg_http::async_builder(text, TIMEOUT)
            .map_err(|error| fails(error.to_string()))?
            .timeout(TIMEOUT)
            .default_headers(headers)
            .build()
            .map_err(|error| fails(error.to_string()))?;
        Ok(Self {
            client,
            base,
            shown,
            secrets,
            busy: AtomicUsize::new(0),
            answered: AtomicBool::new(false),
            until: Mutex::new(None),
            failures: AtomicUsize::new(0),
        })
    }

    /// Calls under way.
    pub(super) fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    /// Counts a call until the value is dropped.
    pub(super) fn begin(&self) -> Busy<'_> {
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
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.client.post(self.url(path)).body(body.to_string());
        self.send(request).await
    }

    /// Gets a path, likewise.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
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
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if bytes.len() + chunk.len() > LONGEST_ANSWER {
                return Err(Failure::Final(
                    self.named(format!("answers with more than {LONGEST_ANSWER} bytes")),
                ));
            }
            bytes.extend_from_slice(&chunk);
        }
        let text = String::from_utf8_lossy(&bytes);
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|_| {
                let start: String = text.chars().take(120).collect();
                Failure::Temporary {
                    problem: self.named(format!("answered '{start}', not JSON")),
                    wait,
                    busy: false,
                }
            });
        }
        if status.is_redirection() {
            let problem = format!("{status}: it says to go elsewhere: give that address");
            return Err(Failure::Final(self.named(problem)));
        }
        let problem = match text.trim() {
            "" => status.to_string(),
            text => format!("{status}: {}", said(text)),
        };
        let problem = self.named(without(&self.secrets, problem));
        let busy = status == StatusCode::TOO_MANY_REQUESTS;
        match is_temporary(status) && status != StatusCode::NOT_IMPLEMENTED {
            true => Err(Failure::Temporary { problem, wait, busy }),
            false => Err(Failure::Final(problem)),
        }
    }

    fn broken(&self, error: reqwest::Error) -> Failure {
        match Broken::of(error, TIMEOUT, self.answered.load(Ordering::Relaxed)) {
            Broken::Connect { problem, hopeless: true } => Failure::Final(self.named(problem)),
            Broken::Connect { problem, .. } | Broken::TimeOut(problem) | Broken::Cut(problem) => {
                Failure::Temporary { problem: self.named(problem), wait: None, busy: false }
            }
        }
    }

    /// A problem with the address in front.
    pub(super) fn named(&self, problem: String) -> String {
        format!("{}: {problem}", self.shown)
    }
}

impl Failure {
    /// The problem.
    pub(super) fn problem(self) -> String {
        match self {
            Self::Temporary { problem, .. } | Self::Final(problem) => problem,
        }
    }
}
