//! What is kept of generations: one JSON line an answer, one a step.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};
use stackelberg_decoding::{Generation, Method, Settings, Step};
use stackelberg_engine::reward::TextFormat;
use stackelberg_engine::{Checkpoint, Prompt, Tokenizer};

use crate::output::Output;

/// What a run was asked for by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'a> {
    pub(crate) model: &'a str,
    pub(crate) dtype: &'a str,
    /// Where the policy runs, if not on the CPU.
    pub(crate) device: Option<&'a str>,
    pub(crate) reward: &'a str,
    /// What tells the reward and the value head from any other of their name, where they are used.
    pub(crate) reward_hash: Option<&'a str>,
    pub(crate) value_hash: Option<&'a str>,
    pub(crate) value: Option<&'a str>,
    pub(crate) system: Option<&'a str>,
    /// The rewards that the reward is made of, if of several.
    pub(crate) parts: &'a [String],
}

/// The settings of a run, as every line of its output has them: enough to make the line again.
pub(crate) struct Recorded {
    method: String,
    settings: Value,
    seed: u64,
    reward_hash: Option<String>,
    value_hash: Option<String>,
    /// The rewards that the reward is made of, if of several.
    parts: Vec<String>,
}

impl Recorded {
    pub(crate) fn new(
        names: Names<'_>,
        settings: &Settings,
        format: TextFormat,
        policy: &Checkpoint,
    ) -> Self {
        let (s, d) = (&settings.shaping, &settings.sampling);
        let mut value = json!({
            "model": names.model, "model_fingerprint": policy.fingerprint,
            "dtype": names.dtype, "reward": names.reward,
            "value": names.value, "policy_temperature": settings.policy_temperature,
            "beams": settings.beams, "length_penalty": settings.length_penalty,
            "prompt_format": format.name(), "system": names.system,
            "shaping": s.rule.name(), "strength": s.strength, "bound": s.bound,
            "kl_budget": settings.kl_budget, "alpha": s.alpha, "cap": s.cap, "stretch": s.stretch,
            "ref_quantile": s.ref_quantile, "budget": s.budget.name(), "exponent_cap": s.exponent_cap,
            "candidates": settings.candidates, "samples": settings.samples,
            "max_new_tokens": settings.max_new_tokens, "temperature": d.temperature, "top_k": d.top_k,
            "top_p": d.top_p, "min_p": d.min_p, "repetition_penalty": d.repetition_penalty,
            "stop": settings.stop, "no_eos": settings.no_eos, "skip": settings.skip,
            "stress": settings.stress.to_string(),
            "version": env!("CARGO_PKG_VERSION"),
        });
        // Younger settings are told only where they are not the usual: files from before them stay the same.
        if let Some(device) = names.device {
            value["device"] = json!(device);
        }
        if settings.score_every != 1 {
            value["score_every"] = json!(settings.score_every);
        }
        if settings.min_entropy != 0.0 {
            value["min_entropy"] = json!(settings.min_entropy);
        }
        Self {
            method: settings.method.name().to_owned(),
            settings: value,
            seed: settings.seed,
            reward_hash: names.reward_hash.map(str::to_owned),
            value_hash: names.value_hash.map(str::to_owned),
            parts: names.parts.to_vec(),
        }
    }

    /// All of it as one value.
    pub(crate) fn identity(&self) -> Value {
        json!({
            "method": self.method, "settings": self.settings, "seed": self.seed,
            "reward_hash": self.reward_hash, "value_hash": self.value_hash,
        })
    }
}

/// The output file, line by line; or standard output.
pub(crate) struct Journal {
    out: Box<dyn Write>,
    path: Option<PathBuf>,
    done: HashSet<String>,
    /// Made by this run and still empty: not left behind.
    empty: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    prompt: Value,
    response: &'a str,
    method: &'a str,
    settings: &'a Value,
    tokens: usize,
    finish_reason: &'a str,
    reward: Option<f64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    rewards: BTreeMap<&'a str, f64>,
    mean_log_prob: f64,
    elapsed: f64,
    seed: u64,
    reward_hash: &'a Option<String>,
    value_hash: &'a Option<String>,
    steered: usize,
    reward_calls: usize,
    skipped: usize,
    kl: Option<f64>,
    outside: f64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
}

impl Journal {
    /// Opens the output. An existing file is only touched to go on with it.
    pub(crate) fn open(path: Option<&Path>, resume: bool, recorded: &Recorded) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self {
                out: Box::new(std::io::stdout()),
                path: None,
                done: HashSet::new(),
                empty: false,
            });
        };
        let cannot = || format!("cannot write {}", path.display());
        let there = path.is_file() && path.metadata().with_context(cannot)?.len() > 0;
        if there && !resume {
            bail!("{} exists: add --resume to go on with it, or name another file", path.display());
        }
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path).with_context(cannot)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => bail!("{}: another process writes to it", path.display()),
            // Some file systems know no locks.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        let done = if there { whole_lines(&mut file, path, recorded)? } else { HashSet::new() };
        let empty = !path.is_file() || file.metadata().with_context(cannot)?.len() == 0;
        Ok(Self { out: Box::new(file), path: Some(path.to_owned()), done, empty })
    }

    /// Whether this prompt was answered under these settings.
    pub(crate) fn has(&self, id: &str, prompt: &Prompt) -> bool {
        self.done.contains(&key(id, &prompt_value(prompt)))
    }

    /// The ids of the prompts that were answered before.
    pub(crate) fn ids(&self) -> HashSet<String> {
        self.done.iter().filter_map(|key| key.split_once('\n')).map(|(id, _)| id.to_owned()).collect()
    }

    /// Writes an answer, whole, at once.
    pub(crate) fn write(
        &mut self,
        id: &str,
        prompt: &Prompt,
        answer: &Generation,
        warnings: &[String],
        recorded: &Recorded,
    ) -> Result<()> {
        let line = Line {
            id,
            prompt: prompt_value(prompt),
            response: &answer.text,
            method: &recorded.method,
            settings: &recorded.settings,
            tokens: answer.tokens.len(),
            finish_reason: answer.finish.name(),
            reward: answer.reward,
            rewards: recorded
                .parts
                .iter()
                .map(String::as_str)
                .zip(answer.parts.iter().copied())
                .collect(),
            mean_log_prob: answer.mean_log_prob,
            elapsed: answer.elapsed.as_secs_f64(),
            seed: recorded.seed,
            reward_hash: &recorded.reward_hash,
            value_hash: &recorded.value_hash,
            steered: answer.steered,
            reward_calls: answer.reward_calls,
            skipped: answer.skipped,
            kl: answer.kl,
            outside: answer.outside,
            warnings,
        };
        self.empty = false;
        let mut bytes = serde_json::to_vec(&line).context("cannot write the answer as JSON")?;
        bytes.push(b'\n');
        self.out.write_all(&bytes).and_then(|()| self.out.flush()).with_context(|| self.cannot())
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        self.out.flush().with_context(|| self.cannot())
    }

    fn cannot(&self) -> String {
        let name =
            self.path.as_ref().map_or("standard output".to_owned(), |path| path.display().to_string());
        format!("cannot write {name}")
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Some(path) = self.path.as_ref().filter(|path| self.empty && path.is_file()) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Reads what a stopped run left; cuts off a last line that is not whole.
fn whole_lines(file: &mut File, path: &Path, recorded: &Recorded) -> Result<HashSet<String>> {
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    let mut done = HashSet::new();
    for (number, line) in
        bytes[..whole].split(|&b| b == b'\n').enumerate().filter(|(_, l)| !l.is_empty())
    {
        let place = || format!("{}:{}", path.display(), number + 1);
        let value: Value = serde_json::from_slice(line)
            .with_context(|| format!("{}: not an answer of `generate`", place()))?;
        let ours = [
            ("method", json!(recorded.method)),
            ("seed", json!(recorded.seed)),
            ("settings", recorded.settings.clone()),
            ("reward_hash", json!(recorded.reward_hash)),
            ("value_hash", json!(recorded.value_hash)),
        ];
        for (field, expected) in ours {
            if value[field] != expected {
                let (what, was, is) = difference(field, &value[field], &expected);
                bail!(
                    "{}: written with {what} {was}, this run has {is}: use the same settings or another file",
                    place()
                );
            }
        }
        done.insert(key(value["id"].as_str().unwrap_or_default(), &value["prompt"]));
    }
    if whole < bytes.len() {
        file.set_len(whole as u64)
            .with_context(|| format!("cannot cut the broken last line off {}", path.display()))?;
    }
    Ok(done)
}

/// The first setting that differs.
fn difference(field: &str, was: &Value, is: &Value) -> (String, Value, Value) {
    let inner =
        is.as_object().and_then(|map| map.iter().find(|(key, value)| was[key.as_str()] != **value));
    match inner {
        Some((key, value)) => (key.clone(), was[key.as_str()].clone(), value.clone()),
        None => (field.to_owned(), was.clone(), is.clone()),
    }
}

/// Names a prompt: its id and all of its text.
fn key(id: &str, prompt: &Value) -> String {
    format!("{id}\n{prompt}")
}

pub(crate) fn prompt_value(prompt: &Prompt) -> Value {
    match prompt {
        Prompt::Text(text) => json!(text),
        Prompt::Messages(messages) => {
            messages.iter().map(|m| json!({"role": m.role, "content": m.content})).collect()
        }
    }
}

/// One line a step.
pub(crate) struct Trace {
    out: BufWriter<File>,
    path: PathBuf,
}

impl Trace {
    /// Opens the trace. An existing one is only touched to go on with it: steps of prompts that are not
    /// `done` were written by an answer that did not finish, and are dropped.
    pub(crate) fn open(path: &Path, resume: bool, done: &HashSet<String>) -> Result<Self> {
        let cannot = || format!("cannot write {}", path.display());
        if path.is_file() && path.metadata().with_context(cannot)?.len() > 0 {
            if !resume {
                bail!("{} exists: name another file", path.display());
            }
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let mut kept = Output::create(path)?;
            for line in text.lines() {
                let value: Value = serde_json::from_str(line).unwrap_or_default();
                if value["id"].as_str().is_some_and(|id| done.contains(id)) {
                    writeln!(kept, "{line}").with_context(cannot)?;
                }
            }
            kept.finish()?;
        }
        let file = OpenOptions::new().append(true).create(true).open(path).with_context(cannot)?;
        Ok(Self { out: BufWriter::new(file), path: path.to_owned() })
    }

    /// Writes the steps of one answer.
    pub(crate) fn write(
        &mut self,
        id: &str,
        method: Method,
        steps: &[Step],
        parts: &[String],
        tokenizer: &Tokenizer,
    ) -> Result<()> {
        let (logits, rewards) = match method {
            Method::Cd => ("log_probs", "values"),
            _ => ("logits", "rewards"),
        };
        let cannot = || format!("cannot write {}", self.path.display());
        for (number, step) in steps.iter().enumerate() {
            let texts: Vec<String> = step
                .candidates
                .iter()
                .map(|&t| tokenizer.decode(&[t], true))
                .collect::<Result<_, _>>()?;
            let mut line = json!({
                "id": id, "step": number, "candidates": step.candidates, "tokens": texts,
                (logits): step.logits, (rewards): step.rewards, "threshold": step.threshold,
                "bound": step.bound, "shaped": step.shaped, "fused": step.fused, "chosen": step.chosen,
                "base_choice": step.base_choice, "skipped": step.skipped, "kl": step.kl, "ess": step.ess,
                "outside": step.outside, "log_prob": step.log_prob,
            });
            // What the rewards are of, where it is more than the candidates.
            if !step.continuations.is_empty() {
                line["continuations"] = json!(step.continuations);
            }
            if !step.parts.is_empty() {
                line["parts"] =
                    parts.iter().zip(&step.parts).map(|(k, v)| (k.clone(), json!(v))).collect();
            }
            writeln!(self.out, "{line}").with_context(cannot)?;
        }
        self.out.flush().with_context(cannot)
    }
}
