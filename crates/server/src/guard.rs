//! What every request passes: the host it is addressed to, its key, its media type. Requests are counted here.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, State};
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{HeaderMap, Request, Response};
use axum::middleware::Next;
use axum::response::IntoResponse;

use crate::app::App;
use crate::error::ApiError;

/// Routes that need no key: the state of the server, for supervisors, and the files of the playground, which are no secret and ask
/// for the key.
const OPEN: [&str; 4] = ["/health", "/ready", "/", "/playground/{file}"];

/// The status of requests whose client went away, as in logs of nginx.
const GONE: u16 = 499;

/// Checks a request, has it answered, and counts it.
pub(crate) async fn guard(
    State(app): State<Arc<App>>,
    request: Request<Body>,
    next: Next,
) -> Response<Body> {
    let began = Instant::now();
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let path = path.unwrap_or_else(|| "other".to_owned());
    let method = request.method().clone();
    let mut unanswered = Unanswered::new(&app, &path);
    let response = match check(&app, &path, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    unanswered.is = false;
    drop(unanswered);
    let (status, milliseconds) = (response.status().as_u16(), began.elapsed().as_millis());
    app.metrics.request(&path, status);
    tracing::info!(%method, path, status, milliseconds, "request");
    response
}

/// Counts a request whose client goes away before it is answered.
struct Unanswered<'a> {
    app: &'a App,
    path: &'a str,
    is: bool,
}

impl<'a> Unanswered<'a> {
    fn new(app: &'a App, path: &'a str) -> Self {
        app.asks.fetch_add(1, Ordering::Relaxed);
        Self { app, path, is: true }
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.app.asks.fetch_sub(1, Ordering::Relaxed);
        if self.is {
            self.app.metrics.request(self.path, GONE);
            tracing::info!(path = self.path, status = GONE, "the client is gone");
        }
    }
}

fn check(app: &App, path: &str, request: &Request<Body>) -> Result<(), ApiError> {
    let headers = request.headers();
    if app.config.loopback && !is_local(request) {
        return Err(ApiError::host());
    }
    let keys = &app.config.keys;
    if !keys.is_empty() && !OPEN.contains(&path) {
        let key = bearer(headers).ok_or_else(ApiError::key)?;
        if !keys.has(key) {
            return Err(ApiError::key());
        }
    }
    Ok(())
}

/// The key in `Authorization: Bearer KEY`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// Whether a request is addressed to localhost or a loopback address: by its only header Host, and by its address if that has a
/// host.
fn is_local(request: &Request<Body>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let of_address = request.uri().authority().map(|authority| authority.as_str());
    host.to_str().is_ok_and(is_loopback) && of_address.is_none_or(is_loopback)
}

/// Whether HOST or HOST:PORT is localhost or a loopback address.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, "")) => (name, None),
            Some((name, rest)) => (name, Some(rest.strip_prefix(':').unwrap_or("none"))),
            None => return false,
        },
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    if port.is_some_and(|port| !port.bytes().all(|digit| digit.is_ascii_digit())) {
        return false;
    }
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: axum::http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().expect("a header"))])
    }

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "evil.com",
            "localhost.evil.com",
            "127.0.0.1.evil.com:80",
            "10.0.0.1",
            "[::2]",
            "",
            "[::1",
            "[::1]evil.com",
            "localhost:80@evil.com",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_request_has_one_host() {
        let local = |address: &str, hosts: &[&str]| {
            let request = Request::get(address);
            let request = hosts.iter().fold(request, |request, host| request.header(HOST, *host));
            is_local(&request.body(Body::empty()).expect("a request"))
        };
        assert!(local("/", &["localhost"]) && local("http://127.0.0.1:80/", &["localhost:80"]));
        assert!(
            !local("/", &[]) && !local("/", &["evil.com"]) && !local("/", &["localhost", "localhost"])
        );
        assert!(!local("/", &["localhost", "evil.com"]) && !local("http://evil.com/", &["localhost"]));
    }

    #[test]
    fn a_key_has_its_scheme() {
        assert_eq!(bearer(&headers(AUTHORIZATION, "bearer k")), Some("k"));
        for value in ["k", "Basic k", "Bearerk"] {
            assert_eq!(bearer(&headers(AUTHORIZATION, value)), None);
        }
    }
}
