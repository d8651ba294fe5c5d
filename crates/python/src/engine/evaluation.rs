//! Evaluates answers.

use std::cell::OnceCell;
use std::path::PathBuf;

use pyo3::{FromPyObject, PyRef, PyResult, Python, pyfunction};
use serde_json::json;
use stackelberg_data::generations::{self, Run};
use stackelberg_evaluation::{Evaluation, Evaluator, Partners};
use stackelberg_registry::PolicySpec;

use super::failure::Failure;
use super::models::{Models, registry};
use super::policy::{Policy, set_threads};
use super::wait::claim;
use super::work::{Caller, watched};

/// What is to be evaluated. The attributes of a Python object.
#[derive(FromPyObject)]
pub(crate) struct Asked {
    /// Each run's name, and its answers: a file, or JSON lines.
    runs: Vec<(String, Option<PathBuf>, String)>,
    rewards: Vec<String>,
    embedder: Option<String>,
    paired: bool,
    seed: u64,
}

/// Evaluates runs. The result is JSON: `answers` with the measured answers of each run, `runs`, `comparisons` and `measured_by`.
#[pyfunction]
#[pyo3(signature = (asked, policy, threads))]
pub(crate) fn evaluate(
    py: Python<'_>,
    asked: Asked,
    policy: Option<PyRef<'_, Policy>>,
    threads: Option<usize>,
) -> PyResult<String> {
    claim()?;
    set_threads(threads)?;
    let models = policy.map(|policy| policy.models.clone());
    watched(py, None, move |caller| asked.evaluate(models.as_deref(), caller))
}

impl Asked {
    fn evaluate(&self, models: Option<&Models>, caller: &Caller) -> Result<String, Failure> {
        let runs = self.runs.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        // Runs that cannot be compared are reported before models are loaded.
        let partners = if self.paired { Partners::of(&runs)? } else { Partners::default() };
        let (own, spec) = (registry(), PolicySpec::default());
        let registry = models.map_or(&own, |models| &models.registry);
        let default = OnceCell::new();
        let mut policy = || Models::local(models, registry, &spec, &default);
        let dtype = models.map_or(spec.dtype, |models| models.spec.dtype);
        let embedder = self.embedder.as_deref();
        let evaluator = Evaluator::load(registry, &self.rewards, embedder, dtype, &mut policy)?;
        let policy = models.and_then(|models| models.policy.local()).or(default.get());
        let evaluation = Evaluation::new(&evaluator, policy, &runs, partners)?;
        evaluation.warnings.iter().for_each(|warning| caller.warning(warning));
        let results = evaluation.results(self.seed);
        let answers: Vec<_> = evaluation
            .runs
            .iter()
            .map(|(run, answers)| json!({"run": run, "answers": answers}))
            .collect();
        let all = json!({
            "answers": answers, "runs": results.runs, "comparisons": results.comparisons,
            "measured_by": evaluation.measured_by,
        });
        Ok(all.to_string())
    }
}

fn read((name, file, lines): &(String, Option<PathBuf>, String)) -> Result<Run, Failure> {
    let run = match file {
        Some(path) => generations::read(path),
        None => generations::parse(name, lines),
    };
    let run = run.map_err(stackelberg_evaluation::Error::from)?;
    Ok(Run { name: name.clone(), ..run })
}
