//! A loaded policy with its decoding thread.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use pyo3::exceptions::PyValueError;
use pyo3::{FromPyObject, Py, PyAny, PyResult, Python, pyclass, pymethods};
use serde_json::Value;
use stackelberg_data::Prompt;
use stackelberg_decoding::{Cancel, Guidance, Limits, Options, Request, Want};
use stackelberg_engine::Reward;
use stackelberg_registry::guidance::{GuidanceSpec, guides_steps};
use stackelberg_registry::{PolicySpec, layout, usual_dtype};

use super::answers::{Answers, Describe};
use super::callable::{Callable, wait_for_calls};
use super::failure::Failure;
use super::models::{Models, Named};
use super::thread::Decoding;
use super::wait::{claim, interruptible, is_owner, receive};

/// A policy that is loaded. Private: use `stackelberg.Policy`.
#[pyclass(frozen, module = "stackelberg._lib")]
pub(crate) struct Policy {
    decoding: Arc<Decoding>,
    pub(crate) models: Arc<Models>,
}

/// A reward as users name it.
#[derive(FromPyObject)]
enum RewardRef {
    Reference(String),
    Function(Py<PyAny>),
}

/// How answers to prompts are to be generated. The attributes of a Python object.
#[derive(FromPyObject)]
struct Asked {
    /// Each as JSON: a text, or messages.
    prompts: Vec<String>,
    /// As JSON.
    guidance: String,
    /// The reward, if it is a function, with a name.
    function: Option<(String, Py<PyAny>)>,
    /// Settings that are no guidance, as JSON.
    options: String,
    /// Answers to each prompt.
    n: usize,
    system: Option<String>,
    prompt_format: Option<String>,
    /// Whether steps are told.
    steps: bool,
}

#[pymethods]
impl Policy {
    #[new]
    #[pyo3(signature = (reference, *, tokenizer, states, dtype, kv_dtype, threads, sequences, cache, rewards, values))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        reference: String,
        tokenizer: Option<String>,
        states: Option<String>,
        dtype: Option<&str>,
        kv_dtype: Option<&str>,
        threads: Option<usize>,
        sequences: usize,
        cache: usize,
        rewards: Vec<(String, RewardRef)>,
        values: Vec<(String, String)>,
    ) -> PyResult<Self> {
        claim()?;
        set_threads(threads)?;
        let defaults = PolicySpec::default();
        let spec = PolicySpec {
            tokenizer,
            states,
            dtype: parsed(dtype, usual_dtype(&reference))?,
            name: reference,
            kv_dtype: parsed(kv_dtype, defaults.kv_dtype)?,
            ..defaults
        };
        let limits = Limits { cache: cache << 20, ..Limits::from(sequences) };
        let named = |(name, reward)| match reward {
            RewardRef::Reference(reference) => (name, Named::Reference(reference)),
            RewardRef::Function(function) => (name, Named::Function(Callable::reward(function))),
        };
        let rewards: Vec<(String, Named)> = rewards.into_iter().map(named).collect();
        let (decoding, loaded) = Decoding::start(move || Models::load(&spec, rewards, values), limits)?;
        let models = receive(py, &Mutex::new(loaded))?;
        let models = models.unwrap_or_else(|| Err(decoding.failure()))?;
        Ok(Self { decoding: Arc::new(decoding), models })
    }

    /// Submits prompts.
    fn submit(&self, py: Python<'_>, asked: Asked) -> PyResult<Answers> {
        claim()?;
        let models = self.models.clone();
        let (requests, describe) = interruptible(py, move || asked.requests(&models))?;
        let (cancel, left) = (Cancel::new(), AtomicUsize::new(requests.len()));
        let (sender, events) = channel();
        let replied = self.decoding.submit(requests, sender, cancel.clone())?;
        let (decoding, events) = (self.decoding.clone(), Mutex::new(events));
        // From here on, dropping the answers cancels the requests.
        let answers = Answers { decoding, events, cancel, left, describe };
        match receive(py, &Mutex::new(replied))? {
            None => Err(self.decoding.failure().into()),
            Some(submitted) => {
                submitted.map_err(Failure::from)?;
                Ok(answers)
            }
        }
    }

    /// Cancels all requests and ends the thread. Waits for Python functions that are under way.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if !is_owner() {
            return Ok(());
        }
        py.detach(|| self.decoding.close());
        wait_for_calls(py)
    }

    /// The file or folder of the policy.
    #[getter]
    fn path(&self) -> PathBuf {
        self.models.path().to_owned()
    }

    /// The most tokens of prompt and answer together.
    #[getter]
    fn context(&self) -> usize {
        self.models.policy.context()
    }
}

impl Asked {
    /// The requests, and how their answers are described.
    fn requests(self, models: &Models) -> Result<(Vec<Request>, Describe), Failure> {
        let json = |what, error: serde_json::Error| Failure::Json { what, error: error.to_string() };
        let guidance: Value = serde_json::from_str(&self.guidance).map_err(|e| json("guidance", e))?;
        let mut spec = GuidanceSpec::read(guidance, None)?;
        let function = self.function.map(|(name, function)| (name, Callable::reward(function)));
        if let Some((name, _)) = &function {
            spec.reward = Some(name.clone());
        }
        let [rewards, values] = models.known();
        spec.check(&rewards, &values)?;
        let options: Options = serde_json::from_str(&self.options).map_err(|e| json("settings", e))?;
        let method = spec.method();
        if method.chooses() && options.temperature == Some(0.0) {
            return Err(Failure::Value(format!(
                "temperature is 0: all samples that {method} chooses from would be the same"
            )));
        }
        let mut options = options.or(spec.options.clone());
        if !guides_steps(method) && !spec.trace {
            // Candidates are only shown in traces.
            options.candidates = Some(1);
        }
        let settings = options.settings()?;
        let policy = &models.policy;
        settings.check(policy.vocabulary())?;
        let reward = match function {
            Some((_, function)) => Some(function),
            None => spec.reward.as_deref().map(|name| models.reward(name)).transpose()?,
        };
        let value = spec.value.as_deref().map(|name| models.value(name)).transpose()?;
        let format =
            self.prompt_format.as_deref().map(str::parse).transpose().map_err(Failure::Value)?;
        let guides = Guidance { reward: reward.as_ref(), value: value.as_ref() };
        let (format, mut warnings) = layout::text_format(format, policy, guides);
        let mut tokenized = Vec::with_capacity(self.prompts.len());
        for prompt in &self.prompts {
            let prompt: Prompt = serde_json::from_str(prompt).map_err(|e| json("prompt", e))?;
            if prompt.is_empty() {
                return Err(Failure::Value("the prompt is empty".to_owned()));
            }
            let text = policy.lay_out(&prompt, self.system.as_deref(), format)?;
            tokenized.push((policy.read(&text)?, Arc::new(prompt)));
        }
        let tokens = || tokenized.iter().map(|(tokens, _)| &tokens[..]);
        warnings.extend(layout::odd_tokens(policy, format, "prompt", tokens()));
        let most = settings.max_new_tokens;
        warnings.extend(layout::short_context(policy, reward.as_ref(), most, tokens()));
        let describe = Describe {
            tokenizer: policy.tokenizer.clone(),
            method,
            settings: spec.in_force(&settings).to_string(),
            parts: reward.as_ref().map_or(&[][..], Reward::parts).to_vec(),
            trace: spec.trace,
            warnings,
        };
        let settings = Arc::new(settings);
        let mut requests = Vec::with_capacity(tokenized.len() * self.n);
        for (tokens, prompt) in &tokenized {
            // What an answer becomes does not depend on the place of its prompt.
            requests.extend((0..self.n).map(|choice| Request {
                id: choice.to_string(),
                prompt: tokens.clone(),
                asked: Some(prompt.clone()),
                settings: settings.clone(),
                reward: reward.clone(),
                value: value.clone(),
                want: Want::Answer,
                steps: self.steps || spec.trace,
            }));
        }
        Ok((requests, describe))
    }
}

/// What this name stands for, or the default.
pub(super) fn parsed<T: FromStr<Err = String>>(name: Option<&str>, default: T) -> PyResult<T> {
    name.map_or(Ok(default), |name| name.parse().map_err(PyValueError::new_err))
}

/// Sets the number of compute threads of this process.
pub(super) fn set_threads(threads: Option<usize>) -> PyResult<()> {
    match threads {
        None => Ok(()),
        Some(0) => Err(PyValueError::new_err("threads is 0: it must be one or more")),
        Some(threads) => {
            stackelberg_engine::kernel::set_threads(threads);
            // The second pool, which loads models, keeps the first number.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
            Ok(())
        }
    }
}
