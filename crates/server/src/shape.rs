//! Reward shaping of given rewards: `POST /shape`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use serde::Deserialize;
use stackelberg_decoding::{Options, Settings};
use stackelberg_registry::guidance::strength;
use stackelberg_shaping::{Confidence, Error, KlBudget, Record, Report, Samples};
use utoipa::ToSchema;

use crate::app::{App, blocking};
use crate::body;
use crate::error::ApiError;

/// Rewards of the responses to one prompt, and how to shape them.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShapeRequest {
    /// The rewards.
    #[serde(default)]
    rewards: Vec<f64>,
    /// The base policy's weights of the responses.
    weights: Option<Vec<f64>>,
    /// Or the logits of a step's candidates. Without either, the responses are samples of the base policy.
    logits: Option<Vec<f64>>,
    /// The shaping rule.
    shaping: Option<String>,
    /// The guidance strength, 1/beta.
    strength: Option<f64>,
    /// The KL coefficient, 1/strength.
    beta: Option<f64>,
    /// The bound: the largest shaped reward.
    bound: Option<f64>,
    /// Maximum KL from the base policy, in nats, instead of a bound or strength.
    kl_budget: Option<f64>,
    /// Steepness of the soft rules.
    alpha: Option<f64>,
    /// Largest shaped reward of the rule cap.
    cap: Option<f64>,
    /// Largest factor by which the rule minmax stretches rewards.
    stretch: Option<f64>,
    /// Quantile of the rewards that par and log-sigmoid subtract.
    ref_quantile: Option<f64>,
    /// Which bound takes effect: paper, reference-step or reference-offline.
    budget: Option<String>,
    /// Largest exponent in the budget reference-offline, in nats.
    exponent_cap: Option<f64>,
    /// Nominal level of the confidence interval for the threshold. Default: 0.9.
    level: Option<f64>,
}

/// Shapes rewards.
#[utoipa::path(post, path = "/shape", tag = "rewards", request_body = ShapeRequest,
    responses((status = 200, description = "The answer", body = Record), (status = "4XX", description = "The request is wrong: the error names the field", body = crate::error::ErrorBody)))]
pub(crate) async fn shape(
    State(app): State<Arc<App>>,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let request: ShapeRequest = body::read(request, &app).await?;
    let most = app.config.limits.rewards;
    if request.rewards.len() > most {
        let message =
            format!("rewards has {} rewards: this server takes at most {most}", request.rewards.len());
        return Err(ApiError::invalid("rewards", message));
    }
    blocking(move || body::json(&answer(&request)?)).await
}

fn wrong(error: Error) -> ApiError {
    let field = match &error {
        Error::Setting { name, .. } => name,
        Error::NotFinite { what, .. } | Error::Length { what, .. } | Error::NoMass { what } => what,
        Error::TwoPriors | Error::NegativeWeight { .. } => "weights",
        _ => "rewards",
    };
    let field = field.replace('-', "_");
    let message = match &error {
        Error::Setting { value, must, .. } => format!("{field} is {value}: it must be {must}"),
        error => error.to_string(),
    };
    ApiError::invalid(field, message)
}

fn answer(request: &ShapeRequest) -> Result<Record, ApiError> {
    let named = |field: &str, error: String| ApiError::invalid(field, format!("{field}: {error}"));
    let parse = |error: Error| named("shaping", error.to_string());
    let strength = strength(request.beta, request.strength).map_err(|error| named("beta", error))?;
    if request.bound.is_some() && request.kl_budget.is_some() {
        let message = "it has no effect with kl_budget, which solves for it: give one".to_owned();
        return Err(named("bound", message));
    }
    let options = Options {
        shaping: request.shaping.as_deref().map(str::parse).transpose().map_err(parse)?,
        strength,
        bound: request.bound,
        alpha: request.alpha,
        cap: request.cap,
        stretch: request.stretch,
        ref_quantile: request.ref_quantile,
        budget: request
            .budget
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|error: Error| named("budget", error.to_string()))?,
        exponent_cap: request.exponent_cap,
        ..Options::default()
    };
    let mut settings = Settings::default();
    options.apply(&mut settings);
    let shaping = settings.shaping;
    shaping.check().map_err(wrong)?;
    if let Some(nats) = request.kl_budget {
        KlBudget::check(&shaping, nats).map_err(wrong)?;
    }
    let confidence = Confidence::new(request.level.unwrap_or(0.9)).map_err(wrong)?;
    let samples =
        Samples::given(&request.rewards, request.weights.as_deref(), request.logits.as_deref());
    let samples = samples.map_err(wrong)?;
    let report = Report::new(&shaping, &samples, request.kl_budget, Some(&confidence)).map_err(wrong)?;
    Ok(Record::new(&report, request.logits.as_deref()))
}
