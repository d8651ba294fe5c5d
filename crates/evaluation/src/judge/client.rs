//! Talks to an OpenAI-compatible chat endpoint, and repeats what failed for a passing reason.

use std::error::Error as _;
use std::fmt;
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use reqwest::blocking::Response;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use serde_json::{Value, json};

use super::answer::{OF_TEXTS, Reply, asked_wait, reply, said, shortened};
use super::error::Error;
use super::verdict::{Failure, Identity, Kind};

/// A key, which no message shows.
#[derive(Clone)]
pub struct Key(String);

impl Key {
    /// A key as the server's owner gave it.
    pub fn new(key: &str) -> Self {
        Self(key.trim().to_owned())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(...)")
    }
}

/// Where the judge is, and how patiently it is asked.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `https://api.openai.com/v1`: what `/chat/completions` is put behind.
    pub base_url: String,
    /// `None` sends no key.
    pub key: Option<Key>,
    /// Most tokens of a reply.
    pub max_tokens: u64,
    /// What the server calls that: `max_tokens`, or `max_completion_tokens`.
    pub max_tokens_field: String,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// How often a call that failed for a passing reason is sent again.
    pub retries: u32,
    /// The wait before the first repetition; it doubles up to a minute.
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

/// Sends calls. It may be used from many threads.
#[derive(Debug)]
pub struct Client {
    http: reqwest::blocking::Client,
    url: String,
    endpoint: Endpoint,
    identity: Identity,
    /// The server asked everybody to wait until then.
    not_before: Mutex<Option<Instant>>,
    answered: AtomicBool,
}

/// Why there is no reply.
#[derive(Debug)]
pub(super) enum Trouble {
    /// This call failed, others may not.
    Failed(Failure),
    /// All calls would fail.
    Fatal(Error),
    /// The caller wants to stop.
    Stopped,
}

/// What came of one request.
enum Attempt {
    Reply(Reply),
    /// To be repeated, after the time that the server asked for.
    Again(Failure, Option<Duration>),
    /// To be repeated; if it stays so, nothing else will succeed either.
    AgainOrNever(Error, Option<Duration>),
    Trouble(Trouble),
}

/// A server that asks for more patience than this is not waited for.
const LONGEST_ASKED: Duration = Duration::from_secs(600);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Bytes of an answer that are read at most.
const LONGEST_ANSWER: u64 = 4 << 20;

impl Client {
    /// Prepares; nothing is sent.
    ///
    /// # Errors
    /// An address that is none, or holds credentials; a key that no header can hold; an extra field that this
    /// crate fills.
    pub fn new(endpoint: Endpoint, identity: Identity) -> Result<Self, Error> {
        let url = address(&endpoint.base_url)?;
        let own = [
            "model",
            "messages",
            "temperature",
            "seed",
            endpoint.max_tokens_field.as_str(),
            "stream",
            "n",
        ];
        if let Some(field) = identity.extra.keys().find(|field| own.contains(&field.as_str())) {
            let problem = format!("the field '{field}' is not for it to set");
            return Err(Error::Setting { name: "more of the request", problem });
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(Key(key)) = &endpoint.key {
            let problem =
                || "it holds characters that no HTTP header can: look for stray line ends".to_owned();
            let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                .map_err(|_| Error::Setting { name: "key", problem: problem() })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let wrong = |problem: String| Error::Setting { name: "HTTP client", problem };
        let builder = stackelberg_http::builder(url.as_str(), endpoint.timeout);
        let builder = builder.map_err(|e| wrong(e.to_string()))?.default_headers(headers);
        let http = builder.build().map_err(|e| wrong(chain(e)))?;
        let url = url.to_string();
        let (not_before, answered) = (Mutex::new(None), AtomicBool::new(false));
        Ok(Self { http, url, endpoint, identity, not_before, answered })
    }

    /// Who judges.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The address that calls go to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a form until there is a reply or no more hope; counts requests. `salt` decides how waits vary.
    pub(super) fn ask(
        &self,
        form: &str,
        salt: u64,
        requests: &mut u64,
        stop: &dyn Fn() -> bool,
    ) -> Result<Reply, Trouble> {
        let body = self.body(form).to_string();
        let mut rng = ChaCha12Rng::seed_from_u64(salt);
        let mut repeated = 0;
        loop {
            self.wait_for_all(stop)?;
            *requests += 1;
            let attempt = self.send(&body);
            let last = repeated == self.endpoint.retries;
            let asked = match attempt {
                Attempt::Reply(reply) => return Ok(reply),
                Attempt::Trouble(trouble) => return Err(trouble),
                Attempt::Again(failure, _) if last => return Err(Trouble::Failed(failure)),
                Attempt::AgainOrNever(error, _) if last => return Err(Trouble::Fatal(error)),
                Attempt::Again(_, asked) | Attempt::AgainOrNever(_, asked) => asked,
            };
            if let Some(asked) = asked
                && let Ok(mut not_before) = self.not_before.lock()
            {
                *not_before = (*not_before).max(Some(Instant::now() + asked));
            }
            let doubled =
                self.endpoint.first_wait.saturating_mul(1 << repeated.min(16)).min(LONGEST_WAIT);
            pause(Instant::now() + doubled.mul_f64(rng.random_range(0.5..1.0)), stop)?;
            repeated += 1;
        }
    }

    /// Waits as long as the server asked anybody to.
    fn wait_for_all(&self, stop: &dyn Fn() -> bool) -> Result<(), Trouble> {
        loop {
            let until = self.not_before.lock().ok().and_then(|until| *until);
            match until {
                Some(until) if until > Instant::now() => pause(until, stop)?,
                _ if stop() => return Err(Trouble::Stopped),
                _ => return Ok(()),
            }
        }
    }

    fn body(&self, form: &str) -> Value {
        let mut body = json!({
            "model": self.identity.model,
            "messages": [{"role": "user", "content": form}],
            self.endpoint.max_tokens_field.as_str(): self.endpoint.max_tokens,
        });
        if let Some(temperature) = self.identity.temperature {
            body["temperature"] = json!(temperature);
        }
        if let Some(seed) = self.identity.seed {
            body["seed"] = json!(seed);
        }
        for (field, value) in &self.identity.extra {
            body[field.as_str()] = value.clone();
        }
        body
    }

    fn send(&self, body: &str) -> Attempt {
        let response = match self.http.post(&self.url).body(body.to_owned()).send() {
            Ok(response) => response,
            Err(e) => return self.broken(e),
        };
        let status = response.status().as_u16();
        let asked = asked_wait(response.headers());
        if (300..400).contains(&status) {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("?");
            return self.refused(status, &format!("it says to go to {to}"), "; give that address");
        }
        let text = match self.read(response) {
            Ok(text) => text,
            Err(attempt) => return attempt,
        };
        self.answered.store(true, Ordering::Relaxed);
        if status != 200 {
            return self.judge_status(status, &text, asked);
        }
        match serde_json::from_str::<Value>(&text) {
            Ok(value) if value["choices"].is_array() => match reply(&value) {
                Some(reply) => Attempt::Reply(reply),
                None => again(Kind::Body, format!("no chat completion: {}", shortened(&text)), asked),
            },
            // Some servers pass on the failure of another under status 200.
            Ok(value) if value["error"].is_object() => {
                let status = value["error"]["code"].as_u64().and_then(|code| u16::try_from(code).ok());
                self.judge_status(status.unwrap_or(500), &text, asked)
            }
            _ => again(Kind::Body, format!("no chat completion: {}", shortened(&text)), asked),
        }
    }

    /// The answer's text, with the key struck out should the server repeat it.
    fn read(&self, response: Response) -> Result<String, Attempt> {
        let mut bytes = Vec::new();
        if let Err(e) = response.take(LONGEST_ANSWER).read_to_end(&mut bytes) {
            let inner = e.get_ref().and_then(|e| e.downcast_ref::<reqwest::Error>());
            return Err(match inner.is_some_and(reqwest::Error::is_timeout) {
                true => again(Kind::TimeOut, self.too_slow(), None),
                false => again(Kind::Cut, format!("the connection broke: {e}"), None),
            });
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(match &self.endpoint.key {
            Some(Key(key)) if !key.is_empty() => text.replace(key, "[key]"),
            _ => text,
        })
    }

    /// No answer at all.
    fn broken(&self, error: reqwest::Error) -> Attempt {
        if error.is_connect() {
            let unreachable = Error::Unreachable { url: self.url.clone(), problem: chain(error) };
            return match self.answered.load(Ordering::Relaxed) {
                true => Attempt::AgainOrNever(unreachable, None),
                false => Attempt::Trouble(Trouble::Fatal(unreachable)),
            };
        }
        match error.is_timeout() {
            true => again(Kind::TimeOut, self.too_slow(), None),
            false => again(Kind::Cut, format!("the connection broke: {}", chain(error)), None),
        }
    }

    fn too_slow(&self) -> String {
        format!("no answer within {:?}", self.endpoint.timeout)
    }

    /// An answer that is an error: passing, of these texts, or of all.
    fn judge_status(&self, status: u16, text: &str, asked: Option<Duration>) -> Attempt {
        let said = said(text);
        let lower = text.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        match status {
            429 if has(&["insufficient_quota"]) => self.refused(status, &said, "; the quota is used up"),
            429 | 503 if asked.is_some_and(|asked| asked > LONGEST_ASKED) => self.refused(
                status,
                &said,
                "; it asks for a wait of more than ten minutes: try again later",
            ),
            429 => Attempt::AgainOrNever(self.refusal(status, &said, ""), asked),
            408 | 409 | 425 | 500.. => again(Kind::Server, format!("status {status}: {said}"), asked),
            400 | 413 | 422 if has(&OF_TEXTS) => {
                let problem = format!("status {status}: {said}");
                Attempt::Trouble(Trouble::Failed(Failure { kind: Kind::Refused, problem }))
            }
            400 if has(&["max_completion_tokens"]) => {
                self.refused(status, &said, "; try --max-tokens-field max_completion_tokens")
            }
            400 if has(&["temperature"]) => self.refused(status, &said, "; try --no-temperature"),
            401 | 403 => self.refused(status, &said, "; is the key right, and in the environment?"),
            404 => self.refused(
                status,
                &said,
                "; are the address (it often ends in /v1) and the model right?",
            ),
            _ => self.refused(status, &said, ""),
        }
    }

    fn refusal(&self, status: u16, said: &str, hint: &'static str) -> Error {
        Error::Refused { url: self.url.clone(), status, said: said.to_owned(), hint }
    }

    fn refused(&self, status: u16, said: &str, hint: &'static str) -> Attempt {
        Attempt::Trouble(Trouble::Fatal(self.refusal(status, said, hint)))
    }
}

fn again(kind: Kind, problem: String, asked: Option<Duration>) -> Attempt {
    Attempt::Again(Failure { kind, problem }, asked)
}

/// The address of chat completions under a base.
fn address(base: &str) -> Result<reqwest::Url, Error> {
    let wrong =
        |problem: &str| Error::Setting { name: "base-url", problem: format!("{base}: {problem}") };
    let url = format!("{}/chat/completions", base.trim_end_matches('/'));
    let url = reqwest::Url::parse(&url).map_err(|e| wrong(&e.to_string()))?;
    if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none() {
        return Err(wrong("give an address that begins with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        let problem = "it may hold a secret (user, password or query): give the key in the environment";
        return Err(Error::Setting { name: "base-url", problem: problem.to_owned() });
    }
    Ok(url)
}

/// Sleeps, but wakes when the caller wants to stop.
fn pause(until: Instant, stop: &dyn Fn() -> bool) -> Result<(), Trouble> {
    loop {
        if stop() {
            return Err(Trouble::Stopped);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}

/// An error with its causes, without the address.
fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        said = format!("{said}: {inner}");
        cause = inner.source();
    }
    said
}
