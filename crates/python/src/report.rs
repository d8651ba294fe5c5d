//! Shaped rewards with all statistics, most of which a result computes when they are read.

use std::collections::HashMap;

use numpy::PyArray1;
use pyo3::types::{PyString, PyTuple};
use pyo3::{Bound, IntoPyObject, PyResult, Python, pyfunction};
use stackelberg_shaping::{Report, Warning, argmax, fuse};

use crate::columns::{Column, column};
use crate::functions::{Intervals, ShapedRows};
use crate::rows::Rows;
use crate::settings::Settings;
use crate::walk::walk;

/// Each row's [`Report`].
#[derive(IntoPyObject)]
pub(crate) struct Reports<'py> {
    shape: ShapedRows<'py>,
    utility: Utilities<'py>,
    kl: Kls<'py>,
    ess: Column<'py>,
    interval: Intervals<'py>,
    warnings: Vec<Bound<'py, PyTuple>>,
    /// Empty without logits.
    fused: Column<'py>,
    /// The index of the largest of them; -1 without logits.
    chosen: Column<'py, i64>,
}

/// Expected rewards: of the base policy, and of the followers of raw and of shaped rewards.
#[derive(IntoPyObject)]
pub(crate) struct Utilities<'py> {
    base: Column<'py>,
    raw: Column<'py>,
    shaped: Column<'py>,
}

/// KL from the base policy: of the followers of raw and of shaped rewards.
#[derive(IntoPyObject)]
pub(crate) struct Kls<'py> {
    raw: Column<'py>,
    shaped: Column<'py>,
}

/// Each row's shaped rewards with all statistics.
#[pyfunction]
pub(crate) fn report<'py>(
    py: Python<'py>,
    rows: Rows<'py>,
    settings: &Settings,
    threads: isize,
) -> PyResult<Reports<'py>> {
    let confidence = settings.confidence()?;
    let found = walk(py, &rows, threads, |prompt, responses| {
        let mut report =
            Report::new(&settings.shaping, &prompt.samples()?, settings.kl_budget, Some(&confidence))?;
        let fused = prompt.logits.map(|l| fuse(l, &report.shaped.values, report.shaping.strength));
        let chosen = fused.as_deref().and_then(argmax);
        responses.append(&mut report.shaped.values);
        // The policies are not read.
        (report.raw.policy, report.follower.policy) = (Vec::new(), Vec::new());
        Ok((report, fused.unwrap_or_default(), chosen))
    })?;
    let reports = &found.prompts;
    let shaped =
        |report: &Report| (report.shaped.bound, report.shaping.strength, report.shaped.threshold);
    Ok(Reports {
        shape: ShapedRows::new(py, found.responses, reports, |(report, ..)| shaped(report)),
        utility: Utilities {
            base: column(py, reports, |(report, ..)| report.base_utility),
            raw: column(py, reports, |(report, ..)| report.raw.utility),
            shaped: column(py, reports, |(report, ..)| report.follower.utility),
        },
        kl: Kls {
            raw: column(py, reports, |(report, ..)| report.raw.kl),
            shaped: column(py, reports, |(report, ..)| report.follower.kl),
        },
        ess: column(py, reports, |(report, ..)| report.follower.ess),
        interval: Intervals::new(py, confidence.level(), reports, |(report, ..)| report.interval),
        warnings: warnings(py, reports.iter().map(|(report, ..)| report.warnings.as_slice()))?,
        fused: PyArray1::from_iter(py, reports.iter().flat_map(|(_, fused, _)| fused.iter().copied())),
        chosen: column(py, reports, |&(.., chosen)| chosen.map_or(-1, |index| index as i64)),
    })
}

/// The words of each row's warnings. Rows with the same words share the strings.
fn warnings<'py, 'w>(
    py: Python<'py>,
    rows: impl Iterator<Item = &'w [Warning]>,
) -> PyResult<Vec<Bound<'py, PyTuple>>> {
    let mut known: HashMap<String, Bound<'py, PyString>> = HashMap::new();
    rows.map(|row| {
        let words = row.iter().map(|warning| {
            let words = warning.to_string();
            known.entry(words).or_insert_with_key(|words| PyString::new(py, words)).clone()
        });
        PyTuple::new(py, words.collect::<Vec<_>>())
    })
    .collect()
}
