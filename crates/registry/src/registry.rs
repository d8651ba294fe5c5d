//! Fetches and loads policies, value heads, embedders and prompts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use stackelberg_data::{Prompt, prompts};
use stackelberg_decoding::policy::StateServer;
use stackelberg_decoding::{Policy, RemotePolicy};
use stackelberg_engine::{Argument, Checkpoint, Device, Dtype, Embedder, KvDtype, TextProcessor};
use stackelberg_hub::{Hub, Kind, Known, Progress, Reference, SourceError};
use stackelberg_remote::{Key, PolicyClient, StatesClient, without_secrets};

use crate::adapter;
use crate::error::{Error, Result};

/// The name of the default model.
pub const DEFAULT_MODEL: &str = "smollm2-135m";

/// The reward that is used where none is given.
pub const DEFAULT_REWARD: &str = "sentiment";

/// Fetches and loads models, rewards and prompts by name or reference.
pub struct Registry {
    pub(crate) hub: Hub,
    pub(crate) reward_key: Option<Key>,
    policy_key: Option<Key>,
    progress: Box<dyn Fn(Option<Progress>) + Send + Sync>,
    warning: Box<dyn Fn(&str) + Send + Sync>,
    /// Warnings that were given.
    warned: Mutex<BTreeSet<String>>,
    /// Whether reward servers are checked when they are loaded.
    pub(crate) checks: bool,
}

/// A policy to load.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicySpec {
    /// A known name, a folder, a GGUF file or another reference; or the address of a server, see [`PolicyClient`].
    pub name: String,
    /// The data type of the weights in memory.
    pub dtype: Dtype,
    /// The data type of cached keys and values; on the CPU only.
    pub kv_dtype: KvDtype,
    /// The device.
    pub device: Device,
    /// Of a model on a server: where its tokenizer is, a reference like `name`.
    pub tokenizer: Option<String>,
    /// Of a model on a server: the address of a server that gives its hidden states, see [`StatesClient`].
    pub states: Option<String>,
    /// Variables for the chat template, such as `enable_thinking`.
    pub template_args: BTreeMap<String, Argument>,
}

/// Sets variables of a policy's chat template.
///
/// # Errors
/// The policy has no chat template for the variables, or the engine sets one of them itself.
pub fn set_template_args(policy: &mut TextProcessor, args: &BTreeMap<String, Argument>) -> Result<()> {
    match &mut policy.template {
        Some(template) => Ok(template.set_args(args)?),
        None if args.is_empty() => Ok(()),
        None => {
            let problem = "has no chat template: leave out the template's arguments";
            Err(Error::Name(format!("{}: {problem}", policy.path.display())))
        }
    }
}

/// A reference to what a server says that it serves: a known name, a model on the hub, or a path that exists here. A server cannot
/// name packages.
fn served_reference(root: &str) -> Option<String> {
    match root.parse() {
        Ok(Reference::Local(path)) if !path.exists() => {
            let hub = format!("hf:{root}");
            hub.parse::<Reference>().is_ok().then_some(hub)
        }
        Ok(Reference::Local(_) | Reference::Known(_) | Reference::Hub(_)) => Some(root.to_owned()),
        Ok(_) | Err(_) => None,
    }
}

/// The data type of a policy's weights where none is asked for: the blocks of a GGUF file are kept, and all else is bf16. Of the known
/// models too, whose built-in heads were trained on hidden states in bf16.
pub fn usual_dtype(reference: &str) -> Dtype {
    let is_gguf = Path::new(reference).extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
    if is_gguf && !PolicyClient::is_address(reference) { Dtype::Native } else { Dtype::Bf16 }
}

impl Default for PolicySpec {
    fn default() -> Self {
        Self {
            name: DEFAULT_MODEL.to_owned(),
            dtype: usual_dtype(DEFAULT_MODEL),
            kv_dtype: KvDtype::default(),
            device: Device::Cpu,
            tokenizer: None,
            states: None,
            template_args: BTreeMap::new(),
        }
    }
}

impl PolicySpec {
    /// The data types in records: that of the weights, and that of keys and values if it is not f32.
    pub fn recorded_dtype(&self) -> String {
        match self.kv_dtype {
            KvDtype::F32 => self.dtype.to_string(),
            kv => format!("{}, kv {kv}", self.dtype),
        }
    }

    /// The device's name in records: `None` for the CPU.
    pub fn recorded_device(&self) -> Option<String> {
        (self.device != Device::Cpu).then(|| self.device.to_string())
    }
}

impl Registry {
    /// Creates a registry that fetches through this hub, without keys for servers.
    pub fn new(hub: Hub) -> Self {
        Self {
            hub,
            reward_key: None,
            policy_key: None,
            progress: Box::new(|_| ()),
            warning: Box::new(|_| ()),
            warned: Mutex::default(),
            checks: true,
        }
    }

    /// Sets the key for reward servers.
    pub fn with_reward_key(self, key: Option<Key>) -> Self {
        Self { reward_key: key, ..self }
    }

    /// Sets the key for servers that run policies.
    pub fn with_policy_key(self, key: Option<Key>) -> Self {
        Self { policy_key: key, ..self }
    }

    /// Sets the keys from variables, such as those of the environment: `REWARD_API_KEY` for reward servers; `POLICY_API_KEY`, or
    /// else `OPENAI_API_KEY`, for servers that run policies. Blank ones count as missing.
    pub fn with_keys(self, variable: impl Fn(&str) -> Option<String>) -> Self {
        let key = |name: &str| {
            let key = variable(name).filter(|key| !key.trim().is_empty());
            key.map(|key| Key::new(&key))
        };
        let policy = key("POLICY_API_KEY").or_else(|| key("OPENAI_API_KEY"));
        self.with_reward_key(key("REWARD_API_KEY")).with_policy_key(policy)
    }

    /// Sets a function that receives the progress of downloads, and `None` when a reference is resolved or has failed.
    pub fn with_progress(self, progress: impl Fn(Option<Progress>) + Send + Sync + 'static) -> Self {
        Self { progress: Box::new(progress), ..self }
    }

    /// Sets a function that receives warnings about what is loaded, such as a reward server that applies a sigmoid. Each is
    /// given once.
    pub fn with_warnings(self, warning: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { warning: Box::new(warning), ..self }
    }

    /// Loads reward servers without asking them anything, for work that needs none of their scores.
    pub fn without_checks(self) -> Self {
        Self { checks: false, ..self }
    }

    pub(crate) fn warn(&self, warning: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = warned.insert(warning.to_owned());
        drop(warned);
        if is_new {
            (self.warning)(warning);
        }
    }

    /// The hub that references are fetched through.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The local path of a reference, downloaded if necessary. Of an adapter (LoRA), it is the folder of the model that the
    /// adapter and its base model make together, which is written to the cache once.
    ///
    /// # Errors
    /// The reference cannot be fetched, or is an adapter that cannot be merged.
    pub fn fetch(&self, reference: &str) -> Result<PathBuf> {
        let path = self.reported(|progress| self.hub.resolve(reference, progress))?;
        if !adapter::is_adapter(&path) {
            return Ok(path);
        }
        adapter::merged(&path, self.hub.packages.as_deref(), &|name| self.fetch(name))
    }

    /// Loads the text side of a model: a folder, a GGUF file or another reference. Of a model on the hub, no weights are fetched.
    ///
    /// # Errors
    /// The reference cannot be fetched, or has no tokenizer.
    pub fn text(&self, reference: &str) -> Result<TextProcessor> {
        let path = self.reported(|progress| self.hub.resolve_text(reference, progress))?;
        let elsewhere = adapter::is_adapter(&path) && !path.join("tokenizer.json").is_file();
        Ok(TextProcessor::load(&if elsewhere { self.fetch(reference)? } else { path })?)
    }

    /// Resolves something, telling of its progress and of its end.
    fn reported<T>(
        &self,
        resolve: impl FnOnce(&dyn Fn(Progress)) -> std::result::Result<T, SourceError>,
    ) -> Result<T> {
        let resolved = resolve(&|event| (self.progress)(Some(event)));
        (self.progress)(None);
        Ok(resolved?)
    }

    /// The text side of a model on a server, where no tokenizer is given: that of what the server says that it serves.
    fn served_text(&self, address: &str) -> Result<TextProcessor> {
        let fails = |problem: String| {
            let what = "give the model's folder, its .gguf file or a reference with --tokenizer";
            Error::Name(format!("{}: {problem}: {what}", without_secrets(address)))
        };
        let root = PolicyClient::root(address, self.policy_key.clone())?;
        let reference = served_reference(&root).ok_or_else(|| {
            fails(format!("the server says that it serves '{root}', whose tokenizer is not known here"))
        })?;
        self.text(&reference).map_err(|error| {
            fails(format!("no tokenizer of {reference}, which the server says that it serves: {error}"))
        })
    }

    /// Loads a language model, or connects to the server that runs it.
    ///
    /// # Errors
    /// As [`Registry::checkpoint`], [`PolicyClient::connect`] and [`StatesClient::connect`].
    pub fn policy(&self, spec: &PolicySpec) -> Result<Policy> {
        if !PolicyClient::is_address(&spec.name) {
            return Ok(Policy::Local(self.checkpoint(spec)?));
        }
        let mut text = match &spec.tokenizer {
            Some(reference) => self.text(reference)?,
            None => self.served_text(&spec.name)?,
        };
        set_template_args(&mut text, &spec.template_args)?;
        let client = PolicyClient::connect(&spec.name, self.policy_key.clone(), &text)?;
        let states = spec.states.as_deref().map(|address| {
            let client = StatesClient::connect(address, self.policy_key.clone(), &text)?;
            Ok::<Arc<dyn StateServer>, Error>(Arc::new(client))
        });
        let states = states.transpose()?;
        Ok(Policy::Remote(RemotePolicy { text, server: Arc::new(client), states }))
    }

    /// Loads a language model into this process.
    ///
    /// # Errors
    /// The model cannot be fetched or loaded, or is a reward model; it has no chat template for the variables.
    pub fn checkpoint(&self, spec: &PolicySpec) -> Result<Checkpoint> {
        if PolicyClient::is_address(&spec.name) {
            let problem =
                "this needs the model in this process: give a folder, a .gguf file or a reference";
            return Err(Error::Name(format!("{}: {problem}", without_secrets(&spec.name))));
        }
        if spec.tokenizer.is_some() || spec.states.is_some() {
            let problem =
                "a tokenizer and a server of hidden states are only given for a model on a server";
            return Err(Error::Name(format!("{}: {problem}", spec.name)));
        }
        let path = self.fetch(&spec.name)?;
        let mut policy = Checkpoint::load_on(&path, spec.dtype, spec.device)?;
        if spec.kv_dtype != KvDtype::default() {
            policy = policy.with_kv_dtype(spec.kv_dtype)?;
        }
        if policy.model.score().is_some() {
            let problem = "this is a reward model, not a language model: give it as --reward";
            return Err(Error::Name(format!("{}: {problem}", path.display())));
        }
        set_template_args(&mut policy, &spec.template_args)?;
        Ok(policy)
    }

    /// Loads a sentence embedder: a known name, a folder, or another reference.
    ///
    /// # Errors
    /// The embedder cannot be fetched or loaded.
    pub fn embedder(&self, name: &str) -> Result<Embedder> {
        Ok(Embedder::load(&self.fetch(name)?)?)
    }

    /// Reads prompts with their ids from a known set, a file, a folder, or standard input (`-`).
    ///
    /// # Errors
    /// The prompts cannot be fetched or read.
    pub fn prompts(&self, name: &str) -> Result<Vec<(String, Prompt)>> {
        let known = Known::find(name).is_some_and(|known| known.kind == Kind::Prompts);
        let path = if known { self.fetch(name)? } else { Path::new(name).to_owned() };
        Ok(prompts::read(&path)?)
    }
}

#[cfg(test)]
mod tests {
    use stackelberg_engine::Dtype;

    use super::{DEFAULT_MODEL, PolicySpec, served_reference, usual_dtype};

    #[test]
    fn blocks_of_gguf_files_are_kept() {
        for file in ["m-Q4_K_M.gguf", "/models/M.GGUF", "pypi:p==1/m.gguf", "hf:org/name@main/m.gguf"] {
            assert_eq!(usual_dtype(file), Dtype::Native, "{file}");
        }
        for other in [DEFAULT_MODEL, "folder", "gguf", "hf:org/m-gguf", "http://h:1/v1#m.gguf"] {
            assert_eq!(usual_dtype(other), Dtype::Bf16, "{other}");
        }
        assert_eq!(PolicySpec::default().dtype, usual_dtype(DEFAULT_MODEL));
    }

    #[test]
    fn a_server_names_models_and_nothing_else() {
        let hub = |name: &str| Some(format!("hf:{name}"));
        assert_eq!(served_reference("Qwen/Qwen3-8B"), hub("Qwen/Qwen3-8B"));
        assert_eq!(served_reference("hf:Qwen/Qwen3-8B"), hub("Qwen/Qwen3-8B"));
        assert_eq!(served_reference("smollm2-135m"), Some("smollm2-135m".to_owned()));
        let here = env!("CARGO_MANIFEST_DIR");
        assert_eq!(served_reference(here), Some(here.to_owned()));
        for other in
            ["", "policy", "/no/such/folder", "a/b/c", "pypi:evil==1.0/x", "pypi-sdist:evil==1.0/x"]
        {
            assert_eq!(served_reference(other), None, "{other}");
        }
    }
}
