//! The format of an experiment's file (TOML).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use stackelberg_decoding::{Method, Options, Perturbation};
use stackelberg_engine::reward::TextFormat;
use stackelberg_engine::{Argument, Device, Dtype, KvDtype};
use stackelberg_evaluation::findings::{Knob, Limits};
use stackelberg_hub::Known;
use stackelberg_registry::names;
use stackelberg_registry::{DEFAULT_MODEL, PolicySpec, usual_dtype};
use stackelberg_shaping::Rule;

use crate::decoding::{Decoding, Entry};
use crate::error::{Error, Result, invalid};

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// The report's title.
    pub name: String,
    /// A paragraph for the report.
    #[serde(default)]
    pub about: String,
    /// Random seeds. Every sampled run is made once per seed.
    #[serde(default = "one_seed")]
    pub seeds: Vec<u64>,
    /// The number of prompts, from the first one, whose decoding steps are kept for the report.
    #[serde(default = "few")]
    pub traces: usize,
    /// The policy.
    #[serde(default)]
    pub policy: Policy,
    /// The guide and the held-out rewards.
    pub rewards: Rewards,
    /// The sentence embedder for coherence; "none" disables coherence.
    #[serde(default = "embedder")]
    pub embedder: String,
    /// The prompts.
    pub prompts: Vec<PromptSet>,
    /// The decoding settings.
    #[serde(default)]
    pub decoding: Decoding,
    /// How the strength of the main table is chosen.
    #[serde(default)]
    pub sweep: Sweep,
    /// How value heads are trained; required for the method cd.
    pub values: Option<Values>,
    /// The methods to compare.
    pub methods: Vec<Methods>,
    /// Runs with perturbed rewards.
    #[serde(default, alias = "stress")]
    pub perturbed: Vec<Perturbed>,
}

/// The policy.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// A known name or a reference.
    pub model: String,
    /// The data type of the weights; `None`: [`usual_dtype`].
    #[serde(deserialize_with = "some_named")]
    pub dtype: Option<Dtype>,
    /// The data type of cached keys and values; on the CPU only.
    #[serde(deserialize_with = "named")]
    pub kv_dtype: KvDtype,
    /// The device.
    #[serde(deserialize_with = "named")]
    pub device: Device,
    /// Of a model on a server: where its tokenizer is.
    pub tokenizer: Option<String>,
    /// Of a model on a server: the address of a server that gives its hidden states.
    pub states: Option<String>,
    /// The prompt format; `None`: the one that the reward was trained on.
    #[serde(deserialize_with = "some_named")]
    pub prompt_format: Option<TextFormat>,
    /// A system message.
    pub system: Option<String>,
    /// Variables for the chat template, such as `enable_thinking`.
    pub template_args: BTreeMap<String, Argument>,
}

impl Policy {
    /// The data type of the weights.
    pub fn dtype(&self) -> Dtype {
        self.dtype.unwrap_or_else(|| usual_dtype(&self.model))
    }

    /// The policy to load.
    pub fn spec(&self) -> PolicySpec {
        PolicySpec {
            name: self.model.clone(),
            dtype: self.dtype(),
            kv_dtype: self.kv_dtype,
            device: self.device,
            tokenizer: self.tokenizer.clone(),
            states: self.states.clone(),
            template_args: self.template_args.clone(),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            model: DEFAULT_MODEL.to_owned(),
            dtype: None,
            kv_dtype: KvDtype::default(),
            device: Device::Cpu,
            tokenizer: None,
            states: None,
            prompt_format: None,
            system: None,
            template_args: BTreeMap::new(),
        }
    }
}

/// The guide and the held-out rewards.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewards {
    /// The reward that guides.
    pub guide: String,
    /// Rewards that do not guide and only measure the answers.
    #[serde(default)]
    pub held_out: Vec<String>,
}

impl Rewards {
    /// The guide's name as records show it.
    pub fn shown_guide(&self) -> String {
        names::shown(&self.guide)
    }

    /// The names of all rewards as records show them: the guide's, then the held-out ones.
    pub fn shown(&self) -> Vec<String> {
        std::iter::once(&self.guide).chain(&self.held_out).map(|name| names::shown(name)).collect()
    }
}

/// A set of prompts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptSet {
    /// A known set or a file, given as for `generate --prompts`. A path is first looked up in the folder of the
    /// experiment's file.
    pub from: String,
    /// The maximum number of prompts; the first ones are used.
    pub limit: Option<usize>,
}

/// How the strength of the main table is chosen.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sweep {
    /// The shaping that is swept.
    #[serde(deserialize_with = "named")]
    pub shaping: Rule,
    /// A strength is degenerate if the paired interval of diversity lies wholly below this fraction of the base policy's.
    pub diversity: f64,
    /// A strength is degenerate if the paired interval of coherence lies wholly below this fraction of the base policy's.
    pub coherence: f64,
}

impl Sweep {
    /// The limits of diversity and coherence.
    pub(crate) fn limits(&self) -> Limits {
        Limits { diversity: self.diversity, coherence: self.coherence }
    }
}

impl Default for Sweep {
    fn default() -> Self {
        Self { shaping: Rule::Raw, diversity: 0.9, coherence: 0.9 }
    }
}

/// How value heads are trained.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Values {
    /// The prompts of the rollouts. They must differ from the prompts of the experiment.
    pub prompts: Vec<PromptSet>,
    /// Rollouts per prompt.
    #[serde(default = "ten")]
    pub samples: usize,
    /// Maximum new tokens.
    #[serde(default = "tokens")]
    pub max_new_tokens: usize,
    /// The strength λ of the shaping of the training targets.
    #[serde(default = "one")]
    pub strength: f64,
    /// The bound B of the shaping of the training targets.
    #[serde(default = "two")]
    pub bound: f64,
    /// Steepness of the sigmoid rules.
    #[serde(default = "one")]
    pub alpha: f64,
    /// Upper limit of the rule cap, in reward units.
    #[serde(default = "one")]
    pub cap: f64,
    /// Maximum number of epochs.
    #[serde(default = "epochs")]
    pub epochs: usize,
    /// Fraction of the prompts that form the validation set.
    #[serde(default = "share")]
    pub validation: f64,
}

/// A method with its shapings and strengths, and with decoding settings of its own, by their names in [`Options`].
#[derive(Debug, Clone, Deserialize)]
#[serde(remote = "Self")]
pub struct Methods {
    /// The method.
    #[serde(deserialize_with = "named")]
    pub method: Method,
    /// Shaping rules.
    #[serde(default, deserialize_with = "all_named")]
    pub shapings: Vec<Rule>,
    /// Shapings that are also run with the bound budget of the paper's public code.
    #[serde(default, deserialize_with = "all_named")]
    pub reference: Vec<Rule>,
    /// The strengths λ of the sweep. Every shaping is run at the strength that the sweep keeps.
    #[serde(default)]
    pub strengths: Vec<f64>,
    /// KL budgets per step in nats, instead of strengths. The bound (for rules without one, the strength) is solved for.
    #[serde(default)]
    pub kl_budgets: Vec<f64>,
    /// Whether to run every shaping at every strength (or budget), for curves and the comparison at equal KL.
    #[serde(default)]
    pub curves: bool,
    /// The bound B; `None`: the method's default.
    pub bound: Option<f64>,
    /// Steepness of the sigmoid rules; `None`: the method's default.
    pub alpha: Option<f64>,
    /// Upper limit of the rule cap, in reward units; `None`: the method's default.
    pub cap: Option<f64>,
    /// The shaping of the training targets of the value head that scores blocks; `None`: rewards score them.
    #[serde(default, deserialize_with = "some_named")]
    pub value: Option<Rule>,
    /// The entry's own decoding settings. They override those of `[decoding]`.
    #[serde(skip)]
    pub own: Options,
}

impl<'de> Deserialize<'de> for Methods {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        // The derived function of this name reads the fields.
        let mut own = Options::default();
        let methods = Self::deserialize(Entry { from, own: &mut own })?;
        Ok(Self { own, ..methods })
    }
}

/// Runs with perturbed rewards.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Perturbed {
    /// The method.
    #[serde(deserialize_with = "named")]
    pub method: Method,
    /// Shaping rules; none for methods that do not shape rewards.
    #[serde(default, deserialize_with = "all_named")]
    pub shapings: Vec<Rule>,
    /// The perturbations: noise=STD, random=STD or reversed.
    #[serde(deserialize_with = "all_named")]
    pub with: Vec<Perturbation>,
}

impl Experiment {
    /// Parses the text of a file without checking the ranges of fields.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self> {
        let file = path.display();
        toml::from_str(text).map_err(|e| {
            let before = e.span().map_or("", |span| text.get(..span.start).unwrap_or_default());
            let line = 1 + before.matches('\n').count();
            Error::Invalid(format!("{file}:{line}: {}", e.message().trim()))
        })
    }

    /// Resolves the files of all prompt sets; they are first looked up in `folder`.
    pub(crate) fn find_sets(&mut self, folder: &Path) -> Result<()> {
        let sets = self.values.iter_mut().flat_map(|values| &mut values.prompts);
        self.prompts.iter_mut().chain(sets).try_for_each(|set| set.find(folder))
    }
}

impl Methods {
    /// The heading of the method's rows in the report.
    pub fn group(&self) -> String {
        group(&self.entry(), self.knobs().first().copied())
    }

    /// The method and the settings that the entry has of its own: `best-of-n samples 16`.
    pub fn entry(&self) -> String {
        let mut said = self.method.to_string();
        for (name, value) in written(&self.own) {
            said += &format!(" {name} {value}");
        }
        if let Some(rule) = self.value {
            said += &format!(" value {rule}");
        }
        said
    }

    /// The strengths, or the KL budgets, in the order of the file.
    pub fn knobs(&self) -> Vec<Knob> {
        let strengths = self.strengths.iter().copied().map(Knob::Strength);
        strengths.chain(self.kl_budgets.iter().copied().map(Knob::KlBudget)).collect()
    }

    /// Whether the method guides each step (args and cd).
    pub fn is_guided(&self) -> bool {
        matches!(self.method, Method::Args | Method::Cd)
    }
}

impl PromptSet {
    fn find(&mut self, folder: &Path) -> Result<()> {
        let beside = folder.join(&self.from);
        if !self.is_known() && beside.exists() {
            self.from = beside.to_string_lossy().into_owned();
        } else if !self.is_known() && !PathBuf::from(&self.from).exists() {
            return invalid(format!(
                "prompts: {} does not exist, neither here nor in the folder of the experiment's file: correct `from`",
                self.from
            ));
        }
        Ok(())
    }

    fn is_known(&self) -> bool {
        Known::find(&self.from).is_some()
    }
}

/// The heading of a method's rows in the report.
pub(crate) fn group(entry: &str, knob: Option<Knob>) -> String {
    match knob {
        Some(Knob::KlBudget(_)) => format!("{entry} by KL budget"),
        _ => entry.to_owned(),
    }
}

/// The settings that are given, with their names.
fn written(options: &Options) -> Vec<(&'static str, String)> {
    let values = serde_json::json!(options);
    options.given().map(|name| (name, shown(&values[name]))).collect()
}

/// The value of a setting as names and command lines have it.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        // Without the decimals of a whole number.
        Value::Number(number) if number.is_f64() => number.as_f64().unwrap_or_default().to_string(),
        other => other.to_string(),
    }
}

fn named<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
    from: D,
) -> std::result::Result<T, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

fn some_named<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
    from: D,
) -> std::result::Result<Option<T>, D::Error> {
    named(from).map(Some)
}

fn all_named<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
    from: D,
) -> std::result::Result<Vec<T>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    names.iter().map(|name| name.parse().map_err(serde::de::Error::custom)).collect()
}

fn one_seed() -> Vec<u64> {
    vec![0]
}

fn few() -> usize {
    4
}

fn embedder() -> String {
    "all-minilm-l6-v2".to_owned()
}

fn ten() -> usize {
    10
}

fn tokens() -> usize {
    64
}

fn epochs() -> usize {
    15
}

fn share() -> f64 {
    0.1
}

fn one() -> f64 {
    1.0
}

fn two() -> f64 {
    2.0
}
