//! Where an experiment's runs are made and kept: one folder a run, named by all that decides its answers.
//!
//! ```text
//! DIR/runs/args-srs-1-s0-3f2a9c01/   answers.jsonl  trace.jsonl  run.json  scores-KEY.jsonl
//! DIR/values/                        prompts.jsonl  rollouts/  raw.safetensors  srs.safetensors ...
//! ```

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use stackelberg_data::hash::sha256_file;
use stackelberg_decoding::{Guidance, Settings};
use stackelberg_engine::reward::{TextFormat, ValueHead};
use stackelberg_engine::{Checkpoint, Prompt, Reward};
use stackelberg_evaluation::metrics::{Coherence, Measured};
use stackelberg_evaluation::responses::{self, Response};
use stackelberg_learning::whole;

use super::file::{Experiment, PromptSet};
use super::plan::{self, Setting};
use crate::answers::{Files, Session};
use crate::evaluator::Evaluator;
use crate::generate::{INTERRUPTED, Interrupted, read_prompts, text_format};
use crate::model::{ModelArgs, combination, reward_hash, split_format};
use crate::record::{Names, Recorded, prompt_value};

/// An experiment with its models loaded.
pub(crate) struct Lab<'a> {
    pub(crate) experiment: &'a Experiment,
    pub(crate) out: PathBuf,
    pub(crate) policy: &'a Checkpoint,
    /// Where it runs, if not on the CPU.
    pub(super) device: Option<String>,
    guide: Reward,
    pub(super) guide_hash: String,
    pub(super) format: TextFormat,
    pub(crate) prompts: Vec<(String, Prompt)>,
    prompts_hash: String,
    /// Where value heads are, if there are any.
    pub(super) values: Option<PathBuf>,
    pub(crate) evaluator: Evaluator,
    /// Held while the experiment is open: two processes would write into the same files.
    _lock: File,
}

/// One run that is done: a setting under one seed.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) folder: PathBuf,
    pub(crate) responses: Vec<Response>,
    pub(crate) measured: Vec<Measured>,
}

impl<'a> Lab<'a> {
    pub(crate) fn open(
        experiment: &'a Experiment,
        out: &Path,
        model: &ModelArgs,
        policy: &'a Checkpoint,
    ) -> Result<Self> {
        let lock = lock(out)?;
        let prompts = prompts_of(&experiment.prompts)?;
        let guide_name = &experiment.rewards.guide;
        let guide = model.reward(guide_name, policy)?;
        warn_of_shared(guide_name, &experiment.rewards.held_out)?;
        let format = text_format(experiment.policy.prompt_format, policy, Some(&guide).into());
        let rewards = [std::slice::from_ref(guide_name), &experiment.rewards.held_out].concat();
        let embedder = Some(experiment.embedder.as_str()).filter(|name| *name != "none");
        let evaluator = Evaluator::load(&rewards, embedder, model, &mut || Ok(policy))?;
        let mut lab = Self {
            experiment,
            out: out.to_owned(),
            guide_hash: reward_hash(guide_name)?,
            prompts_hash: hash_of(&prompts.iter().map(|(id, p)| json!([id, prompt_value(p)])).collect()),
            policy,
            device: model.recorded_device(),
            guide,
            format,
            prompts,
            values: None,
            evaluator,
            _lock: lock,
        };
        lab.values = lab.values_folder()?;
        // What cannot be run is told before anything is.
        for setting in experiment.all_settings() {
            let vocabulary = policy.model.config().vocabulary;
            setting.settings.check(vocabulary).with_context(|| setting.to_string())?;
        }
        Ok(lab)
    }

    /// The seeds under which a setting is run.
    pub(crate) fn seeds(&self, setting: &Setting) -> &[u64] {
        self.experiment.seeds_of(setting)
    }

    /// Makes what is missing of a setting's run under one seed, and measures it: whether anything was. The bar counts
    /// answers.
    pub(crate) fn run(
        &self,
        setting: &Setting,
        seed: u64,
        coherence: &mut Option<Coherence<'_>>,
        bar: &ProgressBar,
    ) -> Result<bool> {
        bar.set_prefix(format!("{setting}, seed {seed}"));
        let Some(place) = self.place(setting, seed)? else {
            bail!("{setting}: its value head is not trained yet");
        };
        let responses = match self.answers(&place.folder)? {
            Some(responses) => {
                bar.inc(self.prompts.len() as u64);
                responses
            }
            None => {
                self.answer(setting, &place, bar)?;
                stop_if_interrupted()?;
                self.answers(&place.folder)?.with_context(|| {
                    format!("{}: answers are missing though the run ended", place.folder.display())
                })?
            }
        };
        stop_if_interrupted()?;
        if self.measured(&place.folder)?.is_some() {
            return Ok(false);
        }
        self.keep(&place.folder, &self.measure(&responses, coherence)?)?;
        Ok(true)
    }

    /// A setting's run under one seed, if it is done and measured.
    pub(crate) fn done(&self, setting: &Setting, seed: u64) -> Result<Option<Done>> {
        let Some(place) = self.place(setting, seed)? else { return Ok(None) };
        let Some(responses) = self.answers(&place.folder)? else { return Ok(None) };
        let Some(measured) = self.measured(&place.folder)? else { return Ok(None) };
        Ok(Some(Done { folder: place.folder, responses, measured }))
    }

    fn answer(&self, setting: &Setting, place: &Place, bar: &ProgressBar) -> Result<()> {
        std::fs::create_dir_all(&place.folder)
            .with_context(|| format!("cannot make {}", place.folder.display()))?;
        let run = place.folder.join("run.json");
        whole::sweep(&run)?;
        whole::write(&run, pretty(&place.identity).as_bytes())?;
        let (answers, trace) = (place.folder.join("answers.jsonl"), place.folder.join("trace.jsonl"));
        let files = Files {
            out: Some(&answers),
            trace: (self.experiment.traces > 0).then_some(trace.as_path()),
            traced: self.experiment.traces,
            resume: true,
            warn: false,
        };
        self.with_session(setting, &place.settings, |session| {
            session.answer_all(&self.prompts, &files, bar)
        })
    }

    /// Has `work` use a session of a setting, its value head loaded.
    pub(crate) fn with_session<T>(
        &self,
        setting: &Setting,
        settings: &Settings,
        work: impl FnOnce(&Session<'_>) -> Result<T>,
    ) -> Result<T> {
        let file = setting.value().map(|head| self.value_file(head));
        let value = file.as_deref().map(ValueHead::load).transpose()?;
        value.iter().try_for_each(|head| head.fits(self.policy))?;
        let name = setting.value().map(plan::ValueHead::file);
        let value_hash = self.value_hash(setting)?;
        let session = Session {
            policy: self.policy,
            guidance: Guidance { reward: Some(&self.guide), value: value.as_ref() },
            settings: settings.clone(),
            format: self.format,
            names: self.names(name.as_deref(), value_hash.as_deref()),
            at_once: self.experiment.decoding.batch_size,
            watch: true,
        };
        work(&session)
    }

    fn names<'n>(&'n self, value: Option<&'n str>, value_hash: Option<&'n str>) -> Names<'n> {
        Names {
            model: &self.experiment.policy.model,
            dtype: self.experiment.policy.dtype.name(),
            device: self.device.as_deref(),
            reward: &self.experiment.rewards.guide,
            reward_hash: Some(&self.guide_hash),
            parts: self.guide.parts(),
            value_hash,
            value,
            system: self.experiment.policy.system.as_deref(),
        }
    }

    /// Where a run's files are, by all that decides its answers; `None` while its value head is not there.
    pub(crate) fn place(&self, setting: &Setting, seed: u64) -> Result<Option<Place>> {
        let value_hash = self.value_hash(setting)?;
        if value_hash.is_none() && setting.value().is_some() {
            return Ok(None);
        }
        let settings = Settings { seed, ..setting.settings.clone() };
        let name = setting.value().map(plan::ValueHead::file);
        let names = self.names(name.as_deref(), value_hash.as_deref());
        let recorded = Recorded::new(names, &settings, self.format, self.policy);
        let mut identity = recorded.identity();
        identity["prompts_hash"] = json!(self.prompts_hash);
        let address = &hash_of(&identity)[..8];
        let folder = self.out.join("runs").join(format!("{}-s{seed}-{address}", setting.slug()));
        identity["commit"] = json!(env!("STACKELBERG_COMMIT"));
        identity["command"] = json!(std::env::args().collect::<Vec<_>>());
        Ok(Some(Place { folder, settings, identity }))
    }

    /// What tells the setting's value head from any other, if it has one and it is there.
    fn value_hash(&self, setting: &Setting) -> Result<Option<String>> {
        let Some(file) = setting.value().map(|head| self.value_file(head)).filter(|file| file.exists())
        else {
            return Ok(None);
        };
        Ok(Some(sha256_file(&file).with_context(|| format!("cannot read {}", file.display()))?))
    }

    pub(crate) fn value_file(&self, head: plan::ValueHead) -> PathBuf {
        self.values.as_ref().unwrap_or(&self.out).join(head.file())
    }

    /// The answers of a run, in the order of the prompts, if all are there.
    fn answers(&self, folder: &Path) -> Result<Option<Vec<Response>>> {
        let file = folder.join("answers.jsonl");
        let text = match std::fs::read_to_string(&file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("cannot read {}", file.display()))?,
        };
        // A last line that is not whole was written by a run that was killed.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        if whole.lines().count() < self.prompts.len() {
            return Ok(None);
        }
        let mend = || {
            format!(
                "delete that line (or the folder {}), and run the experiment again",
                folder.display()
            )
        };
        let mut by_id: HashMap<String, Response> = responses::parse(&file.display().to_string(), whole)
            .with_context(mend)?
            .responses
            .into_iter()
            .map(|r| (r.id.clone(), r))
            .collect();
        Ok(self.prompts.iter().map(|(id, _)| by_id.remove(id)).collect())
    }

    /// Measures answers, whether their scores are kept or not.
    pub(crate) fn measure(
        &self,
        responses: &[Response],
        coherence: &mut Option<Coherence<'_>>,
    ) -> Result<Vec<Measured>> {
        let guide = Some(self.experiment.rewards.guide.as_str());
        self.evaluator.measure(Some(self.policy), responses, guide, coherence.as_mut())
    }

    /// Keeps a run's scores beside its answers.
    fn keep(&self, folder: &Path, measured: &[Measured]) -> Result<()> {
        let mut lines = Vec::new();
        for measured in measured {
            serde_json::to_writer(&mut lines, measured).context("cannot write scores as JSON")?;
            lines.push(b'\n');
        }
        Ok(whole::write(&self.scores(folder)?, &lines)?)
    }

    fn measured(&self, folder: &Path) -> Result<Option<Vec<Measured>>> {
        let file = self.scores(folder)?;
        let text = match std::fs::read_to_string(&file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("cannot read {}", file.display()))?,
        };
        let read = |line: &str| serde_json::from_str(line);
        let broken = || format!("{}: not scores: delete the file", file.display());
        let measured: Vec<Measured> =
            text.lines().map(read).collect::<Result<_, _>>().with_context(broken)?;
        let ids = measured.iter().map(|m| &m.id);
        if !ids.eq(self.prompts.iter().map(|(id, _)| id)) {
            bail!("{}: scores of other prompts: delete the file", file.display());
        }
        Ok(Some(measured))
    }

    /// Where a run's scores are, by what measures and by the answers that are measured.
    fn scores(&self, folder: &Path) -> Result<PathBuf> {
        let answers = folder.join("answers.jsonl");
        let hash =
            sha256_file(&answers).with_context(|| format!("cannot read {}", answers.display()))?;
        Ok(folder.join(format!("scores-{}-{}.jsonl", self.evaluator.key(), &hash[..8])))
    }

    /// Whether the answers of a run were changed after they were measured.
    pub(crate) fn is_changed(&self, folder: &Path) -> Result<bool> {
        let begin = format!("scores-{}-", self.evaluator.key());
        let files = folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))?;
        let mut names = files.filter_map(|file| Some(file.ok()?.file_name()));
        let measured_once = names.any(|name| name.to_string_lossy().starts_with(&begin));
        Ok(measured_once && self.answers(folder)?.is_some() && self.measured(folder)?.is_none())
    }

    /// What the report says of where its numbers come from.
    pub(crate) fn facts(&self) -> Vec<(String, String)> {
        let fact = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let on = self.device.as_ref().map_or_else(String::new, |device| format!(" on {device}"));
        let mut facts = vec![
            fact("version", env!("CARGO_PKG_VERSION")),
            fact("commit", env!("STACKELBERG_COMMIT")),
            fact("command", &std::env::args().collect::<Vec<_>>().join(" ")),
            fact(
                "policy",
                &format!("{} ({}{on})", self.experiment.policy.model, self.experiment.policy.dtype),
            ),
            fact("policy's hash", &self.policy.fingerprint),
            fact("guide", &self.experiment.rewards.guide),
            fact("prompts", &format!("{}, hash {}", self.prompts.len(), self.prompts_hash)),
            fact(
                "seeds",
                &self.experiment.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
            ),
        ];
        facts.extend(self.evaluator.facts());
        facts
    }
}

/// Where a run's files are, and what decides its answers.
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) identity: Value,
}

/// Takes hold of an experiment's folder.
fn lock(out: &Path) -> Result<File> {
    let path = out.join(".lock");
    let cannot = || format!("cannot write {}", path.display());
    let file = OpenOptions::new().create(true).append(true).open(&path).with_context(cannot)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            bail!(
                "{}: another process runs an experiment here: wait for it, or give --out",
                out.display()
            )
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(cannot),
        Ok(()) => Ok(file),
    }
}

fn stop_if_interrupted() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err(Interrupted(String::new()).into()) } else { Ok(()) }
}

/// All prompts of some sets, in order.
pub(crate) fn prompts_of(sets: &[PromptSet]) -> Result<Vec<(String, Prompt)>> {
    let (mut prompts, mut used) = (Vec::new(), HashSet::new());
    for set in sets {
        let read = read_prompts(&set.from)?;
        for (id, prompt) in read.into_iter().take(set.limit.unwrap_or(usize::MAX)) {
            if !used.insert(id.clone()) {
                bail!("prompts: {}: id '{id}' is in two sets: give each prompt its own", set.from);
            }
            prompts.push((id, prompt));
        }
    }
    Ok(prompts)
}

pub(super) fn hash_of(value: &Value) -> String {
    Sha256::digest(value.to_string()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// A word of warning where what guides is also among what only judges.
fn warn_of_shared(guide: &str, held_out: &[String]) -> Result<()> {
    let guides = combination(guide)?;
    for name in held_out {
        let judges = combination(name)?;
        let guides =
            |part: &&String| guides.names().iter().any(|g| split_format(g).1 == split_format(part).1);
        if let Some(part) = judges.names().iter().find(guides) {
            eprintln!(
                "warning: rewards.held_out: {name}: {part} guides, too: it judges what it asked for"
            );
        }
    }
    Ok(())
}
