//! Requests to the hub: addresses, redirects, the token, and the meaning of status codes.

use std::thread::sleep;
use std::time::Duration;

use reqwest::blocking::{Client as Http, Response};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, Url};
use stackelberg_http::redacted;

use crate::reference::is_name;
use crate::{Hub, HubModel, SourceError};

/// Timeout until a response begins, and between two parts of it.
const TIMEOUT: Duration = Duration::from_secs(30);
const REDIRECTS: usize = 10;
/// Maximum number of attempts for a request that fails for a temporary reason.
const TRIES: u32 = 4;
/// The wait before the second try; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The hub cannot be reached.
    Unreachable(String),
    /// A temporary failure of the hub, or a broken connection.
    Failing(String),
    /// 401 or 403.
    Denied(u16),
    /// The hub has no such repository.
    NoRepo,
    /// The repository has no such revision.
    NoRevision,
    /// The revision has no such file.
    NoFile,
    /// 404 from a server that does not say what is missing.
    NotFound,
    /// Any other answer.
    Other(String),
    /// The download cannot be stored.
    Source(SourceError),
}

impl From<reqwest::Error> for Trouble {
    fn from(error: reqwest::Error) -> Self {
        let why = if error.is_timeout() {
            "no answer in time".to_owned()
        } else {
            stackelberg_http::root_cause(&error)
        };
        if error.is_connect() { Self::Unreachable(why) } else { Self::Failing(why) }
    }
}

/// Metadata of a file on the hub.
pub(super) struct About {
    pub(super) commit: String,
    /// The SHA-256 of a large file, the git object of a small one.
    pub(super) etag: String,
    /// Bytes.
    pub(super) size: Option<u64>,
}

/// A client for the files of one repository.
pub(super) struct Client {
    http: Http,
    repo: Url,
    token: Option<HeaderValue>,
}

impl Client {
    pub(super) fn new(hub: &Hub, model: &HubModel) -> Result<Self, Trouble> {
        let other = |why: String| Trouble::Other(why);
        let bad_address = || other(format!("'{}' is not the address of a hub", redacted(&hub.endpoint)));
        let mut repo = Url::parse(&hub.endpoint).map_err(|_| bad_address())?;
        if !["http", "https"].contains(&repo.scheme()) {
            return Err(bad_address());
        }
        let mut path = repo.path_segments_mut().map_err(|()| bad_address())?;
        path.pop_if_empty().extend([&model.org, &model.name, "resolve"]);
        drop(path);
        let mut token = None;
        if let Some(secret) = &hub.token {
            let header = HeaderValue::from_str(&format!("Bearer {}", secret.secret()));
            let mut header =
                header.map_err(|_| other("no HTTP header can hold the token".to_owned()))?;
            header.set_sensitive(true);
            token = Some(header);
        }
        let builder = stackelberg_http::builder(&hub.endpoint, TIMEOUT);
        let http = builder.map_err(|e| other(e.to_string()))?.build()?;
        Ok(Self { http, repo, token })
    }

    /// Requests a file's commit, checksum and size.
    pub(super) fn about(&self, file: &str, revision: &str) -> Result<About, Trouble> {
        let response = self.send(Method::HEAD, file, revision, 0)?;
        let header = |name| header(&response, name);
        let etag = header("x-linked-etag").or_else(|| header("etag"));
        let etag = etag.unwrap_or_default().trim_start_matches("W/").trim_matches('"');
        let commit = header("x-repo-commit").unwrap_or_default();
        // Both become names of files.
        if !is_name(etag) || !is_name(commit) {
            let why = format!("not the answer of a hub: {file} has commit '{commit}' and etag '{etag}'");
            return Err(Trouble::Other(why));
        }
        // The length of a redirect is not that of the file.
        let length = || header("content-length").filter(|_| response.status().is_success());
        let size = header("x-linked-size").or_else(length);
        let size = size.and_then(|size| size.parse().ok());
        Ok(About { commit: commit.to_owned(), etag: etag.to_owned(), size })
    }

    /// Requests a file's content, from byte `from` if the server supports ranges.
    pub(super) fn content(&self, file: &str, commit: &str, from: u64) -> Result<Response, Trouble> {
        self.send(Method::GET, file, commit, from)
    }

    /// Sends a request and follows redirects. For a HEAD request that is redirected to a storage server, the
    /// hub's own answer is returned. The token is sent to the hub alone.
    fn send(&self, method: Method, file: &str, revision: &str, from: u64) -> Result<Response, Trouble> {
        let mut url = self.repo.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(revision).extend(file.split('/'));
        }
        for _ in 0..=REDIRECTS {
            let is_hub = |url: &Url| url.origin() == self.repo.origin();
            let mut request = self.http.request(method.clone(), url.clone());
            request = request.header(ACCEPT_ENCODING, "identity");
            if let Some(token) = self.token.as_ref().filter(|_| is_hub(&url)) {
                request = request.header(AUTHORIZATION, token);
            }
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let response = request.send()?;
            let to = header(&response, LOCATION.as_str()).filter(|_| response.status().is_redirection());
            let Some(to) = to else { return read_status(response) };
            let next = url
                .join(to)
                .map_err(|_| Trouble::Other(format!("it redirects to '{}'", redacted(to))))?;
            if method == Method::HEAD && !is_hub(&next) && header(&response, "x-repo-commit").is_some() {
                return Ok(response);
            }
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(Trouble::Other("it redirects to an address without encryption".to_owned()));
            }
            url = next;
        }
        Err(Trouble::Other(format!("it redirects more than {REDIRECTS} times")))
    }
}

/// Retries requests that fail for a temporary reason. A refused connection is not retried.
pub(super) fn retry<T>(mut attempt: impl FnMut() -> Result<T, Trouble>) -> Result<T, Trouble> {
    let mut wait = FIRST_WAIT;
    for _ in 1..TRIES {
        match attempt() {
            Err(Trouble::Failing(_)) => sleep(wait),
            done => return done,
        }
        wait *= 2;
    }
    attempt()
}

pub(super) fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

fn read_status(response: Response) -> Result<Response, Trouble> {
    let status = response.status();
    match (status.as_u16(), header(&response, "x-error-code")) {
        // The hub answers 401 for an unknown repository if no token was sent.
        (401 | 404, Some("RepoNotFound")) => Err(Trouble::NoRepo),
        (404, Some("RevisionNotFound")) => Err(Trouble::NoRevision),
        (404, Some("EntryNotFound")) => Err(Trouble::NoFile),
        (404, _) if header(&response, "x-repo-commit").is_some() => Err(Trouble::NoFile),
        (404, _) => Err(Trouble::NotFound),
        (status @ (401 | 403), _) => Err(Trouble::Denied(status)),
        (408 | 429, _) => Err(Trouble::Failing(format!("it answers {status}"))),
        _ if status.is_server_error() => Err(Trouble::Failing(format!("it answers {status}"))),
        _ if status.is_success() => Ok(response),
        _ => Err(Trouble::Other(format!("it answers {status}"))),
    }
}
