//! The mathematics for whoever has rewards: `POST /shape`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use serde::{Deserialize, Serialize};
use stackelberg_decoding::{Options, Settings};
use stackelberg_shaping::{Confidence, Error, KlBudget, Report, Samples, argmax, fuse};
use utoipa::ToSchema;

use crate::app::App;
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

/// Shaped rewards.
#[derive(Serialize, ToSchema)]
pub(crate) struct ShapeAnswer {
    /// The threshold `m*`, for rules that have one.
    threshold: Option<f64>,
    residual: Option<f64>,
    /// The smallest reward that has the bound.
    lowest_rewarded: Option<f64>,
    /// The largest that has not.
    highest_unrewarded: Option<f64>,
    /// Confidence interval of the threshold.
    interval: Option<Range>,
    bound: Option<f64>,
    strength: f64,
    shaped: Vec<f64>,
    /// Logits plus strength times shaped rewards, where logits are given.
    fused: Option<Vec<f64>>,
    /// The index of the largest of them.
    chosen: Option<usize>,
    utility: Utility,
    kl: Kl,
    /// Effective number of responses that the follower has.
    ess: f64,
    /// Responses at or above the threshold.
    above: Option<usize>,
    warnings: Vec<String>,
}

/// A confidence interval.
#[derive(Serialize, ToSchema)]
pub(crate) struct Range {
    level: f64,
    low: f64,
    high: Option<f64>,
}

/// Expected rewards: of the base policy, and of the followers of raw and of shaped rewards.
#[derive(Serialize, ToSchema)]
pub(crate) struct Utility {
    base: f64,
    raw: f64,
    shaped: f64,
}

/// KL from the base policy in nats: of the followers of raw and of shaped rewards.
#[derive(Serialize, ToSchema)]
pub(crate) struct Kl {
    raw: f64,
    shaped: f64,
}

/// Shapes rewards.
#[utoipa::path(post, path = "/shape", tag = "rewards", request_body = ShapeRequest,
    responses((status = 200, body = ShapeAnswer), (status = "4XX", body = crate::error::ErrorBody)))]
pub(crate) async fn shape(
    State(app): State<Arc<App>>,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let request: ShapeRequest = body::read(request, &app.config.limits).await?;
    let most = 1000 * app.config.limits.texts;
    if request.rewards.len() > most {
        let message =
            format!("rewards has {} rewards: this server takes at most {most}", request.rewards.len());
        return Err(ApiError::invalid("rewards", message));
    }
    let work = move || body::json(&answer(&request)?);
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::internal(&error))?
}

fn wrong(error: Error) -> ApiError {
    let field = if let Error::Setting { name, .. } = &error { name } else { "rewards" };
    ApiError::invalid(field.replace('-', "_"), error.to_string())
}

fn answer(request: &ShapeRequest) -> Result<ShapeAnswer, ApiError> {
    let named = |field: &str, error: String| ApiError::invalid(field, format!("{field}: {error}"));
    let parse = |error: Error| named("shaping", error.to_string());
    let strength = match (request.beta, request.strength) {
        (Some(_), Some(_)) => {
            return Err(named("beta", "it is 1/strength: give one of them".to_owned()));
        }
        (Some(beta), None) if !(beta > 0.0 && beta.recip().is_finite()) => {
            return Err(named("beta", format!("it is {beta}: it must be above zero, and finite")));
        }
        (Some(beta), None) => Some(beta.recip()),
        (None, strength) => strength,
    };
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
    let rewards = &request.rewards;
    let samples = match (&request.weights, &request.logits) {
        (None, None) => Samples::new(rewards),
        (Some(weights), None) => Samples::weighted(rewards, weights),
        (None, Some(logits)) => Samples::from_logits(rewards, logits),
        (Some(_), Some(_)) => return Err(named("weights", "they exclude logits: give one".to_owned())),
    };
    let samples = samples.map_err(wrong)?;
    let report = Report::new(&shaping, &samples, request.kl_budget, Some(&confidence)).map_err(wrong)?;
    let threshold = report.shaped.threshold;
    let fused = request.logits.as_ref();
    let fused = fused.map(|logits| fuse(logits, &report.shaped.values, report.shaping.strength));
    Ok(ShapeAnswer {
        threshold: threshold.map(|t| t.value),
        residual: threshold.map(|t| t.residual),
        lowest_rewarded: threshold.map(|t| t.lowest_rewarded),
        highest_unrewarded: threshold.and_then(|t| t.highest_unrewarded),
        interval: report.interval.map(|i| Range { level: i.level, low: i.low, high: i.high }),
        bound: report.shaped.bound,
        strength: report.shaping.strength,
        chosen: fused.as_deref().and_then(argmax),
        fused,
        utility: Utility {
            base: report.base_utility,
            raw: report.raw.utility,
            shaped: report.follower.utility,
        },
        kl: Kl { raw: report.raw.kl, shaped: report.follower.kl },
        ess: report.follower.ess,
        above: threshold.map(|t| t.above),
        warnings: report.warnings.iter().map(ToString::to_string).collect(),
        shaped: report.shaped.values,
    })
}
