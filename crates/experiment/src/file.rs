//! An experiment's file: TOML, every field checked before anything runs.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use stackelberg_decoding::{Method, Perturbation};
use stackelberg_engine::reward::TextFormat;
use stackelberg_engine::{Device, Dtype};
use stackelberg_evaluation::findings::Knob;
use stackelberg_hub::Known;
use stackelberg_registry::{DEFAULT_MODEL, PolicySpec};
use stackelberg_shaping::Rule;

use crate::error::{Error, Result, invalid};

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// What the report is called.
    pub name: String,
    /// A paragraph for the report.
    #[serde(default)]
    pub about: String,
    /// Every sampled run is made once with each.
    #[serde(default = "one_seed")]
    pub seeds: Vec<u64>,
    /// Prompts, the first ones, of which every step is kept for the report.
    #[serde(default = "few")]
    pub traces: usize,
    /// The policy.
    #[serde(default)]
    pub policy: Policy,
    /// What guides and what judges.
    pub rewards: Rewards,
    /// A sentence embedder for coherence; "none" leaves it out.
    #[serde(default = "embedder")]
    pub embedder: String,
    /// What is answered.
    pub prompts: Vec<PromptSet>,
    /// How answers are decoded.
    #[serde(default)]
    pub decoding: Decoding,
    /// How the one strength of the main table is chosen.
    #[serde(default)]
    pub sweep: Sweep,
    /// How value heads are made; needed where a method is cd.
    pub values: Option<Values>,
    /// What is compared.
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
    /// How weights are kept.
    #[serde(deserialize_with = "named")]
    pub dtype: Dtype,
    /// Where it runs.
    #[serde(deserialize_with = "named")]
    pub device: Device,
    /// How prompts are laid out; `None`: as the reward was trained.
    #[serde(deserialize_with = "some_named")]
    pub prompt_format: Option<TextFormat>,
    /// A system message.
    pub system: Option<String>,
}

impl Policy {
    /// What to load.
    pub fn spec(&self) -> PolicySpec {
        PolicySpec { name: self.model.clone(), dtype: self.dtype, device: self.device }
    }
}

impl Default for Policy {
    fn default() -> Self {
        let model = DEFAULT_MODEL.to_owned();
        Self { model, dtype: Dtype::Bf16, device: Device::Cpu, prompt_format: None, system: None }
    }
}

/// What guides and what judges.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewards {
    /// What guides.
    pub guide: String,
    /// What only judges.
    #[serde(default)]
    pub held_out: Vec<String>,
}

/// A set of prompts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptSet {
    /// As `generate --prompts` takes it; a path is looked for beside the experiment's file first.
    pub from: String,
    /// Only the first so many.
    pub limit: Option<usize>,
}

/// How answers are decoded.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Decoding {
    /// Most new tokens.
    pub max_new_tokens: usize,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f64,
    /// Candidates per guided step, k.
    pub candidates: usize,
    /// Answers, or rollouts, per prompt.
    pub samples: usize,
    /// Temperature of the log-probabilities that cd adds values to.
    pub policy_temperature: f64,
    /// Tokens of a segment; 1 scores every token.
    pub score_every: usize,
    /// Rewards are computed where the entropy over the candidates is at least this, in nats.
    #[serde(alias = "min_entropy")]
    pub entropy_gate: f64,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// Sequences that share each forward.
    pub batch_size: usize,
}

impl Default for Decoding {
    fn default() -> Self {
        Self {
            max_new_tokens: 128,
            temperature: 1.0,
            candidates: 10,
            samples: 10,
            // One base policy for all methods.
            policy_temperature: 1.0,
            score_every: 1,
            entropy_gate: 0.0,
            stop: Vec::new(),
            batch_size: 20,
        }
    }
}

/// How the one strength of the main table is chosen.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sweep {
    /// The shaping that is swept.
    #[serde(deserialize_with = "named")]
    pub shaping: Rule,
    /// Diversity may not fall below this fraction of the base policy's.
    pub diversity: f64,
    /// Nor coherence.
    pub coherence: f64,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { shaping: Rule::Raw, diversity: 0.9, coherence: 0.9 }
    }
}

/// How value heads are made.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Values {
    /// What rollouts are drawn for; not the prompts that are answered later.
    pub prompts: Vec<PromptSet>,
    /// Answers, or rollouts, per prompt.
    #[serde(default = "ten")]
    pub samples: usize,
    /// Most new tokens.
    #[serde(default = "tokens")]
    pub max_new_tokens: usize,
    /// What rewards are shaped with before a head learns them.
    #[serde(default = "one")]
    pub strength: f64,
    /// B.
    #[serde(default = "two")]
    pub bound: f64,
    /// Steepness of the sigmoid rules.
    #[serde(default = "steepness")]
    pub alpha: f64,
    /// Ceiling of the rule cap.
    #[serde(default = "one")]
    pub cap: f64,
    /// Most passes over the samples.
    #[serde(default = "epochs")]
    pub epochs: usize,
    /// Share of the prompts that validates.
    #[serde(default = "share")]
    pub validation: f64,
}

/// A method with everything that is tried under it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Methods {
    /// The method.
    #[serde(deserialize_with = "named")]
    pub method: Method,
    /// Shaping rules.
    #[serde(default, deserialize_with = "all_named")]
    pub shapings: Vec<Rule>,
    /// Shapings that are also tried under the budget of the paper's public code.
    #[serde(default, deserialize_with = "all_named")]
    pub reference: Vec<Rule>,
    /// Strengths that the sweep tries; every shaping is run at the one it keeps.
    #[serde(default)]
    pub strengths: Vec<f64>,
    /// Instead of strengths: nats that a step may take. Each rule gets the bound, or strength, that takes so many.
    #[serde(default)]
    pub kl_budgets: Vec<f64>,
    /// Whether every shaping is run at every strength (or budget), for curves and for equal KL.
    #[serde(default)]
    pub curves: bool,
    /// B; `None`: the method's default.
    pub bound: Option<f64>,
    /// Steepness of the sigmoid rules; `None`: the method's default.
    pub alpha: Option<f64>,
    /// Ceiling of the rule cap; `None`: the method's default.
    pub cap: Option<f64>,
}

/// Runs with perturbed rewards.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Perturbed {
    /// The method.
    #[serde(deserialize_with = "named")]
    pub method: Method,
    /// Shaping rules.
    #[serde(deserialize_with = "all_named")]
    pub shapings: Vec<Rule>,
    /// noise=STD, random=STD, reversed.
    #[serde(deserialize_with = "all_named")]
    pub with: Vec<Perturbation>,
}

impl Experiment {
    /// Parses a file, without checking ranges.
    pub(crate) fn parse(path: &Path) -> Result<Self> {
        let file = path.display();
        let text = std::fs::read_to_string(path).map_err(|e| stackelberg_data::Error::read(path, e))?;
        toml::from_str(&text).map_err(|e| {
            let before = e.span().map_or("", |span| text.get(..span.start).unwrap_or_default());
            let line = 1 + before.matches('\n').count();
            Error::Invalid(format!("{file}:{line}: {}", e.message().trim()))
        })
    }

    /// Finds the files of all prompt sets, which are looked for in `folder` first.
    pub(crate) fn find_sets(&mut self, folder: &Path) -> Result<()> {
        let sets = self.values.iter_mut().flat_map(|values| &mut values.prompts);
        self.prompts.iter_mut().chain(sets).try_for_each(|set| set.find(folder))
    }
}

impl Methods {
    /// The heading of its rows in the report.
    pub fn group(&self) -> String {
        group(self.method, self.knobs().first().copied())
    }

    /// The strengths, or the KL budgets, in the file's order.
    pub fn knobs(&self) -> Vec<Knob> {
        let strengths = self.strengths.iter().copied().map(Knob::Strength);
        strengths.chain(self.kl_budgets.iter().copied().map(Knob::KlBudget)).collect()
    }

    /// Whether it guides step by step.
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
                "prompts: there is no {} here nor beside the experiment's file: put it there, or give another `from`",
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
pub(crate) fn group(method: Method, knob: Option<Knob>) -> String {
    match knob {
        Some(Knob::KlBudget(_)) => format!("{method} by KL budget"),
        _ => method.to_string(),
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

fn steepness() -> f64 {
    1.5
}
