//! Trains value heads on rollouts, and reward heads on judgements.

use std::collections::HashMap;
use std::path::PathBuf;

use pyo3::{FromPyObject, IntoPyObject, Py, PyAny, PyRef, PyResult, Python, pyfunction};
use stackelberg_data::words;
use stackelberg_engine::Error as EngineError;
use stackelberg_learning::reward::{self, Judgements, Reader};
use stackelberg_learning::rollouts::Dataset;
use stackelberg_learning::value::{self, Counts, Distance, Epoch, Errors, Outcome};
use stackelberg_learning::{Metric, Source, TextFormat, check_out};
use stackelberg_registry::PolicySpec;
use stackelberg_shaping::Shaping;

use super::failure::Failure;
use super::models::{Models, registry};
use super::policy::{Policy, set_threads};
use super::wait::claim;
use super::work::{Caller, watched};
use crate::settings::Settings;

/// A value head to train. The attributes of a Python object; what is None has the default of the command line.
#[derive(FromPyObject)]
pub(crate) struct ValueAsked {
    dataset: PathBuf,
    out: PathBuf,
    resume: bool,
    coef: Option<f64>,
    width: Option<usize>,
    second_width: Option<usize>,
    lr: Option<f64>,
    batch_size: Option<usize>,
    epochs: Option<usize>,
    patience: Option<usize>,
    validation: Option<f64>,
    clip: Option<f64>,
    seed: Option<u64>,
    /// Megabytes.
    memory: Option<usize>,
    /// The command line that trains the same head.
    command: Vec<String>,
}

/// A trained value head.
#[derive(IntoPyObject)]
pub(crate) struct ValueTrained {
    /// Training loss, and validation errors at the last token and along the text.
    epochs: Vec<(f64, f64, f64)>,
    best: usize,
    explained: Option<(f64, f64)>,
    foresight: Vec<Foreseen>,
    /// What the foresight means.
    sentence: String,
    counts: HashMap<&'static str, f64>,
}

#[derive(IntoPyObject)]
struct Foreseen {
    tokens: usize,
    samples: usize,
    prompts: usize,
    value: Option<f64>,
    so_far: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    slope: Option<f64>,
    explained: Option<f64>,
}

/// Trains a value head on a dataset.
#[pyfunction]
#[pyo3(signature = (asked, shaping, threads, progress))]
pub(crate) fn train_value(
    py: Python<'_>,
    asked: ValueAsked,
    shaping: &Settings,
    threads: Option<usize>,
    progress: Option<Py<PyAny>>,
) -> PyResult<ValueTrained> {
    claim()?;
    set_threads(threads)?;
    let shaping = shaping.shaping;
    watched(py, progress.as_ref(), move |caller| asked.train(shaping, caller))
}

impl ValueAsked {
    fn train(self, shaping: Shaping, caller: &Caller) -> Result<ValueTrained, Failure> {
        check_out(&self.out)?;
        let default = value::Settings::new(shaping);
        let settings = value::Settings {
            coef: self.coef.unwrap_or(default.coef),
            widths: [self.width, self.second_width],
            learning_rate: self.lr.unwrap_or(default.learning_rate),
            batch: self.batch_size.unwrap_or(default.batch),
            epochs: self.epochs.unwrap_or(default.epochs),
            patience: self.patience.unwrap_or(default.patience),
            validation: self.validation.unwrap_or(default.validation),
            clip: self.clip.unwrap_or(default.clip),
            seed: self.seed.unwrap_or(default.seed),
            memory: self.memory.map_or(default.memory, |megabytes| megabytes << 20),
            ..default
        };
        let dataset = Dataset::open(&self.dataset)?;
        value::check_resume(&self.out, self.resume)?;
        let head = match &dataset.manifest().reward {
            Some(reward) => registry().recorded_head(&reward.name, &reward.hash),
            None => Err("the dataset has no reward".to_owned()),
        };
        let so_far = head.as_ref().map_err(String::clone);
        let mut watch = Epochs { caller, most: settings.epochs };
        let command = words::command_line(&self.command);
        let outcome = value::train_to_file(
            &dataset,
            &settings,
            &self.out,
            self.resume,
            command,
            so_far,
            &mut watch,
        )?;
        Ok(ValueTrained::new(&outcome))
    }
}

/// Tells the caller of epochs that are done.
struct Epochs<'a> {
    caller: &'a Caller,
    most: usize,
}

impl value::Watch for Epochs<'_> {
    fn begin(&mut self, counts: &Counts, done: &[Epoch]) {
        counts.warnings().iter().for_each(|warning| self.caller.warning(warning));
        self.caller.progress(done.len(), self.most);
    }

    fn epoch(&mut self, number: usize, _: &Epoch, _: bool) {
        self.caller.progress(number + 1, self.most);
    }

    fn stop(&self) -> bool {
        self.caller.stop()
    }
}

impl ValueTrained {
    fn new(outcome: &Outcome) -> Self {
        let epoch = |epoch: &Epoch| (epoch.training, epoch.validation.last, epoch.validation.along);
        let foreseen = |distance: &Distance| Foreseen {
            tokens: distance.tokens,
            samples: distance.samples,
            prompts: distance.prompts,
            value: distance.value,
            so_far: distance.so_far,
            low: distance.difference.map(|[low, _]| low),
            high: distance.difference.map(|[_, high]| high),
            slope: distance.slope,
            explained: distance.explained,
        };
        let foresight = outcome.foresight.as_ref();
        let Counts { training, validation, empty, all_equal, unfinished, mean, constant } =
            outcome.counts;
        let counts = [
            ("training_samples", training.0 as f64),
            ("training_prompts", training.1 as f64),
            ("validation_samples", validation.0 as f64),
            ("validation_prompts", validation.1 as f64),
            ("empty", empty as f64),
            ("all_equal", all_equal as f64),
            ("unfinished", unfinished as f64),
            ("mean", mean),
            ("baseline", constant),
        ];
        Self {
            epochs: outcome.epochs.iter().map(epoch).collect(),
            best: outcome.best,
            explained: outcome.explained().map(|Errors { last, along }| (last, along)),
            foresight: foresight.map_or_else(Vec::new, |f| f.distances.iter().map(foreseen).collect()),
            sentence: foresight.map_or_else(String::new, value::Foresight::sentence),
            counts: HashMap::from(counts),
        }
    }
}

/// A reward head to train. The attributes of a Python object.
#[derive(FromPyObject)]
pub(crate) struct RewardAsked {
    pairs: Vec<String>,
    rated: Vec<String>,
    held_out: Vec<String>,
    out: PathBuf,
    embedder: Option<String>,
    text_format: Option<String>,
    about: String,
    folds: usize,
    seed: u64,
    /// The command line that trains the same head.
    command: Vec<String>,
}

/// A trained reward head.
#[derive(IntoPyObject)]
pub(crate) struct RewardTrained {
    /// What was measured on, the metric, its value and its standard error.
    metrics: Vec<(String, &'static str, f64, f64)>,
    regularisation: f64,
    /// The number of judgements and of conversations in each file, and whether it was held out.
    data: Vec<(String, usize, usize, bool)>,
}

/// Trains a reward head on judgements.
#[pyfunction]
#[pyo3(signature = (asked, policy, threads, progress))]
pub(crate) fn train_reward(
    py: Python<'_>,
    asked: RewardAsked,
    policy: Option<PyRef<'_, Policy>>,
    threads: Option<usize>,
    progress: Option<Py<PyAny>>,
) -> PyResult<RewardTrained> {
    claim()?;
    set_threads(threads)?;
    let models = policy.map(|policy| policy.models.clone());
    watched(py, progress.as_ref(), move |caller| asked.train(models.as_deref(), caller))
}

impl RewardAsked {
    fn train(self, models: Option<&Models>, caller: &Caller) -> Result<RewardTrained, Failure> {
        check_out(&self.out)?;
        let own = registry();
        let registry = models.map_or(&own, |models| &models.registry);
        let judgements = Judgements::read(registry, &self.pairs, &self.rated, &self.held_out)?;
        let default = PolicySpec::default();
        let spec = models.map_or(&default, |models| &models.spec);
        let reader = match &self.embedder {
            Some(name) => Reader::Embedder(Box::new(registry.embedder(name)?)),
            None => {
                let format = self.text_format.as_deref().map(str::parse).transpose();
                let format = format.map_err(Failure::Value)?.unwrap_or(TextFormat::Chat);
                let policy = match models {
                    Some(models) => models.policy.local().cloned().ok_or(EngineError::NoHiddenStates)?,
                    None => registry.checkpoint(spec)?,
                };
                Reader::Policy(Box::new(policy), format)
            }
        };
        let settings = reward::Settings {
            out: self.out,
            about: self.about,
            folds: self.folds,
            seed: self.seed,
            base_name: self.embedder.unwrap_or_else(|| spec.name.clone()),
            command: words::command_line(&self.command),
            threads: rayon::current_num_threads(),
        };
        let trained = reward::train(&judgements, &reader, &settings, &Texts(caller))?;
        let metric = |(name, Metric { name: metric, value, standard_error }): (&str, Metric)| {
            (name.to_owned(), metric, value, standard_error)
        };
        let source = |source: &Source| {
            (source.name.clone(), source.rows, source.groups, source.metrics.is_some())
        };
        Ok(RewardTrained {
            metrics: trained.metrics().into_iter().map(metric).collect(),
            regularisation: trained.regularisation,
            data: trained.data.iter().map(source).collect(),
        })
    }
}

/// Tells the caller of texts that are read.
struct Texts<'a>(&'a Caller);

impl reward::Watch for Texts<'_> {
    fn warning(&self, text: &str) {
        self.0.warning(text);
    }

    fn progress(&self, _: &str, done: usize, total: usize) {
        self.0.progress(done, total);
    }

    fn stop(&self) -> bool {
        self.0.stop()
    }
}
