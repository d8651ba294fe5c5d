//! A reward that scores finished texts.

use std::cell::OnceCell;
use std::sync::Arc;

use numpy::PyArray1;
use pyo3::{Bound, PyRef, PyResult, Python, pyclass, pymethods};
use stackelberg_data::Prompt;
use stackelberg_engine::Checkpoint;
use stackelberg_registry::{Finished, PolicySpec, Scorer as Reads};

use super::failure::Failure;
use super::models::{Models, registry};
use super::policy::{Policy, parsed, set_threads};
use super::wait::{claim, interruptible};

/// Texts per batch; signals are handled in between.
const BATCH: usize = 64;

/// A reward that is loaded. Private: use `stackelberg.Reward`.
#[pyclass(frozen, module = "stackelberg._lib")]
pub(crate) struct Scorer(Arc<Loaded>);

struct Loaded {
    scorer: Reads,
    policy: Option<Checkpoint>,
}

#[pymethods]
impl Scorer {
    #[new]
    #[pyo3(signature = (reference, *, policy, dtype, threads))]
    fn new(
        py: Python<'_>,
        reference: String,
        policy: Option<PyRef<'_, Policy>>,
        dtype: Option<&str>,
        threads: Option<usize>,
    ) -> PyResult<Self> {
        claim()?;
        set_threads(threads)?;
        let defaults = PolicySpec::default();
        let spec = PolicySpec { dtype: parsed(dtype, defaults.dtype)?, ..defaults };
        let models = policy.map(|policy| policy.models.clone());
        let loaded = interruptible(py, move || load(&reference, models.as_deref(), &spec))?;
        Ok(Self(Arc::new(loaded)))
    }

    /// One reward for each answer, or for each text if there are no prompts. Prompts are JSON: texts, or messages.
    fn score<'py>(
        &self,
        py: Python<'py>,
        prompts: Option<Vec<String>>,
        answers: Vec<String>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        claim()?;
        let (prompts, answers) = (Arc::new(prompts), Arc::new(answers));
        let mut rewards = Vec::with_capacity(answers.len());
        while rewards.len() < answers.len() {
            let texts = rewards.len()..(rewards.len() + BATCH).min(answers.len());
            let (loaded, prompts, answers) = (self.0.clone(), prompts.clone(), answers.clone());
            rewards.extend(interruptible(py, move || {
                let prompts = prompts.as_ref().as_ref().map(|prompts| &prompts[texts.clone()]);
                loaded.score(prompts, &answers[texts.clone()], texts.start)
            })?);
        }
        Ok(PyArray1::from_vec(py, rewards))
    }
}

/// Loads a reward, with the models of a policy or with the default policy if it needs one.
fn load(reference: &str, models: Option<&Models>, spec: &PolicySpec) -> Result<Loaded, Failure> {
    let own = registry();
    let registry = models.map_or(&own, |models| &models.registry);
    let default = OnceCell::new();
    let mut policy = || Models::local(models, registry, spec, &default);
    let scorer = Reads::load(registry, reference, spec.dtype, &mut policy)?;
    let of_models = models.and_then(|models| models.policy.local().cloned());
    let policy = of_models.or(default.into_inner());
    Ok(Loaded { scorer, policy })
}

impl Loaded {
    /// Rewards of a batch, whose first text has this number.
    fn score(
        &self,
        prompts: Option<&[String]>,
        answers: &[String],
        first: usize,
    ) -> Result<Vec<f64>, Failure> {
        let policy = self.policy.as_ref();
        let mut ready = Vec::with_capacity(answers.len());
        for (i, text) in answers.iter().enumerate() {
            let prompt: Option<Prompt> = match prompts {
                None => None,
                Some(prompts) => Some(
                    serde_json::from_str(&prompts[i])
                        .map_err(|error| Failure::Json { what: "prompt", error: error.to_string() })?,
                ),
            };
            let finished = Finished { prompt: prompt.as_ref(), text, format: None, system: None };
            ready.push(self.scorer.read(policy, finished)?);
        }
        let scores = self.scorer.score(policy, &ready)?;
        match scores.iter().position(|score| !score.reward.is_finite()) {
            None => Ok(scores.into_iter().map(|score| score.reward).collect()),
            Some(i) => Err(Failure::Value(format!(
                "the reward of text {} is {}: the reward must be a finite number",
                first + i + 1,
                scores[i].reward
            ))),
        }
    }
}
