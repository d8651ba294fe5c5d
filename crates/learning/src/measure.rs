/*!
Metrics of scores on held-out data, with standard errors.

Standard errors are those of a mean over `G` independent groups (the sandwich estimator with factor `G/(G-1)`), since
rows of one conversation are not independent. Standard errors of ratios and correlations are computed from their
influence functions.
*/

use crate::error::{Error, require_finite, require_same};
use crate::folds::members;

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// `pair accuracy`, `log-loss`, `Pearson r` or `R²`.
    pub name: &'static str,
    /// Value of the metric.
    pub value: f64,
    /// Standard error; NaN if there is only one group.
    pub standard_error: f64,
}

/// `[pair accuracy, log-loss]` of the raw scores `chosen` `[n]` and `rejected` `[n]` of `n` pairs.
///
/// The pair accuracy is the share of pairs in which `chosen` is larger; ties count one half. The log-loss is the mean
/// of `log(1 + exp(rejected - chosen))` in nats; it is ln 2 = 0.693 for a constant score. `groups` `[n]` are ids of
/// groups of dependent pairs.
///
/// # Errors
/// There are no pairs, the lengths differ, or a score is NaN or infinite.
pub fn pairs(chosen: &[f64], rejected: &[f64], groups: Option<&[u64]>) -> Result<[Metric; 2], Error> {
    require_finite("scores of chosen", chosen)?;
    require_finite("scores of rejected", rejected)?;
    require_same("rows", "scores of rejected", rejected.len(), "scores of chosen", chosen.len())?;
    let margins: Vec<f64> = chosen.iter().zip(rejected).map(|(c, r)| c - r).collect();
    margin(&margins, groups)
}

/// [`pairs`] of the margins `chosen - rejected`.
pub(crate) fn margin(margins: &[f64], groups: Option<&[u64]>) -> Result<[Metric; 2], Error> {
    if margins.is_empty() {
        return Err(Error::NothingToMeasure);
    }
    let hits: Vec<f64> =
        margins.iter().map(|&m| if m == 0.0 { 0.5 } else { f64::from(m > 0.0) }).collect();
    let losses: Vec<f64> = margins.iter().map(|&m| softplus(-m)).collect();
    Ok([mean_of("pair accuracy", &hits, groups)?, mean_of("log-loss", &losses, groups)?])
}

/// `[Pearson r, R²]` of `predictions` `[n]` against `targets` `[n]`.
///
/// R² is 1 minus the mean squared error divided by the variance of the targets. It depends on scale and offset of the
/// predictions; Pearson's r does not. `groups` `[n]` are ids of groups of dependent rows.
///
/// # Errors
/// There are no rows, the lengths differ, a value is NaN or infinite, or all predictions or all targets are equal.
pub fn ratings(
    predictions: &[f64],
    targets: &[f64],
    groups: Option<&[u64]>,
) -> Result<[Metric; 2], Error> {
    require_finite("predictions", predictions)?;
    require_finite("targets", targets)?;
    require_same("rows", "predictions", predictions.len(), "targets", targets.len())?;
    let x = standardised("predictions", predictions)?;
    let y = standardised("targets", targets)?;
    let n = targets.len() as f64;
    let r = x.z.iter().zip(&y.z).map(|(x, y)| x * y).sum::<f64>() / n;
    let influence = x.z.iter().zip(&y.z).map(|(x, y)| x * y - r * (x * x + y * y) / 2.0);
    let pearson = standard_error(&influence.collect::<Vec<_>>(), groups)?;

    // Squared errors in units of the targets' variance.
    let errors: Vec<f64> =
        predictions.iter().zip(targets).map(|(p, t)| ((t - p) / y.deviation).powi(2)).collect();
    let unexplained = errors.iter().sum::<f64>() / n;
    let influence = errors.iter().zip(&y.z).map(|(e, z)| unexplained * z * z - e);
    let share = standard_error(&influence.collect::<Vec<_>>(), groups)?;
    Ok([
        Metric { name: "Pearson r", value: r, standard_error: pearson },
        Metric { name: "R²", value: 1.0 - unexplained, standard_error: share },
    ])
}

/// `log(1 + exp(x))` without overflow.
pub(crate) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Mean and standard deviation (divisor `n`) of a slice that is not empty.
pub(crate) fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt())
}

struct Standardised {
    z: Vec<f64>,
    deviation: f64,
}

fn standardised(what: &'static str, values: &[f64]) -> Result<Standardised, Error> {
    if values.is_empty() {
        return Err(Error::NothingToMeasure);
    }
    let (mean, deviation) = moments(values);
    if deviation <= 1e-14 * mean.abs() || deviation == 0.0 {
        return Err(Error::Constant { what });
    }
    Ok(Standardised { z: values.iter().map(|v| (v - mean) / deviation).collect(), deviation })
}

fn mean_of(name: &'static str, values: &[f64], groups: Option<&[u64]>) -> Result<Metric, Error> {
    let (value, _) = moments(values);
    let centred: Vec<f64> = values.iter().map(|v| v - value).collect();
    Ok(Metric { name, value, standard_error: standard_error(&centred, groups)? })
}

/// Standard error of a statistic from the influences of its rows, `[n]`, which sum to zero.
fn standard_error(influence: &[f64], groups: Option<&[u64]>) -> Result<f64, Error> {
    let members = members(influence.len(), groups)?;
    let count = members.len() as f64;
    let squares: f64 =
        members.iter().map(|rows| rows.iter().map(|&row| influence[row]).sum::<f64>().powi(2)).sum();
    Ok((squares * count / (count - 1.0)).sqrt() / influence.len() as f64)
}
