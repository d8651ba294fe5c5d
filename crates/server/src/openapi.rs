//! The description of the interface, for tools.

use axum::body::Body;
use axum::http::Response;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

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
    components(schemas(crate::error::ErrorBody)),
    // A server without keys asks for none.
    security((), ("key" = [])),
    modifiers(&Key)
)]
struct Interface;

/// Adds how a key is sent.
struct Key;

impl Modify for Key {
    fn modify(&self, interface: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let bearer = bearer
            .description(Some("The key that the operator gave: Authorization: Bearer KEY"))
            .build();
        let components = interface.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(bearer));
    }
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "server", responses((status = 200, description = "The answer", body = Object)))]
pub(crate) async fn describe() -> Result<Response<Body>, ApiError> {
    body::json(&Interface::openapi())
}
