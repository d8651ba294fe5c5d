//! Rollouts: a dataset is filled, and read.

use std::path::PathBuf;

use numpy::PyArray1;
use pyo3::types::PyBytes;
use pyo3::{Bound, FromPyObject, IntoPyObject, Py, PyAny, PyRef, PyResult, Python};
use pyo3::{pyclass, pyfunction, pymethods};
use stackelberg_data::prompts;
use stackelberg_decoding::Options;
use stackelberg_engine::Reward;
use stackelberg_learning::rollouts::{
    Dataset, Draw, Identity, Part, Prepared, Progress, ShapedColumns, check_hidden, collect,
    default_settings,
};

use super::callable::Callable;
use super::failure::Failure;
use super::models::Models;
use super::policy::Policy;
use super::wait::claim;
use super::work::{Caller, watched};

/// The rollouts that a user asks for. The attributes of a Python object.
#[derive(FromPyObject)]
pub(crate) struct Asked {
    /// A file or a known set of prompts.
    file: Option<String>,
    /// Prompts as JSON lines, if there is no file.
    prompts: String,
    out: PathBuf,
    reward: Option<String>,
    /// The reward, if it is a function, with a name.
    function: Option<(String, Py<PyAny>)>,
    /// How samples are drawn, as JSON.
    options: String,
    hidden: bool,
    system: Option<String>,
    prompt_format: Option<String>,
    prompts_per_shard: usize,
    batch_size: usize,
    shard: String,
}

/// Draws the samples of the missing shards of a dataset.
#[pyfunction]
#[pyo3(signature = (policy, asked, progress))]
pub(crate) fn rollout(
    py: Python<'_>,
    policy: PyRef<'_, Policy>,
    asked: Asked,
    progress: Option<Py<PyAny>>,
) -> PyResult<()> {
    claim()?;
    let models = policy.models.clone();
    watched(py, progress.as_ref(), move |caller| asked.draw(&models, caller))
}

impl Asked {
    fn draw(self, models: &Models, caller: &Caller) -> Result<(), Failure> {
        let prompts = match &self.file {
            Some(name) => models.registry.prompts(name)?,
            None => {
                prompts::parse("prompts", &self.prompts).map_err(stackelberg_learning::Error::from)?
            }
        };
        let (policy, spec) = (&models.policy, &models.spec);
        check_hidden(policy, &spec.name, self.hidden)?;
        let part: Part = self.shard.parse().map_err(|e| Failure::Value(format!("shard: {e}")))?;
        let format =
            self.prompt_format.as_deref().map(str::parse).transpose().map_err(Failure::Value)?;
        let options: Options = serde_json::from_str(&self.options)
            .map_err(|e| Failure::Json { what: "settings", error: e.to_string() })?;
        let mut settings = default_settings();
        options.apply(&mut settings);
        let reward: Option<(Reward, Identity)> = match (self.function, &self.reward) {
            (Some((name, function)), _) => {
                Some((Callable::reward(function), Models::function_identity(&name)))
            }
            (None, Some(name)) => Some((models.reward(name)?, models.reward_identity(name)?)),
            (None, None) => None,
        };
        let draw = Draw {
            policy,
            spec,
            reward: reward.as_ref().map(|(reward, identity)| (reward, identity.clone())),
            format,
            system: self.system.as_deref(),
            settings,
            hidden: self.hidden,
            prompts_per_shard: self.prompts_per_shard,
        };
        let Prepared { manifest, prompts, settings, warnings } = draw.prepare(&prompts)?;
        warnings.iter().for_each(|warning| caller.warning(warning));
        let dataset = Dataset::create(&self.out, manifest)?;
        let (done, total) = dataset.progress(part);
        let mut told = Filling { caller, done, total };
        caller.progress(done, total);
        let (reward, how) = (reward.as_ref().map(|(reward, _)| reward), (part, self.batch_size));
        Ok(collect(&dataset, policy, reward, &prompts, &settings, how, &mut told)?)
    }
}

/// Tells the caller of prompts that are done.
struct Filling<'a> {
    caller: &'a Caller,
    done: usize,
    total: usize,
}

impl Progress for Filling<'_> {
    fn prompt(&mut self) {
        self.done += 1;
        self.caller.progress(self.done, self.total);
    }

    fn stop(&self) -> bool {
        self.caller.stop()
    }
}

/// A dataset of rollouts. Private: use `stackelberg.Dataset`.
#[pyclass(frozen, module = "stackelberg._lib")]
pub(crate) struct Rollouts(Dataset);

/// The samples of a shard, column by column.
#[derive(IntoPyObject)]
struct Columns<'py> {
    prompt_id: Vec<String>,
    sample: Vec<u32>,
    prompt: Vec<String>,
    response: Vec<String>,
    tokens: Vec<Bound<'py, PyArray1<u32>>>,
    reward: Vec<Option<f64>>,
    finish_reason: Vec<String>,
    seed: Vec<u64>,
    /// Shaped rewards and thresholds, by the names of their columns.
    shaped: Vec<(String, Vec<Option<f64>>)>,
}

#[pymethods]
impl Rollouts {
    #[new]
    fn new(folder: PathBuf) -> PyResult<Self> {
        Ok(Self(Dataset::open(&folder).map_err(Failure::from)?))
    }

    /// As JSON.
    #[getter]
    fn manifest(&self) -> PyResult<String> {
        let written = serde_json::to_string(self.0.manifest());
        Ok(written.map_err(|e| Failure::Json { what: "manifest", error: e.to_string() })?)
    }

    /// The number of shards.
    #[getter]
    fn shards(&self) -> usize {
        self.0.manifest().shards()
    }

    /// The numbers of the missing shards.
    fn missing(&self) -> Vec<usize> {
        self.0.missing()
    }

    /// The samples of a shard.
    fn read<'py>(&self, py: Python<'py>, shard: usize) -> PyResult<Columns<'py>> {
        let read = py.detach(|| self.0.read(shard)).map_err(Failure::from)?;
        let named = |shaped: &ShapedColumns| ShapedColumns::names(shaped.rule).zip(shaped.values());
        let shaped = read.shaped.iter().flat_map(named).collect();
        let rows = read.rows;
        Ok(Columns {
            sample: rows.iter().map(|row| row.sample).collect(),
            tokens: rows.iter().map(|row| PyArray1::from_slice(py, &row.tokens)).collect(),
            reward: rows.iter().map(|row| row.reward).collect(),
            seed: rows.iter().map(|row| row.seed).collect(),
            prompt_id: rows.iter().map(|row| row.prompt_id.clone()).collect(),
            prompt: rows.iter().map(|row| row.prompt.clone()).collect(),
            response: rows.iter().map(|row| row.response.clone()).collect(),
            finish_reason: rows.iter().map(|row| row.finish_reason.clone()).collect(),
            shaped,
        })
    }

    /// The hidden states of each sample of a shard: half-precision numbers in the order of bytes of this machine, row by row.
    fn hidden<'py>(&self, py: Python<'py>, shard: usize) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let read = py.detach(|| {
            let shard = self.0.read(shard)?;
            Ok::<_, stackelberg_learning::Error>((shard.rows.len(), shard.hidden()?))
        });
        let (samples, hidden) = read.map_err(Failure::from)?;
        let bytes = |sample: usize| -> Vec<u8> {
            hidden.of(sample).iter().flat_map(|number| number.to_ne_bytes()).collect()
        };
        Ok((0..samples).map(|sample| PyBytes::new(py, &bytes(sample))).collect())
    }
}
