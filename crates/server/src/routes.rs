//! The paths of the server. What every request passes first is in `guard`.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use crate::app::App;
use crate::error::ApiError;
use crate::guard::guard;
use crate::{chat, completion, info, openapi, playground, pooling, scoring, shape, tokens};

/// All paths.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/completions", post(completion::create))
        .route("/v1/models", get(info::models))
        .route("/v1/models/{*model}", get(info::model))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/tokenizer_info", get(tokens::tokenizer_info))
        .route("/score", post(scoring::score))
        .route("/classify", post(scoring::classify))
        .route("/pooling", post(pooling::pooling))
        .route("/shape", post(shape::shape))
        .route("/health", get(info::health))
        .route("/ready", get(info::ready))
        .route("/version", get(info::version))
        .route("/metrics", get(info::metrics))
        .route("/openapi.json", get(openapi::describe))
        .route("/", get(playground::page))
        .route("/playground/{file}", get(playground::file))
        .fallback(async || ApiError::no_page())
        .method_not_allowed_fallback(async || ApiError::method())
        .layer(from_fn_with_state(app.clone(), guard))
        .with_state(app)
}
