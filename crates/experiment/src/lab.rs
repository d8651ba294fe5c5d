//! Makes and stores an experiment's runs. Each run has its own folder, whose name has a hash of everything that
//! determines its answers.
//!
//! ```text
//! DIR/runs/args-srs-1-s0-3f2a9c01/   answers.jsonl  trace.jsonl  run.json  scores-KEY.jsonl
//! DIR/values/                        prompts.jsonl  rollouts/  raw.safetensors  srs.safetensors ...
//! ```

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use stackelberg_data::atomic;
use stackelberg_data::generations::{self, Response};
use stackelberg_data::hash::sha256_file;
use stackelberg_decoding::{Cancel, Guidance, Method, Policy, Settings};
use stackelberg_engine::reward::{TextFormat, ValueHead};
use stackelberg_engine::{Error as EngineError, Prompt, Reward};
use stackelberg_evaluation::Evaluator;
use stackelberg_evaluation::metrics::{Coherence, Measured};
use stackelberg_registry::{Registry, layout, names};

use crate::answers::{self, Files, Session};
use crate::error::{Context, Error, Result, invalid};
use crate::file::Experiment;
use crate::observer::Observer;
use crate::plan::{self, Setting};
use crate::record::{self, Names};
use crate::sets::{hash_of, prompts_of, value_of};

/// The program and command that produced a report.
#[derive(Debug, Clone, Default)]
pub struct Provenance {
    /// The program's version.
    pub version: String,
    /// The commit that it was built from.
    pub commit: String,
    /// The command line.
    pub command: Vec<String>,
}

/// An experiment with its models loaded.
pub struct Lab<'a> {
    /// The experiment.
    pub experiment: &'a Experiment,
    /// The folder of the runs and the report.
    pub out: PathBuf,
    pub(crate) registry: &'a Registry,
    pub(crate) policy: &'a Policy,
    /// The policy's name, without secrets.
    model_name: String,
    pub(crate) provenance: Provenance,
    /// Cancels the current run.
    pub cancel: Cancel,
    /// The policy's data types, as records have them.
    pub(crate) dtype: String,
    /// The policy's device; `None` is the CPU.
    pub(crate) device: Option<String>,
    pub(crate) guide: Reward,
    /// The guide's name as records show it.
    pub(crate) guide_name: String,
    pub(crate) guide_hash: String,
    pub(crate) format: TextFormat,
    /// The prompts, with their ids.
    pub prompts: Vec<(String, Prompt)>,
    prompts_hash: String,
    /// The folder of the value heads, if the experiment has any.
    pub(crate) values: Option<PathBuf>,
    /// Measures the answers.
    pub evaluator: Evaluator,
    /// Held while the experiment is open, so that no other process writes to the same files.
    _lock: File,
}

/// A finished run: a setting with one seed.
#[derive(Debug, Clone)]
pub struct Done {
    /// Its folder.
    pub folder: PathBuf,
    /// Its answers, in the order of the prompts.
    pub responses: Vec<Response>,
    /// Their measurements.
    pub measured: Vec<Measured>,
}

impl<'a> Lab<'a> {
    /// Loads rewards and prompts, and locks the folder. Returns warnings for the user as well.
    ///
    /// # Errors
    /// A reward or prompts cannot be loaded, a setting is out of range, or another process runs the experiment.
    pub fn open(
        experiment: &'a Experiment,
        out: &Path,
        registry: &'a Registry,
        policy: &'a Policy,
        provenance: Provenance,
        cancel: Cancel,
    ) -> Result<(Self, Vec<String>)> {
        if experiment.values.is_some() && policy.width().is_none() {
            return invalid(
                "values: value heads read hidden states, which a policy on a server does not give: name one that gives those \
                 of all tokens (states of [policy]), or leave out [values] and the methods with a value head",
            );
        }
        let by_cd = experiment.methods.iter().any(|methods| methods.method == Method::Cd);
        if by_cd && policy.server().is_some() {
            return invalid(
                "methods: cd reads the hidden states of candidates, which a policy on a server does not give: leave it out",
            );
        }
        let lock = lock(out)?;
        let prompts = prompts_of(registry, &experiment.prompts)?;
        let spec = experiment.policy.spec();
        let guide_name = &experiment.rewards.guide;
        let guide = registry.reward(guide_name, policy, spec.dtype)?;
        let shared = names::shared(guide_name, &experiment.rewards.held_out)?;
        let shared = shared.into_iter().map(|(name, part)| {
            format!("rewards.held_out: {name}: {part} is also part of the guide, so it is not held out")
        });
        let mut warnings: Vec<String> = shared.collect();
        let asked = experiment.policy.prompt_format;
        let (format, of_format) = layout::text_format(asked, policy, Some(&guide).into());
        warnings.extend(of_format);
        let rewards = [std::slice::from_ref(guide_name), &experiment.rewards.held_out].concat();
        let embedder = Some(experiment.embedder.as_str()).filter(|name| *name != "none");
        let mut loaded = || policy.local().ok_or_else(|| EngineError::NoHiddenStates.into());
        let evaluator = Evaluator::load(registry, &rewards, embedder, spec.dtype, &mut loaded)?;
        let mut lab = Self {
            experiment,
            out: out.to_owned(),
            registry,
            provenance,
            cancel,
            guide_name: experiment.rewards.shown_guide(),
            model_name: names::shown(&experiment.policy.model),
            guide_hash: registry.reward_hash(guide_name)?,
            prompts_hash: hash_of(&value_of(&prompts)),
            policy,
            dtype: spec.recorded_dtype(),
            device: spec.recorded_device(),
            guide,
            format,
            prompts,
            values: None,
            evaluator,
            _lock: lock,
        };
        lab.values = lab.values_folder()?;
        // Settings out of range are refused before anything runs.
        experiment.check_settings(policy.vocabulary())?;
        Ok((lab, warnings))
    }

    /// The folder of the value heads. Its name is a hash of everything that determines them: guide, policy, prompts and
    /// settings.
    fn values_folder(&self) -> Result<Option<PathBuf>> {
        let Some(values) = &self.experiment.values else { return Ok(None) };
        let policy = &self.experiment.policy;
        let prompts = value_of(&prompts_of(self.registry, &values.prompts)?);
        let mut taught = json!({
            "policy": self.policy.fingerprint(), "dtype": self.dtype,
            "guide": self.guide_hash, "format": self.format.name(), "system": policy.system,
            "prompts": prompts, "samples": values.samples, "max_new_tokens": values.max_new_tokens,
            "strength": values.strength, "bound": values.bound, "alpha": values.alpha, "cap": values.cap,
            "epochs": values.epochs, "validation": values.validation,
        });
        if let Some(device) = &self.device {
            taught["device"] = json!(device);
        }
        Ok(Some(self.out.join("values").join(&hash_of(&taught)[..8])))
    }

    /// The seeds of a setting's runs.
    pub fn seeds(&self, setting: &Setting) -> &[u64] {
        self.experiment.seeds_of(setting)
    }

    /// Generates and measures the missing answers of a setting with one seed.
    ///
    /// # Errors
    /// As [`Session::answer_all`]; a reward fails.
    pub fn run(
        &self,
        setting: &Setting,
        seed: u64,
        coherence: &mut Option<Coherence<'_>>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        observer.run(setting, seed);
        let Some(place) = self.place(setting, seed)? else {
            return invalid(format!("{setting}: the value head is not trained yet"));
        };
        let responses = match self.answers(&place.folder)? {
            Some(responses) => {
                observer.answered(self.prompts.len(), 0);
                responses
            }
            None => {
                self.answer(setting, &place, observer)?;
                self.check_cancelled()?;
                self.answers(&place.folder)?.ok_or_else(|| {
                    Error::Invalid(format!(
                        "{}: answers are missing although the run has ended",
                        place.folder.display()
                    ))
                })?
            }
        };
        self.check_cancelled()?;
        if self.measured(&place.folder)?.is_none() {
            self.keep(&place.folder, &self.measure(&responses, coherence)?)?;
            observer.measured(setting, seed);
        }
        Ok(())
    }

    pub(crate) fn check_cancelled(&self) -> Result<()> {
        match self.cancel.is_cancelled() {
            true => Err(Error::Interrupted("interrupted".to_owned())),
            false => Ok(()),
        }
    }

    /// A setting's run with one seed, if it is finished and measured.
    ///
    /// # Errors
    /// A file is malformed.
    pub fn done(&self, setting: &Setting, seed: u64) -> Result<Option<Done>> {
        let Some(place) = self.place(setting, seed)? else { return Ok(None) };
        let Some(responses) = self.answers(&place.folder)? else { return Ok(None) };
        let Some(measured) = self.measured(&place.folder)? else { return Ok(None) };
        Ok(Some(Done { folder: place.folder, responses, measured }))
    }

    fn answer(&self, setting: &Setting, place: &Place, observer: &mut dyn Observer) -> Result<()> {
        std::fs::create_dir_all(&place.folder)
            .with_context(|| format!("cannot make {}", place.folder.display()))?;
        let run = place.folder.join("run.json");
        atomic::sweep(&run)?;
        atomic::write(&run, pretty(&place.identity).as_bytes())?;
        let (answers, trace) = (place.folder.join("answers.jsonl"), place.folder.join("trace.jsonl"));
        let files = Files {
            out: Some(&answers),
            trace: (self.experiment.traces > 0).then_some(trace.as_path()),
            traced: self.experiment.traces,
            resume: true,
            again: Some("the same command"),
        };
        self.with_session(setting, &place.settings, |session| {
            session.answer_all(&self.prompts, &files, &self.cancel, &mut Told(observer))
        })
    }

    /// Runs `work` with a session of a setting, for which the value head is loaded.
    pub(crate) fn with_session<T>(
        &self,
        setting: &Setting,
        settings: &Settings,
        work: impl FnOnce(&Session<'_>) -> Result<T>,
    ) -> Result<T> {
        let file = setting.value().map(|head| self.value_file(head));
        let value = file.as_deref().map(ValueHead::load).transpose()?;
        if let (Some(head), Some(policy)) = (&value, self.policy.local()) {
            head.fits(policy)?;
        }
        let value = value.map(Arc::new);
        let name = setting.value().map(plan::ValueHead::file);
        let value_hash = self.value_hash(setting)?;
        let session = Session {
            policy: self.policy,
            guidance: Guidance { reward: Some(&self.guide), value: value.as_ref() },
            settings: settings.clone(),
            format: self.format,
            names: self.names(name.as_deref(), value_hash.as_deref()),
            limits: self.experiment.decoding.batch_size.into(),
            watch: true,
        };
        work(&session)
    }

    fn names<'n>(&'n self, value: Option<&'n str>, value_hash: Option<&'n str>) -> Names<'n> {
        Names {
            model: &self.model_name,
            dtype: &self.dtype,
            device: self.device.as_deref(),
            reward: &self.guide_name,
            reward_hash: Some(&self.guide_hash),
            parts: self.guide.parts(),
            value_hash,
            value,
            system: self.experiment.policy.system.as_deref(),
        }
    }

    /// The folder and the identity of a run; `None` if its value head does not exist yet.
    pub(crate) fn place(&self, setting: &Setting, seed: u64) -> Result<Option<Place>> {
        let value_hash = self.value_hash(setting)?;
        if value_hash.is_none() && setting.value().is_some() {
            return Ok(None);
        }
        let settings = Settings { seed, ..setting.settings.clone() };
        let name = setting.value().map(plan::ValueHead::file);
        let names = self.names(name.as_deref(), value_hash.as_deref());
        let run = record::identity(names, &settings, self.format, self.policy);
        let (mut identity, mut first) = (run.value(), run.first_value());
        for value in [&mut identity, &mut first] {
            value["prompts_hash"] = json!(self.prompts_hash);
        }
        let address = &hash_of(&first)[..8];
        let folder = self.out.join("runs").join(format!("{}-s{seed}-{address}", setting.slug()));
        identity["commit"] = json!(self.provenance.commit);
        identity["command"] = json!(self.provenance.command);
        Ok(Some(Place { folder, settings, identity }))
    }

    /// The hash of the setting's value head, if the setting has one and it exists.
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

    /// The answers of a run in the order of the prompts, if it is complete.
    fn answers(&self, folder: &Path) -> Result<Option<Vec<Response>>> {
        let file = folder.join("answers.jsonl");
        let text = match std::fs::read_to_string(&file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("cannot read {}", file.display()))?,
        };
        // A killed run may leave an incomplete last line.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        if whole.lines().count() < self.prompts.len() {
            return Ok(None);
        }
        let mend = || {
            format!("delete this line, or the folder {}, and run the experiment again", folder.display())
        };
        let mut by_id: HashMap<String, Response> =
            generations::parse(&file.display().to_string(), whole)
                .with_context(mend)?
                .responses
                .into_iter()
                .map(|r| (r.id.clone(), r))
                .collect();
        Ok(self.prompts.iter().map(|(id, _)| by_id.remove(id)).collect())
    }

    /// Measures answers; scores are not saved.
    pub(crate) fn measure(
        &self,
        responses: &[Response],
        coherence: &mut Option<Coherence<'_>>,
    ) -> Result<Vec<Measured>> {
        let guide = Some(self.guide_name.as_str());
        Ok(self.evaluator.measure(self.policy.local(), responses, guide, coherence.as_mut())?)
    }

    /// The guide's rewards of answers, asked for again.
    pub(crate) fn score_again(&self, responses: &[Response]) -> Result<Vec<f64>> {
        let measured = self.evaluator.measure(self.policy.local(), responses, None, None)?;
        let reward = |measured: &Measured| measured.rewards.get(&self.guide_name).copied();
        Ok(measured.iter().filter_map(reward).collect())
    }

    /// Saves a run's scores next to its answers.
    fn keep(&self, folder: &Path, measured: &[Measured]) -> Result<()> {
        let mut lines = Vec::new();
        for measured in measured {
            serde_json::to_writer(&mut lines, measured).context("cannot write scores as JSON")?;
            lines.push(b'\n');
        }
        Ok(atomic::write(&self.scores(folder)?, &lines)?)
    }

    fn measured(&self, folder: &Path) -> Result<Option<Vec<Measured>>> {
        let file = self.scores(folder)?;
        let text = match std::fs::read_to_string(&file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("cannot read {}", file.display()))?,
        };
        let read = |line: &str| serde_json::from_str(line);
        let broken = || format!("{}: not a file of scores: delete it", file.display());
        let measured: Vec<Measured> =
            text.lines().map(read).collect::<serde_json::Result<_>>().with_context(broken)?;
        let ids = measured.iter().map(|m| &m.id);
        if !ids.eq(self.prompts.iter().map(|(id, _)| id)) {
            return invalid(format!(
                "{}: these are the scores of other prompts: delete the file",
                file.display()
            ));
        }
        Ok(Some(measured))
    }

    /// The file of a run's scores. Its name has the evaluator's key and a hash of the answers.
    fn scores(&self, folder: &Path) -> Result<PathBuf> {
        let answers = folder.join("answers.jsonl");
        let hash =
            sha256_file(&answers).with_context(|| format!("cannot read {}", answers.display()))?;
        Ok(folder.join(format!("scores-{}-{}.jsonl", self.evaluator.key(), &hash[..8])))
    }

    /// Whether the answers of a run changed after they were measured.
    pub(crate) fn is_changed(&self, folder: &Path) -> Result<bool> {
        let begin = format!("scores-{}-", self.evaluator.key());
        let files = folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))?;
        let mut names = files.filter_map(|file| Some(file.ok()?.file_name()));
        let measured_once = names.any(|name| name.to_string_lossy().starts_with(&begin));
        Ok(measured_once && self.answers(folder)?.is_some() && self.measured(folder)?.is_none())
    }

    /// The provenance of the numbers, for the report.
    pub(crate) fn facts(&self) -> Vec<(String, String)> {
        let fact = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let on = self.device.as_ref().map_or_else(String::new, |device| format!(" on {device}"));
        let mut facts = vec![
            fact("version", &self.provenance.version),
            fact("commit", &self.provenance.commit),
            fact("command", &stackelberg_data::words::command_line(&self.provenance.command)),
            fact("policy", &format!("{} ({}{on})", self.model_name, self.dtype)),
            fact("policy hash", &self.policy.fingerprint()),
            fact("guide", &self.guide_name),
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

/// A run's folder, and the settings that determine its answers.
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) identity: Value,
}

/// Forwards a run's progress to the experiment's observer. Warnings of the watch are only written to the answers' file.
struct Told<'a>(&'a mut dyn Observer);

impl answers::Progress for Told<'_> {
    fn warning(&mut self, text: &str) {
        self.0.warning(text);
    }

    fn answered(&mut self, answers: usize, tokens: usize) {
        self.0.answered(answers, tokens);
    }
}

/// Locks an experiment's folder.
fn lock(out: &Path) -> Result<File> {
    let path = out.join(".lock");
    let cannot = || format!("cannot write {}", path.display());
    let file = OpenOptions::new().create(true).append(true).open(&path).with_context(cannot)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => invalid(format!(
            "{}: another process runs an experiment in this folder: wait for it, or give another --out",
            out.display()
        )),
        Err(TryLockError::Error(error)) => Err(Error::from(error)).with_context(cannot),
        Ok(()) => Ok(file),
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
