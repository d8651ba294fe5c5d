//! Bodies: read within limits of size and time, and parsed so that errors name the field.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Limits;
use crate::error::ApiError;

/// Reads a body as JSON.
///
/// # Errors
/// It is too large, comes too slowly, or is not JSON of this shape.
pub(crate) async fn read<T: DeserializeOwned>(
    request: Request<Body>,
    limits: &Limits,
) -> Result<T, ApiError> {
    let length = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limits.body as u64) {
        return Err(ApiError::too_large(limits.body));
    }
    let body = Limited::new(request.into_body(), limits.body).collect();
    let body = tokio::time::timeout(limits.arrival, body).await.map_err(|_| ApiError::slow_body())?;
    let bytes = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => ApiError::too_large(limits.body),
        None => ApiError::body("the body breaks off"),
    })?;
    parse(&bytes.to_bytes())
}

/// Parses a body.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut from = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut from).map_err(|error| {
        let field = error.path().to_string();
        let said = error.inner().to_string();
        match field.as_str() {
            "." | "?" => match unknown(&said) {
                Some(field) => ApiError::invalid(
                    &field,
                    format!("{field}: unknown field: /openapi.json has those that are known"),
                ),
                None => ApiError::body(format!("the body: {said}")),
            },
            field => {
                let inner = error.inner();
                let message = match unknown(&said) {
                    Some(_) => format!("{field}: unknown field: /openapi.json has those that are known"),
                    None if inner.is_data() => format!("{field}: {said}"),
                    None => format!("the body is not JSON: {said}"),
                };
                ApiError::invalid(field, message)
            }
        }
    })?;
    from.end().map_err(|error| ApiError::body(format!("the body: {error}")))?;
    Ok(value)
}

/// The name in serde's message about an unknown field.
fn unknown(said: &str) -> Option<String> {
    said.strip_prefix("unknown field `")?.split_once('`').map(|(name, _)| name.to_owned())
}

/// An answer as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<Response<Body>, ApiError> {
    let text = serde_json::to_string(value).map_err(|error| ApiError::internal(&error))?;
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
