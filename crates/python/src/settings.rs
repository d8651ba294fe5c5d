//! The settings of a call.

use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::{PyResult, pyclass, pymethods};
use stackelberg_shaping::{Confidence, Error, KlBudget, Shaping};

use crate::error::general;

/// Valid settings; what is not given has the default of the shaping crate.
#[pyclass(frozen, module = "stackelberg._lib")]
pub(crate) struct Settings {
    pub(crate) shaping: Shaping,
    pub(crate) kl_budget: Option<f64>,
    level: f64,
}

/// Default nominal level of confidence intervals, as on the command line.
const LEVEL: f64 = 0.9;

#[pymethods]
impl Settings {
    #[new]
    #[pyo3(signature = (*, rule=None, strength=None, beta=None, bound=None, alpha=None, cap=None, stretch=None,
        ref_quantile=None, budget=None, exponent_cap=None, kl_budget=None, level=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        rule: Option<&str>,
        strength: Option<f64>,
        beta: Option<f64>,
        bound: Option<f64>,
        alpha: Option<f64>,
        cap: Option<f64>,
        stretch: Option<f64>,
        ref_quantile: Option<f64>,
        budget: Option<&str>,
        exponent_cap: Option<f64>,
        kl_budget: Option<f64>,
        level: Option<f64>,
    ) -> PyResult<Self> {
        exclusive("strength", strength, "beta", beta)?;
        exclusive("bound", bound, "kl_budget", kl_budget)?;
        let default = Shaping::default();
        let shaping = Shaping {
            rule: parsed(rule, default.rule)?,
            strength: beta.map(reciprocal).transpose()?.or(strength).unwrap_or(default.strength),
            bound: bound.unwrap_or(default.bound),
            alpha: alpha.unwrap_or(default.alpha),
            cap: cap.unwrap_or(default.cap),
            stretch: stretch.unwrap_or(default.stretch),
            ref_quantile: ref_quantile.unwrap_or(default.ref_quantile),
            budget: parsed(budget, default.budget)?,
            exponent_cap: exponent_cap.unwrap_or(default.exponent_cap),
        };
        shaping.check().map_err(|e| general(&e))?;
        if let Some(nats) = kl_budget {
            KlBudget::check(&shaping, nats).map_err(|e| general(&e))?;
        }
        let settings = Self { shaping, kl_budget, level: level.unwrap_or(LEVEL) };
        if level.is_some() {
            settings.confidence()?;
        }
        Ok(settings)
    }
}

impl Settings {
    /// What computes intervals at the level of these settings. It takes longer to make than to shape a prompt, so the latest is
    /// kept.
    pub(crate) fn confidence(&self) -> PyResult<Confidence> {
        static LATEST: Mutex<Option<(f64, Confidence)>> = Mutex::new(None);
        let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
        match latest.as_ref() {
            Some((level, confidence)) if *level == self.level => Ok(confidence.clone()),
            _ => {
                let confidence = Confidence::new(self.level).map_err(|e| general(&e))?;
                *latest = Some((self.level, confidence.clone()));
                Ok(confidence)
            }
        }
    }
}

/// Refuses two settings that are given for the same thing.
fn exclusive(one: &str, first: Option<f64>, other: &str, second: Option<f64>) -> PyResult<()> {
    match (first, second) {
        (Some(_), Some(_)) => {
            Err(PyValueError::new_err(format!("{one} and {other} exclude each other: give one")))
        }
        _ => Ok(()),
    }
}

fn parsed<T: std::str::FromStr<Err = Error>>(name: Option<&str>, default: T) -> PyResult<T> {
    name.map_or(Ok(default), |name| name.parse().map_err(|e| general(&e)))
}

/// The strength `1/beta`.
fn reciprocal(beta: f64) -> PyResult<f64> {
    if beta > 0.0 && beta.is_finite() {
        return Ok(beta.recip());
    }
    Err(general(&Error::Setting { name: "beta", value: beta, must: "above zero, and finite" }))
}
