//! A page for people: a prompt, answered without guidance and with it, side by side. Its files are part of the program and ask no
//! other server for anything.

use axum::body::Body;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Response};

use crate::error::ApiError;

const PAGE: &str = include_str!("playground/page.html");

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Files below `/playground/`: name, media type, content.
const FILES: [(&str, &str, &str); 8] = [
    ("page.css", CSS, include_str!("playground/page.css")),
    ("page.js", JAVASCRIPT, include_str!("playground/page.js")),
    ("settings.js", JAVASCRIPT, include_str!("playground/settings.js")),
    ("stream.js", JAVASCRIPT, include_str!("playground/stream.js")),
    ("answer.js", JAVASCRIPT, include_str!("playground/answer.js")),
    ("step.js", JAVASCRIPT, include_str!("playground/step.js")),
    ("curves.js", JAVASCRIPT, include_str!("playground/curves.js")),
    ("dom.js", JAVASCRIPT, include_str!("playground/dom.js")),
];

/// The page may use its own files and this server, nothing else, and may not be shown inside of others.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri \
                      'none'; form-action 'none'; frame-ancestors 'none'";

/// The page.
pub(crate) async fn page() -> Response<Body> {
    answer("text/html; charset=utf-8", PAGE)
}

/// One of its files.
pub(crate) async fn file(Path(name): Path<String>) -> Result<Response<Body>, ApiError> {
    let file = FILES.iter().find(|(file, _, _)| *file == name);
    file.map(|(_, media_type, content)| answer(media_type, content)).ok_or_else(ApiError::no_page)
}

fn answer(media_type: &'static str, content: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(content));
    let headers = [
        (CONTENT_TYPE, media_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-cache"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    response.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}
