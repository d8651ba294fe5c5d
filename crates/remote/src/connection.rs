//! The HTTP transport: posts JSON to one address.

use std::error::Error as _;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::blocking::{Client, Response};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{StatusCode, Url};
use stackelberg_http::redacted;

use crate::address::secrets;
use crate::key::Key;
use crate::retry::asked_wait;

/// A server's address, with the client that posts to it. It may be used from many threads.
pub(crate) struct Connection {
    http: Client,
    url: Url,
    /// The address without credentials.
    shown: String,
    /// Texts that are removed from what the server sends.
    secrets: Vec<String>,
    timeout: Duration,
    /// Most bytes that are read of a response.
    longest: u64,
    /// Whether there was any response yet.
    answered: AtomicBool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("url", &self.shown).finish_non_exhaustive()
    }
}

/// A setting that the connection cannot be made with.
pub(crate) struct Setup {
    /// The setting.
    pub(crate) name: &'static str,
    /// What is wrong and what to do.
    pub(crate) problem: String,
}

/// A response.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// The body; empty for a redirect.
    pub(crate) text: String,
    /// The wait that the server asks for.
    pub(crate) wait: Option<Duration>,
    /// Where a redirect leads; `None` for other responses.
    pub(crate) redirect: Option<String>,
}

/// Why there is no response.
pub(crate) enum Broken {
    /// There is no connection.
    Connect { problem: String, hopeless: bool },
    /// There is no response in time.
    TimeOut(String),
    /// The connection ended before the response did.
    Cut(String),
}

impl Connection {
    /// Prepares a client; nothing is sent. Responses are read up to `longest` bytes.
    ///
    /// # Errors
    /// The key cannot be a header, there are a key and a password, or the system's certificates cannot be loaded.
    pub(crate) fn new(
        url: Url,
        key: Option<&Key>,
        timeout: Duration,
        longest: u64,
    ) -> Result<Self, Setup> {
        let (headers, secrets) = headers(&url, key)?;
        let failed = |problem: String| Setup { name: "HTTP client", problem };
        // Redirects are not followed: another server would see the key.
        let builder = stackelberg_http::builder(url.as_str(), timeout)
            .map_err(|e| failed(e.to_string()))?
            .default_headers(headers);
        let http = builder.build().map_err(|e| failed(with_causes(e)))?;
        let shown = redacted(url.as_str());
        let answered = AtomicBool::new(false);
        Ok(Self { http, url, shown, secrets, timeout, longest, answered })
    }

    /// The address, without credentials.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether there was any response yet.
    pub(crate) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Sends a JSON body once.
    pub(crate) fn post(&self, body: &str) -> Result<Answer, Broken> {
        let sent = self.http.post(self.url.clone()).body(body.to_owned()).send();
        let response = sent.map_err(|error| self.broken(error))?;
        self.answered.store(true, Ordering::Relaxed);
        let status = response.status();
        let wait = asked_wait(response.headers());
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("?");
            let redirect = Some(self.without_secrets(redacted(to)));
            return Ok(Answer { status, text: String::new(), wait, redirect });
        }
        let text = self.read(response)?;
        // Short secrets may be part of a score; errors hold no numbers that count.
        let text = if status.is_success() { text } else { self.without_secrets(text) };
        Ok(Answer { status, text, wait, redirect: None })
    }

    fn read(&self, response: Response) -> Result<String, Broken> {
        let mut bytes = Vec::new();
        if let Err(e) = response.take(self.longest).read_to_end(&mut bytes) {
            let inner = e.get_ref().and_then(|e| e.downcast_ref::<reqwest::Error>());
            return Err(match inner.is_some_and(reqwest::Error::is_timeout) {
                true => self.too_slow(),
                false => Broken::Cut(format!("the connection broke: {e}")),
            });
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A text for messages, without the key and the secrets of the address.
    pub(crate) fn without_secrets(&self, text: String) -> String {
        without(&self.secrets, text)
    }

    fn broken(&self, error: reqwest::Error) -> Broken {
        Broken::of(error, self.timeout, self.has_answered())
    }

    fn too_slow(&self) -> Broken {
        Broken::too_slow(self.timeout)
    }
}

impl Broken {
    /// Why there is no response, by the client's error. `answered`: whether the server has answered before.
    pub(crate) fn of(error: reqwest::Error, timeout: Duration, answered: bool) -> Self {
        if error.is_connect() {
            let hopeless = match cause(&error) {
                Cause::Tls => true,
                Cause::UnknownHost => !answered,
                Cause::Other => false,
            };
            return Self::Connect { problem: with_causes(error), hopeless };
        }
        match error.is_timeout() {
            true => Self::too_slow(timeout),
            false => Self::Cut(format!("the connection broke: {}", with_causes(error))),
        }
    }

    fn too_slow(timeout: Duration) -> Self {
        Self::TimeOut(format!("no answer within {timeout:?}"))
    }
}

/// The headers of requests to an address, and the texts that messages must not show.
///
/// # Errors
/// The key cannot be a header, or there are a key and a password.
pub(crate) fn headers(url: &Url, key: Option<&Key>) -> Result<(HeaderMap, Vec<String>), Setup> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut secrets = secrets(url);
    if let Some(key) = key.filter(|key| !key.text().is_empty()) {
        let wrong = |problem: &str| Setup { name: "key", problem: problem.to_owned() };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("the address holds a user or password too: give only one of the two"));
        }
        let stray = "it holds characters that no HTTP header can: look for stray line ends";
        headers.insert(AUTHORIZATION, key.header().ok_or_else(|| wrong(stray))?);
        secrets.push(key.text().to_owned());
    }
    Ok((headers, secrets))
}

/// A text without these secrets.
pub(crate) fn without(secrets: &[String], text: String) -> String {
    secrets.iter().fold(text, |text, secret| text.replace(secret, "[key]"))
}

/// Why a connection could not be made.
enum Cause {
    /// The certificate is bad, or the server does not speak TLS.
    Tls,
    /// The host's name does not resolve.
    UnknownHost,
    Other,
}

fn cause(error: &reqwest::Error) -> Cause {
    let mut link = error.source();
    while let Some(inner) = link {
        // TLS errors are invalid data. Only this text marks failed look-ups.
        if inner.downcast_ref::<io::Error>().is_some_and(is_invalid_data) {
            return Cause::Tls;
        }
        if inner.to_string() == "dns error" {
            return Cause::UnknownHost;
        }
        link = inner.source();
    }
    Cause::Other
}

/// Whether an I/O error, or the one that it wraps, is of the kind `InvalidData`.
fn is_invalid_data(error: &io::Error) -> bool {
    let inner = || error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>());
    error.kind() == io::ErrorKind::InvalidData || inner().is_some_and(is_invalid_data)
}

/// An error with its causes, without the address.
fn with_causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        said = format!("{said}: {inner}");
        cause = inner.source();
    }
    said
}
