//! Bodies: read within limits of size and time, and parsed so that errors name the field.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::SemaphorePermit;

use crate::app::{App, blocking};
use crate::error::ApiError;
use crate::openai::objects::Fields;

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
    let limits = &app.config.limits;
    let length = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limits.body as u64) {
        return Err(ApiError::too_large(limits.body));
    }
    let body = tokio::time::timeout(limits.arrival, collect(request.into_body(), app));
    let (bytes, _held) = body.await.map_err(|_| ApiError::slow_body())??;
    if bytes.len() < LARGE {
        return parse(&bytes);
    }
    blocking(move || parse(&bytes)).await
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
