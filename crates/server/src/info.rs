//! What the server is and how it does: models, health, version, counters, its interface.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use stackelberg_decoding::{Keep, Method, Options, Settings};
use stackelberg_registry::guidance;
use stackelberg_shaping::Rule;
use utoipa::ToSchema;

use crate::app::{App, Phase};
use crate::asked::check_model;
use crate::body;
use crate::config::Limits;
use crate::error::ApiError;
use crate::settings::{self, UNGUIDED_TEMPERATURE};

/// The list of models.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList {
    object: &'static str,
    /// The policy.
    data: Vec<ModelInfo>,
    /// The rewards that requests may name or combine.
    rewards: Vec<String>,
    /// The value heads that requests may name.
    values: Vec<String>,
    /// The methods of guidance.
    methods: Vec<MethodInfo>,
    /// The values of settings that are names.
    choices: Choices,
}

/// A method of guidance.
#[derive(Serialize, ToSchema)]
pub(crate) struct MethodInfo {
    name: &'static str,
    /// What `guidance` must have: `reward`, `value`.
    needs: Vec<&'static str>,
    /// What `guidance` may have of these.
    takes: Vec<&'static str>,
    /// The other fields of `guidance` that the method uses.
    settings: Vec<&'static str>,
    /// Their defaults, and those of `temperature` and `top_p` of the request.
    defaults: Map<String, Value>,
}

/// The values of settings that are names.
#[derive(Serialize, ToSchema)]
pub(crate) struct Choices {
    shaping: Vec<&'static str>,
    keep: Vec<&'static str>,
}

/// A model.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelInfo {
    id: String,
    object: &'static str,
    /// When it was loaded, in seconds since 1970.
    created: u64,
    owned_by: &'static str,
    /// The most tokens of prompt and answer together.
    max_model_len: usize,
}

/// The policy.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "server", params(("model" = String, Path)),
    responses((status = 200, description = "The answer", body = ModelInfo), (status = 404, description = "There is no such model", body = crate::error::ErrorBody)))]
pub(crate) async fn model(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Response<Body>, ApiError> {
    check_model(&app, Some(&name))?;
    body::json(&policy(&app))
}

fn policy(app: &App) -> ModelInfo {
    let models = &app.models;
    ModelInfo {
        id: models.name.clone(),
        object: "model",
        created: models.created,
        owned_by: "stackelberg",
        max_model_len: models.policy.context(),
    }
}

/// The policy, the names of rewards and value heads, and the methods of guidance with their settings.
#[utoipa::path(get, path = "/v1/models", tag = "server", responses((status = 200, description = "The answer", body = ModelList)))]
pub(crate) async fn models(State(app): State<Arc<App>>) -> Result<Response<Body>, ApiError> {
    let models = &app.models;
    body::json(&ModelList {
        object: "list",
        data: vec![policy(&app)],
        rewards: models.rewards().map(str::to_owned).collect(),
        values: models.values().map(str::to_owned).collect(),
        methods: Method::ALL.into_iter().map(|method| about(method, &app.config.limits)).collect(),
        choices: Choices {
            shaping: Rule::ALL.into_iter().map(Rule::name).collect(),
            keep: Keep::ALL.into_iter().map(Keep::name).collect(),
        },
    })
}

fn about(method: Method, limits: &Limits) -> MethodInfo {
    let mut options = Options { method: Some(method), ..Options::default() };
    let settings = match settings::limit_defaults(&mut options, limits) {
        Ok(()) => options.settings().unwrap_or_else(|_| Settings::new(method)),
        Err(_) => Settings::new(method),
    };
    let mut defaults = match serde_json::to_value(settings) {
        Ok(Value::Object(settings)) => settings,
        _ => Map::new(),
    };
    let names = || guidance::names(method).chain(["temperature", "top_p"]);
    defaults.retain(|name, _| names().any(|own| own == name));
    if method == Method::Base {
        defaults.insert("temperature".to_owned(), UNGUIDED_TEMPERATURE.into());
    }
    MethodInfo {
        name: method.name(),
        needs: guidance::needs(method).to_vec(),
        takes: guidance::takes(method).to_vec(),
        settings: guidance::names(method).collect(),
        defaults,
    }
}

/// The state of the server.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`, or `draining`.
    status: &'static str,
}

/// Whether the server lives.
#[utoipa::path(get, path = "/health", tag = "server", responses((status = 200, description = "The answer", body = Health)))]
pub(crate) async fn health(State(app): State<Arc<App>>) -> Result<Response<Body>, ApiError> {
    let status = if app.phase() == Phase::Serving { "ok" } else { "draining" };
    body::json(&Health { status })
}

/// Whether the server takes requests.
#[utoipa::path(get, path = "/ready", tag = "server",
    responses((status = 200, description = "The answer", body = Health), (status = 503, description = "The server is about to end", body = crate::error::ErrorBody)))]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Response<Body>, ApiError> {
    match app.phase() {
        Phase::Serving => body::json(&Health { status: "ok" }),
        _ => Err(ApiError::stopping()),
    }
}

/// The version of the server.
#[derive(Serialize, ToSchema)]
pub(crate) struct Version {
    version: &'static str,
}

/// The version of the server.
#[utoipa::path(get, path = "/version", tag = "server", responses((status = 200, description = "The answer", body = Version)))]
pub(crate) async fn version() -> Result<Response<Body>, ApiError> {
    body::json(&Version { version: env!("CARGO_PKG_VERSION") })
}

/// Counters for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "server",
    responses((status = 200, description = "The answer", body = String, content_type = "application/openmetrics-text")))]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response<Body> {
    let mut response = Response::new(Body::from(app.metrics.text()));
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
