//! Bodies: read within limits of size and time, and parsed so that errors name the field.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::SemaphorePermit;

use crate::app::{App, Phase, blocking};
use crate::error::{ApiError, cut};
use crate::openai::objects::Fields;

/// Characters of a field's name that are repeated.
const FIELD: usize = 100;

/// Bytes from which on a body is parsed where nothing else waits for it.
const LARGE: usize = 64 << 10;

/// Reads a body as JSON.
///
/// # Errors
/// It is too large, comes too slowly, or is not JSON of this shape; or other bodies use all memory for bodies.
pub(crate) async fn read<T: DeserializeOwned + Send + 'static>(
    request: Request<Body>,
    app: &App,
) -> Result<T, ApiError> {
    // A page in a browser may send other types to any address without asking.
    if !is_json(request.headers()) {
        return Err(ApiError::media_type());
    }
    let limits = &app.config.limits;
    let length = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limits.body as u64) {
        return Err(ApiError::too_large(limits.body));
    }
    let body = tokio::time::timeout(limits.arrival, collect(request.into_body(), app));
    let mut phase = app.watch();
    let (bytes, _held) = tokio::select! {
        biased;
        body = body => body.map_err(|_| ApiError::slow_body())??,
        // What is not here when the server stops is not waited for.
        _ = phase.wait_for(|phase| *phase != Phase::Serving) => return Err(ApiError::stopping()),
    };
    if bytes.len() < LARGE {
        return parse(&bytes);
    }
    blocking(move || parse(&bytes)).await
}

/// Whether the media type is JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = media_type.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// The bytes of a body. They count as those of bodies while the permit is held.
async fn collect<'a>(
    mut body: Body,
    app: &'a App,
) -> Result<(Vec<u8>, Option<SemaphorePermit<'a>>), ApiError> {
    let most = app.config.limits.body;
    let (mut bytes, mut held) = (Vec::new(), None::<SemaphorePermit<'a>>);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::body("the body is incomplete"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return Err(ApiError::too_large(most));
        }
        let more = u32::try_from(data.len()).map_err(|_| ApiError::too_large(most))?;
        let more = app.bodies.try_acquire_many(more).map_err(|_| ApiError::memory())?;
        match &mut held {
            Some(held) => held.merge(more),
            None => held = Some(more),
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, held))
}

/// Parses a body.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut from = serde_json::Deserializer::from_slice(bytes);
    let Fields(value) = serde_path_to_error::deserialize(&mut from).map_err(|error| {
        let field = error.path().to_string();
        let said = plain(&error.inner().to_string());
        let path = Some(field).filter(|field| !matches!(field.as_str(), "." | "?"));
        let named = named(&said).map(|(what, name)| {
            // The path ends with an unknown field, and does not have one that is missing.
            let own = |path: &String| path.split('.').next_back() == Some(name);
            let field = match path.clone() {
                Some(path) if own(&path) => path,
                Some(path) => format!("{path}.{name}"),
                None => name.to_owned(),
            };
            ApiError::invalid(&field, format!("{}: {what}", cut(&field, FIELD)))
        });
        named.unwrap_or_else(|| match path {
            None => ApiError::body(format!("the body: {said}")),
            Some(field) if error.inner().is_data() => {
                let message = format!("{field}: {said}");
                ApiError::invalid(field, message)
            }
            Some(field) => ApiError::invalid(field, format!("the body is not JSON: {said}")),
        })
    })?;
    from.end().map_err(|error| ApiError::body(format!("the body: {error}")))?;
    Ok(value)
}

/// serde's message in the words of JSON.
fn plain(said: &str) -> String {
    let mut plain = said.to_owned();
    for (of_serde, of_json) in [
        ("invalid type: sequence,", "it is a list:"),
        ("invalid type: map,", "it is an object:"),
        ("invalid type: null,", "it is null:"),
        ("expected f64", "expected a number"),
        ("expected u64", "expected a whole number"),
        ("expected usize", "expected a whole number"),
        ("expected u32", "expected a whole number"),
        ("expected i64", "expected a whole number"),
        ("expected a sequence", "expected a list"),
        ("expected a boolean", "expected true or false"),
    ] {
        plain = plain.replace(of_serde, of_json);
    }
    plain
}

/// What serde's message says of a field, and the field's name.
fn named(said: &str) -> Option<(&'static str, &str)> {
    let whats = [
        ("unknown field `", "unknown field: /openapi.json has those that are known"),
        ("missing field `", "it is missing"),
        ("duplicate field `", "it is given twice"),
    ];
    let found = |(start, what)| Some((what, said.strip_prefix(start)?.split_once('`')?.0));
    whats.into_iter().find_map(found)
}

/// An answer as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<Response<Body>, ApiError> {
    Ok(of_json(text(value)?))
}

/// A value as JSON. Numbers that are not finite are null.
pub(crate) fn text(value: &impl Serialize) -> Result<String, ApiError> {
    serde_json::to_string(value).map_err(|error| ApiError::internal(&error))
}

/// An answer of JSON.
pub(crate) fn of_json(text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use axum::http::header::CONTENT_TYPE;

    use super::is_json;

    #[test]
    fn json_is_said() {
        for media_type in ["application/json", "Application/JSON; charset=utf-8"] {
            assert!(is_json(&HeaderMap::from_iter([(CONTENT_TYPE, media_type.parse().unwrap())])));
        }
        for media_type in ["text/plain", "application/x-www-form-urlencoded", "text/json", ""] {
            assert!(
                !is_json(&HeaderMap::from_iter([(CONTENT_TYPE, media_type.parse().unwrap())])),
                "{media_type}"
            );
        }
    }
}
