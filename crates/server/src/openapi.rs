//! The description of the interface, for tools.

use axum::body::Body;
use axum::http::Response;
use utoipa::OpenApi;

use crate::error::ApiError;
use crate::{body, chat, completion, info, scoring, shape, tokens};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "stackelberg serve",
        description = "Answers that follow a reward, with the guidance chosen per request"
    ),
    paths(
        chat::create,
        completion::create,
        tokens::tokenize,
        tokens::detokenize,
        tokens::tokenizer_info,
        scoring::score,
        scoring::classify,
        shape::shape,
        info::models,
        info::model,
        info::health,
        info::ready,
        info::version,
        info::metrics,
        describe,
    ),
    components(schemas(crate::error::ErrorBody))
)]
struct Interface;

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "server", responses((status = 200, description = "The answer", body = Object)))]
pub(crate) async fn describe() -> Result<Response<Body>, ApiError> {
    body::json(&Interface::openapi())
}
