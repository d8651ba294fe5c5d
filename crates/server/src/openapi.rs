//! The description of the interface, for tools.

use axum::body::Body;
use axum::http::Response;
use serde_json::{Value, json};
use stackelberg_decoding::{Method, Options, Settings};
use stackelberg_registry::guidance::{OWN, is_own};
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr, ResponseBuilder, Schema};
use utoipa::{Modify, OpenApi, PartialSchema, ToSchema};

use crate::error::ApiError;
use crate::{body, chat, completion, info, pooling, scoring, shape, tokens};

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
        pooling::pooling,
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
    modifiers(&Common)
)]
struct Interface;

/// Adds what all paths have in common: how a key is sent, and errors.
struct Common;

impl Modify for Common {
    fn modify(&self, interface: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let bearer = bearer
            .description(Some("The key that the operator gave: Authorization: Bearer KEY"))
            .build();
        let components = interface.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(bearer));
        let error = |description: &str| {
            let content = Content::new(Some(Ref::from_schema_name("ErrorBody")));
            let response = ResponseBuilder::new().description(description);
            RefOr::T(response.content("application/json", content).build())
        };
        for path in interface.paths.paths.values_mut() {
            for operation in [&mut path.get, &mut path.post].into_iter().flatten() {
                let responses = &mut operation.responses.responses;
                for (status, description) in [
                    ("4XX", "The key is missing or wrong (401), or the host is not this server's (403)"),
                    ("5XX", "The server is about to end (503), or something failed"),
                ] {
                    responses.entry(status.to_owned()).or_insert_with(|| error(description));
                }
            }
        }
    }
}

/// The schema of `guidance`: all settings, with the type of their defaults.
pub(crate) struct Guidance;

impl ToSchema for Guidance {}

impl PartialSchema for Guidance {
    fn schema() -> RefOr<Schema> {
        let defaults = json!(Options::all(&Settings::default()));
        let mut object = ObjectBuilder::new().description(Some(
            "What guides the answer. Which settings a method uses is in /v1/models and in the guide.",
        ));
        let text = |name: &str| matches!(name, "reward" | "value" | "extends" | "method");
        let settings = Options::FIELDS.iter().map(|(name, _)| *name).filter(|name| is_own(name));
        for name in settings.chain(OWN).chain(["method"]) {
            let of = match &defaults[name] {
                _ if text(name) => Type::String,
                Value::String(_) => Type::String,
                Value::Bool(_) => Type::Boolean,
                Value::Number(number) if number.is_u64() => Type::Integer,
                _ if name == "trace" => Type::Boolean,
                _ => Type::Number,
            };
            let types = SchemaType::from_iter([of, Type::Null]);
            let mut field = ObjectBuilder::new().schema_type(types);
            if name == "method" {
                let names = Method::ALL.map(|method| Some(method.name()));
                field = field.enum_values(Some(names.into_iter().chain([None])));
            }
            object = object.property(name, field);
        }
        RefOr::T(Schema::Object(object.build()))
    }
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "server", responses((status = 200, description = "The answer", body = Object)))]
pub(crate) async fn describe() -> Result<Response<Body>, ApiError> {
    body::json(&Interface::openapi())
}
