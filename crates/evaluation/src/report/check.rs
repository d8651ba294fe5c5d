//! Checks that the parts of a report are consistent, so that errors name the part at fault.

use super::{Histogram, Matrix, Question, Report, Table, Trace};
use crate::error::{Error, Result};

/// Checks that parallel lists have the same length and that references exist.
pub(super) fn check(report: &Report) -> Result<()> {
    report.tables.iter().try_for_each(table)?;
    report.matrices.iter().try_for_each(matrix)?;
    report.histograms.iter().try_for_each(histogram)?;
    report.questions.iter().try_for_each(|question| answers(question, report))?;
    report.traces.iter().enumerate().try_for_each(|(index, trace)| steps(index, trace))
}

fn table(table: &Table) -> Result<()> {
    for row in &table.rows {
        let place = || format!("row {} of the table {}", row.label, table.name);
        same(row.cells.len(), table.columns.len(), "cells", "columns", place)?;
    }
    Ok(())
}

fn matrix(matrix: &Matrix) -> Result<()> {
    let place = || format!("the matrix {}", matrix.title);
    let n = matrix.labels.len();
    same(matrix.cells.len(), n, "rows", "labels", place)?;
    matrix.cells.iter().try_for_each(|row| same(row.len(), n, "cells in a row", "labels", place))
}

fn histogram(histogram: &Histogram) -> Result<()> {
    let place = || format!("the histogram {}", histogram.label);
    same(histogram.edges.len(), histogram.counts.len() + 1, "edges", "counts and one more", place)?;
    // The comparison is false for NaN, too.
    if histogram.edges.windows(2).all(|edges| edges[0] < edges[1]) {
        return Ok(());
    }
    Err(Error::Report { problem: format!("{}: its edges do not rise", place()) })
}

fn answers(question: &Question, report: &Report) -> Result<()> {
    let place = || format!("prompt {}", question.id);
    same(question.answers.len(), report.methods.len(), "answers", "methods", place)?;
    for answer in question.answers.iter().flatten() {
        same(answer.rewards.len(), report.rewards.len(), "rewards of an answer", "rewards", place)?;
        if let Some(trace) = answer.trace.filter(|trace| *trace >= report.traces.len()) {
            let problem =
                format!("{}: refers to trace {trace}, there are {}", place(), report.traces.len());
            return Err(Error::Report { problem });
        }
    }
    Ok(())
}

fn steps(index: usize, trace: &Trace) -> Result<()> {
    for (number, step) in trace.steps.iter().enumerate() {
        let place = || format!("step {number} of trace {index}");
        let n = step.tokens.len();
        let lists = [
            (Some(step.logits.len()), "logits"),
            (step.rewards.as_ref().map(Vec::len), "rewards"),
            (step.shaped.as_ref().map(Vec::len), "shaped rewards"),
            (Some(step.fused.len()), "fused"),
        ];
        for (found, what) in lists {
            same(found.unwrap_or(n), n, what, "candidates", place)?;
        }
        let last = step.chosen.max(step.base);
        if last.is_some_and(|candidate| candidate >= n) {
            return Err(Error::Report {
                problem: format!("{}: there are only {n} candidates", place()),
            });
        }
    }
    Ok(())
}

fn same(
    found: usize,
    wanted: usize,
    what: &str,
    beside: &str,
    place: impl Fn() -> String,
) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    Err(Error::Report { problem: format!("{}: {found} {what} for {wanted} {beside}", place()) })
}
