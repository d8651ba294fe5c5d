//! The evaluation of runs: every answer measured, and runs compared with the first, paired by prompt.

use std::collections::BTreeSet;

use serde::Serialize;
use stackelberg_data::generations::{Response, Run, pair};
use stackelberg_engine::Checkpoint;

use crate::error::{Error, Result};
use crate::evaluator::Evaluator;
use crate::metrics::{Measured, Metric};
use crate::summary::{Comparison, Means};

/// For each run but the first: the index of its answer to each prompt of the first run.
#[derive(Debug, Clone, Default)]
pub struct Partners(Vec<Vec<usize>>);

impl Partners {
    /// Pairs runs with the first one by prompt.
    ///
    /// # Errors
    /// Runs answer different prompts.
    pub fn of(runs: &[Run]) -> Result<Self> {
        let Some((first, others)) = runs.split_first() else { return Ok(Self::default()) };
        Ok(Self(others.iter().map(|run| pair(first, run)).collect::<std::result::Result<_, _>>()?))
    }
}

/// Measured runs.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// Names and hashes of what measured.
    pub measured_by: Vec<(String, String)>,
    /// The metrics: rewards, then those of texts.
    pub metrics: Vec<Metric>,
    /// The name of each run, and its answers.
    pub runs: Vec<(String, Vec<Measured>)>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
    partners: Partners,
}

/// The means of all runs and their comparisons, as `stackelberg evaluate --json` writes them.
#[derive(Debug, Clone, Serialize)]
pub struct Results<'a> {
    /// The means of each run.
    pub runs: Vec<Means<'a>>,
    /// The differences of each other run from the first, if runs are paired.
    pub comparisons: Vec<Comparison<'a>>,
}

impl Evaluation {
    /// Measures all answers of runs. Runs without partners are not compared.
    ///
    /// # Errors
    /// As [`Evaluator::measure`]; the error names the run.
    pub fn new(
        evaluator: &Evaluator,
        policy: Option<&Checkpoint>,
        runs: &[Run],
        partners: Partners,
    ) -> Result<Self> {
        let mut coherence = evaluator.coherence();
        let (mut measured, mut warnings) = (Vec::with_capacity(runs.len()), Vec::new());
        for run in runs {
            let answers = evaluator.measure(policy, &run.responses, None, coherence.as_mut());
            let within = |source| Error::Run { run: run.name.clone(), source: Box::new(source) };
            measured.push((run.name.clone(), answers.map_err(within)?));
            warnings.extend(other_formats(evaluator, run));
        }
        let all: Vec<&Response> = runs.iter().flat_map(|run| &run.responses).collect();
        warnings.extend(evaluator.warnings(policy, &all)?);
        let rewards = evaluator.names().into_iter().map(Metric::Reward);
        Ok(Self {
            measured_by: evaluator.facts(),
            metrics: rewards.chain(Metric::TEXT).collect(),
            runs: measured,
            warnings,
            partners,
        })
    }

    /// The means of runs and their comparisons with the first. `seed` is that of the bootstrap.
    pub fn results(&self, seed: u64) -> Results<'_> {
        let metrics = &self.metrics[..];
        let runs =
            self.runs.iter().map(|(run, answers)| Means::of(run, answers, metrics, seed)).collect();
        let Some(((first, firsts), others)) = self.runs.split_first() else {
            return Results { runs, comparisons: Vec::new() };
        };
        let compared = others.iter().zip(&self.partners.0).map(|((run, answers), partners)| {
            let paired: Vec<&Measured> = partners.iter().map(|&i| &answers[i]).collect();
            Comparison::of((run, &paired), (first, firsts), metrics, seed)
        });
        Results { runs, comparisons: compared.collect() }
    }
}

/// Warnings if a reward that guided a run's answers is measured with another text format.
fn other_formats(evaluator: &Evaluator, run: &Run) -> Vec<String> {
    let settings = run.responses.iter().filter_map(|response| response.record.settings.as_ref());
    let guides: BTreeSet<&str> = settings.filter_map(|settings| settings["reward"].as_str()).collect();
    let seen = guides.into_iter().flat_map(|guide| evaluator.seen_otherwise(guide));
    let warning = |(name, there, here)| {
        format!(
            "{}: the reward {name} read {there} text when it guided, but reads {here} text here: use {there}:{name} to \
             measure the reward that guided",
            run.name
        )
    };
    seen.map(warning).collect()
}
