//! An experiment's file: TOML, every field checked before anything runs.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use stackelberg_decoding::{Method, Stress};
use stackelberg_engine::reward::TextFormat;
use stackelberg_engine::{Dtype, Place};
use stackelberg_evaluation::findings::Knob;
use stackelberg_hub::Known;
use stackelberg_registry::{DEFAULT_MODEL, PolicySpec};
use stackelberg_shaping::{Rule, Shaping};

use crate::error::{Context, Error, Result, invalid};

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
    #[serde(default)]
    pub policy: Policy,
    pub rewards: Rewards,
    /// A sentence embedder for coherence; "none" leaves it out.
    #[serde(default = "embedder")]
    pub embedder: String,
    pub prompts: Vec<PromptSet>,
    #[serde(default)]
    pub decoding: Decoding,
    #[serde(default)]
    pub sweep: Sweep,
    /// How value heads are made; needed where a method is cd.
    pub values: Option<Values>,
    pub methods: Vec<Methods>,
    #[serde(default)]
    pub stress: Vec<Stressed>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    pub model: String,
    #[serde(deserialize_with = "named")]
    pub dtype: Dtype,
    #[serde(deserialize_with = "named")]
    pub device: Place,
    #[serde(deserialize_with = "some_named")]
    pub prompt_format: Option<TextFormat>,
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
        Self { model, dtype: Dtype::Bf16, device: Place::Cpu, prompt_format: None, system: None }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewards {
    /// What guides.
    pub guide: String,
    /// What only judges.
    #[serde(default)]
    pub held_out: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptSet {
    /// As `generate --prompts` takes it; a path is looked for beside the experiment's file first.
    pub from: String,
    /// Only the first so many.
    pub limit: Option<usize>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Decoding {
    pub max_new_tokens: usize,
    pub temperature: f64,
    pub candidates: usize,
    pub samples: usize,
    pub policy_temperature: f64,
    pub score_every: usize,
    pub min_entropy: f64,
    pub stop: Vec<String>,
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
            min_entropy: 0.0,
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

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Values {
    /// What rollouts are drawn for; not the prompts that are answered later.
    pub prompts: Vec<PromptSet>,
    #[serde(default = "ten")]
    pub samples: usize,
    #[serde(default = "tokens")]
    pub max_new_tokens: usize,
    /// What rewards are shaped with before a head learns them.
    #[serde(default = "one")]
    pub strength: f64,
    #[serde(default = "two")]
    pub bound: f64,
    #[serde(default = "steepness")]
    pub alpha: f64,
    #[serde(default = "one")]
    pub cap: f64,
    #[serde(default = "epochs")]
    pub epochs: usize,
    #[serde(default = "share")]
    pub validation: f64,
}

/// A method with everything that is tried under it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Methods {
    #[serde(deserialize_with = "named")]
    pub method: Method,
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
    pub bound: Option<f64>,
    pub alpha: Option<f64>,
    pub cap: Option<f64>,
}

/// Rewards made worse on purpose.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stressed {
    #[serde(deserialize_with = "named")]
    pub method: Method,
    #[serde(deserialize_with = "all_named")]
    pub shapings: Vec<Rule>,
    /// noise=STD, random=STD, reversed.
    #[serde(deserialize_with = "all_named")]
    pub with: Vec<Stress>,
}

impl Experiment {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// A field is missing, unknown or out of range: with file, line and field.
    pub fn read(path: &Path) -> Result<Self> {
        let file = path.display();
        let text = std::fs::read_to_string(path).map_err(|e| stackelberg_data::Error::read(path, e))?;
        let mut experiment: Self = toml::from_str(&text).map_err(|e| {
            let before = e.span().map_or("", |span| text.get(..span.start).unwrap_or_default());
            let line = 1 + before.matches('\n').count();
            Error::Invalid(format!("{file}:{line}: {}", e.message().trim()))
        })?;
        experiment.check().with_context(|| file.to_string())?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let sets = experiment.values.iter_mut().flat_map(|values| &mut values.prompts);
        for set in experiment.prompts.iter_mut().chain(sets) {
            set.find(folder)?;
        }
        Ok(experiment)
    }

    fn check(&self) -> Result<()> {
        let require = |holds: bool, what: &str| if holds { Ok(()) } else { invalid(what) };
        require(!self.name.trim().is_empty(), "name: it is empty")?;
        require(!self.seeds.is_empty(), "seeds: give at least one")?;
        let distinct: BTreeSet<u64> = self.seeds.iter().copied().collect();
        require(distinct.len() == self.seeds.len(), "seeds: one is given twice")?;
        require(!self.prompts.is_empty(), "prompts: give at least one [[prompts]]")?;
        let empty = self.prompts.iter().any(|set| set.limit == Some(0));
        require(!empty, "prompts: limit is 0: leave the set out instead")?;
        require(!self.methods.is_empty(), "methods: give at least one [[methods]]")?;
        require(self.decoding.batch_size > 0, "decoding.batch_size: at least 1")?;
        let held_out = &self.rewards.held_out;
        require(
            !held_out.contains(&self.rewards.guide),
            "rewards.held_out: the guide is no held-out reward",
        )?;
        let repeated = held_out.iter().enumerate().find(|(i, name)| held_out[..*i].contains(name));
        if let Some((_, name)) = repeated {
            return invalid(format!("rewards.held_out: '{name}' is given twice"));
        }
        if let Some(values) = &self.values {
            values.check().context("values")?;
        }
        for (field, fraction) in
            [("diversity", self.sweep.diversity), ("coherence", self.sweep.coherence)]
        {
            let holds = (0.0..=1.0).contains(&fraction);
            require(holds, &format!("sweep.{field}: {fraction} is no fraction between 0 and 1"))?;
        }
        for (number, methods) in self.methods.iter().enumerate() {
            if methods.method.chooses_answers() && self.decoding.temperature == 0.0 {
                return invalid(format!(
                    "methods[{number}]: at temperature 0 all answers that {} chooses from would be the same",
                    methods.method
                ));
            }
            methods.check(&self.sweep).with_context(|| format!("methods[{number}]"))?;
        }
        let groups: Vec<String> = self.methods.iter().map(Methods::group).collect();
        for (number, group) in groups.iter().enumerate() {
            let what = format!("methods[{number}].method: {group} has an entry already");
            require(!groups[..number].contains(group), &what)?;
        }
        if self.methods.iter().any(|m| m.method == Method::Cd) && self.values.is_none() {
            return invalid(format!(
                "values: cd needs a [values] table: prompts for rollouts, and how heads are trained"
            ));
        }
        for (number, stressed) in self.stress.iter().enumerate() {
            let methods =
                || self.methods.iter().filter(|m| m.is_guided() && m.method == stressed.method);
            if methods().next().is_none() {
                return invalid(format!(
                    "stress[{number}].method: {} is none of the guided [[methods]]",
                    stressed.method
                ));
            }
            let unknown = |rule: &&Rule| !methods().any(|methods| methods.shapings.contains(rule));
            if let Some(rule) = stressed.shapings.iter().find(unknown) {
                return invalid(format!(
                    "stress[{number}].shapings: {rule} is not among those of {}",
                    stressed.method
                ));
            }
        }
        Ok(())
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

    fn check(&self, sweep: &Sweep) -> Result<()> {
        if let Some(strength) = self.strengths.iter().find(|s| !(**s >= 0.0 && s.is_finite())) {
            return invalid(format!("strengths: {strength} is no strength: zero or more, and finite"));
        }
        if let Some(nats) = self.kl_budgets.iter().find(|nats| !(**nats > 0.0 && nats.is_finite())) {
            return invalid(format!("kl_budgets: {nats} is no budget: above zero, and finite"));
        }
        if let Some((number, knob)) =
            self.knobs().iter().enumerate().find(|(number, knob)| self.knobs()[..*number].contains(knob))
        {
            return invalid(format!("{knob} is given twice (the second is number {})", number + 1));
        }
        for rules in [&self.shapings, &self.reference] {
            if let Some((_, rule)) =
                rules.iter().enumerate().find(|(i, rule)| rules[..*i].contains(rule))
            {
                return invalid(format!("shapings: {rule} is given twice"));
            }
        }
        if !self.kl_budgets.is_empty() && (!self.is_guided() || !self.strengths.is_empty()) {
            return invalid(format!(
                "kl_budgets: they are for args and cd, in place of strengths (args may have two entries)"
            ));
        }
        if !self.is_guided() {
            let shapings = self.shapings.len() + self.reference.len();
            return match self.method {
                Method::Follower if shapings == 0 => {
                    return invalid(format!("shapings: the follower needs at least one"));
                }
                Method::Follower | Method::SoftBestOfN if self.strengths.len() != 1 => {
                    return invalid(format!("strengths: give {} exactly one", self.method));
                }
                Method::Follower => Ok(()),
                _ if shapings > 0 => {
                    return invalid(format!("shapings: {} does not shape rewards", self.method));
                }
                Method::Base | Method::BestOfN if !self.strengths.is_empty() => {
                    return invalid(format!("strengths: {} has none", self.method));
                }
                _ if self.curves => return invalid(format!("curves: {} has none", self.method)),
                _ => Ok(()),
            };
        }
        if self.knobs().is_empty() {
            return invalid(format!("strengths: give at least one (or kl_budgets)"));
        }
        if !self.shapings.contains(&sweep.shaping) {
            return invalid(format!("shapings: {} is missing, which the sweep needs", sweep.shaping));
        }
        Ok(())
    }
}

impl Values {
    fn check(&self) -> Result<()> {
        let shaping = Shaping {
            strength: self.strength,
            bound: self.bound,
            alpha: self.alpha,
            cap: self.cap,
            ..Shaping::default()
        };
        shaping.check()?;
        for (field, holds, must) in [
            ("prompts", !self.prompts.is_empty(), "at least one set"),
            ("samples", self.samples > 1, "at least 2"),
            ("max_new_tokens", self.max_new_tokens > 0, "at least 1"),
            ("epochs", self.epochs > 0, "at least 1"),
            ("validation", self.validation > 0.0 && self.validation < 1.0, "between 0 and 1"),
        ] {
            if !holds {
                return invalid(format!("{field}: it must be {must}"));
            }
        }
        Ok(())
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
