//! The functions of one quantity each.

use numpy::PyArray1;
use pyo3::exceptions::PyTypeError;
use pyo3::{IntoPyObject, PyResult, Python, pyfunction};
use stackelberg_shaping::{Follower, Interval, KlBudget, Shaped, Shaping, Threshold};

use crate::columns::{Column, column, optional};
use crate::rows::Rows;
use crate::settings::Settings;
use crate::walk::walk;

/// Thresholds with their certificates; NaN (`above`: 0) for rules without a threshold.
#[derive(IntoPyObject)]
pub(crate) struct Thresholds<'py> {
    threshold: Column<'py>,
    residual: Column<'py>,
    lowest_rewarded: Column<'py>,
    highest_unrewarded: Column<'py>,
    above: Column<'py, i64>,
    mass: Column<'py>,
    exponent: Column<'py>,
}

impl<'py> Thresholds<'py> {
    fn new<T>(py: Python<'py>, prompts: &[T], of: impl Fn(&T) -> Option<Threshold>) -> Self {
        Self {
            threshold: optional(py, prompts, |x| Some(of(x)?.value)),
            residual: optional(py, prompts, |x| Some(of(x)?.residual)),
            lowest_rewarded: optional(py, prompts, |x| Some(of(x)?.lowest_rewarded)),
            highest_unrewarded: optional(py, prompts, |x| of(x)?.highest_unrewarded),
            above: column(py, prompts, |x| of(x).map_or(0, |t| t.above as i64)),
            mass: optional(py, prompts, |x| Some(of(x)?.mass)),
            exponent: optional(py, prompts, |x| Some(of(x)?.exponent)),
        }
    }
}

/// The threshold of each row, at the exponent bound times strength.
#[pyfunction]
pub(crate) fn threshold<'py>(
    py: Python<'py>,
    rows: Rows<'py>,
    settings: &Settings,
    threads: isize,
) -> PyResult<Thresholds<'py>> {
    let exponent = settings.shaping.bound * settings.shaping.strength;
    let found = walk(py, &rows, threads, |prompt, _| Threshold::new(&prompt.samples()?, exponent))?;
    Ok(Thresholds::new(py, &found.prompts, |&threshold| Some(threshold)))
}

/// Confidence intervals: NaN where there is none, and infinity where there is no high end.
#[derive(IntoPyObject)]
pub(crate) struct Intervals<'py> {
    level: f64,
    low: Column<'py>,
    high: Column<'py>,
}

impl<'py> Intervals<'py> {
    pub(crate) fn new<T>(
        py: Python<'py>,
        level: f64,
        prompts: &[T],
        of: impl Fn(&T) -> Option<Interval>,
    ) -> Self {
        let low = optional(py, prompts, |x| Some(of(x)?.low));
        let high = optional(py, prompts, |x| Some(of(x)?.high.unwrap_or(f64::INFINITY)));
        Self { level, low, high }
    }
}

/// The interval of each row's threshold, at the exponent bound times strength.
#[pyfunction]
pub(crate) fn interval<'py>(
    py: Python<'py>,
    rows: Rows<'py>,
    settings: &Settings,
    threads: isize,
) -> PyResult<Intervals<'py>> {
    let exponent = settings.shaping.bound * settings.shaping.strength;
    let confidence = settings.confidence()?;
    let found = walk(py, &rows, threads, |prompt, _| {
        let samples = prompt.samples()?;
        Ok(confidence.interval(&samples, &Threshold::new(&samples, exponent)?))
    })?;
    Ok(Intervals::new(py, confidence.level(), &found.prompts, |&interval| interval))
}

/// Shaped rewards, with the settings in effect and the thresholds.
#[derive(IntoPyObject)]
pub(crate) struct ShapedRows<'py> {
    /// All of them, in the order of the rows.
    shaped: Column<'py>,
    bound: Column<'py>,
    strength: Column<'py>,
    thresholds: Thresholds<'py>,
}

impl<'py> ShapedRows<'py> {
    /// `of` gives a prompt's bound, strength and threshold.
    pub(crate) fn new<T>(
        py: Python<'py>,
        shaped: Vec<f64>,
        prompts: &[T],
        of: impl Fn(&T) -> (Option<f64>, f64, Option<Threshold>),
    ) -> Self {
        Self {
            shaped: PyArray1::from_vec(py, shaped),
            bound: optional(py, prompts, |x| of(x).0),
            strength: column(py, prompts, |x| of(x).1),
            thresholds: Thresholds::new(py, prompts, |x| of(x).2),
        }
    }
}

/// Each row's shaped rewards, without a KL budget.
#[pyfunction]
pub(crate) fn shape<'py>(
    py: Python<'py>,
    rows: Rows<'py>,
    settings: &Settings,
    threads: isize,
) -> PyResult<ShapedRows<'py>> {
    let shaping = settings.shaping;
    let found = walk(py, &rows, threads, |prompt, responses| {
        let Shaped { mut values, bound, threshold } = shaping.apply(&prompt.samples()?)?;
        responses.append(&mut values);
        Ok((bound, shaping.strength, threshold))
    })?;
    Ok(ShapedRows::new(py, found.responses, &found.prompts, |&shaped| shaped))
}

/// Followers of shaped rewards.
#[derive(IntoPyObject)]
pub(crate) struct Followers<'py> {
    policy: Column<'py>,
    utility: Column<'py>,
    kl: Column<'py>,
    ess: Column<'py>,
}

/// The follower of each row's `shaped`.
#[pyfunction]
pub(crate) fn follower<'py>(
    py: Python<'py>,
    rows: Rows<'py>,
    settings: &Settings,
    threads: isize,
) -> PyResult<Followers<'py>> {
    let strength = settings.shaping.strength;
    let found = walk(py, &rows, threads, |prompt, responses| {
        let found = Follower::respond(&prompt.samples()?, prompt.shaped(), strength)?;
        responses.extend(found.policy);
        Ok((found.utility, found.kl, found.ess))
    })?;
    Ok(Followers {
        policy: PyArray1::from_vec(py, found.responses),
        utility: column(py, &found.prompts, |&(utility, _, _)| utility),
        kl: column(py, &found.prompts, |&(_, kl, _)| kl),
        ess: column(py, &found.prompts, |&(_, _, ess)| ess),
    })
}

/// Settings that spend a KL budget.
#[derive(IntoPyObject)]
pub(crate) struct Budgets<'py> {
    bound: Column<'py>,
    strength: Column<'py>,
    kl: Column<'py>,
    saturated: Column<'py, bool>,
}

/// The settings of each row that spend the KL budget.
#[pyfunction]
pub(crate) fn kl_budget<'py>(
    py: Python<'py>,
    rows: Rows<'py>,
    settings: &Settings,
    threads: isize,
) -> PyResult<Budgets<'py>> {
    let nats =
        settings.kl_budget.ok_or_else(|| PyTypeError::new_err("nats must be a number, not None"))?;
    let found = walk(py, &rows, threads, |prompt, _| {
        KlBudget::solve(&settings.shaping, &prompt.samples()?, nats)
    })?;
    let bounded = |shaping: &Shaping| shaping.rule.has_bound().then_some(shaping.bound);
    Ok(Budgets {
        bound: optional(py, &found.prompts, |solved| bounded(&solved.shaping)),
        strength: column(py, &found.prompts, |solved| solved.shaping.strength),
        kl: column(py, &found.prompts, |solved| solved.kl),
        saturated: column(py, &found.prompts, |solved| solved.saturated),
    })
}
