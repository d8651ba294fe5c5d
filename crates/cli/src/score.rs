//! `stackelberg score`: rewards of texts.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stackelberg_data::generations::split_messages;
use stackelberg_data::{Lines, Message, Prompt};
use stackelberg_decoding::Score as Worth;
use stackelberg_engine::Checkpoint;
use stackelberg_registry::{Finished, Ready, Scorer};

use crate::input::{note_terminal, stdin};
use crate::model::{ModelArgs, registry};
use crate::output::{self, note};
use crate::progress::style;

/// Score texts with a reward.
///
/// Each input line is {"text": ...}, scored as it is, or {"prompt": ..., "response": ...} or {"messages": [...]}, formatted
/// as the reward was trained, or as the line's own settings say (lines of `generate --out` are accepted as they are). For each
/// line, in order, one line is written: the reward, and the id if there is one.
#[derive(Args)]
pub(crate) struct Score {
    /// JSON lines; - is standard input.
    #[arg(default_value_os_t = stdin())]
    file: PathBuf,

    /// The reward, given as for `generate --reward`: a built-in name, a head, a folder, a program, a server, or a
    /// combination. Rewards that read text need no policy.
    #[arg(long, value_name = "NAME")]
    reward: String,

    /// Write to this file instead of standard output; the file appears when it is complete.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Deserialize)]
struct Row {
    id: Option<Box<RawValue>>,
    text: Option<String>,
    prompt: Option<Prompt>,
    response: Option<String>,
    messages: Option<Vec<Message>>,
    /// The prompt format, in lines of `generate --out`.
    #[serde(default)]
    settings: Layout,
}

#[derive(Default, Deserialize)]
struct Layout {
    prompt_format: Option<String>,
    system: Option<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    reward: f64,
    /// The parts of a combination.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    rewards: BTreeMap<&'a str, f64>,
}

/// Texts per batch.
const BATCH: usize = 64;

impl Score {
    pub(crate) fn run(&self) -> Result<()> {
        note_terminal([&self.file], "texts");
        let mut rows = Lines::open(&self.file)?;
        let (registry, policy) = (registry()?, OnceCell::new());
        self.model.set_threads()?;
        let load = &mut || self.model.load_into(&registry, &policy);
        let scorer = Scorer::load(&registry, &self.reward, self.model.dtype(), load)?;
        let mut out = output::open(self.out.as_deref())?;
        let style = style("{spinner} {pos} texts, {per_sec}");
        let bar = ProgressBar::new_spinner().with_style(style);
        let (mut done, mut warned) = (0, false);
        loop {
            let (mut ids, mut batch) = (Vec::new(), Vec::with_capacity(BATCH));
            while batch.len() < BATCH {
                let Some(mut row) = rows.next_json::<Row>()? else { break };
                row.split().map_err(|problem| rows.wrong(problem))?;
                batch.push(row.read(&scorer, policy.get()).map_err(|e| rows.wrong(format!("{e:#}")))?);
                ids.push(row.id);
            }
            if batch.is_empty() {
                break;
            }
            if let Some(policy) = policy.get().filter(|_| !warned) {
                for warning in scorer.warnings(policy, &batch) {
                    bar.suspend(|| note!("warning: {warning}"));
                    warned = true;
                }
            }
            for (id, Worth { reward, parts }) in ids.iter().zip(scorer.score(policy.get(), &batch)?) {
                if !reward.is_finite() {
                    bail!(
                        "the reward of text {} is {reward}: the reward must be a finite number",
                        done + 1
                    );
                }
                done += 1;
                let rewards = scorer.parts().iter().map(String::as_str).zip(parts).collect();
                serde_json::to_writer(&mut out, &Line { id: id.as_deref(), reward, rewards })
                    .map_err(std::io::Error::from)?;
                out.write_all(b"\n").context("cannot write the output")?;
            }
            bar.inc(batch.len() as u64);
        }
        bar.finish_and_clear();
        output::finish(out)
    }
}

impl Row {
    /// Reads messages as prompt and response, where there is no other text.
    fn split(&mut self) -> std::result::Result<(), String> {
        if self.text.is_some() || self.prompt.is_some() {
            return Ok(());
        }
        let Some(messages) = self.messages.take() else { return Ok(()) };
        let (prompt, response) = split_messages(messages, self.response.is_none())?;
        self.prompt = Some(prompt);
        self.response = self.response.take().or(response);
        Ok(())
    }

    /// Formats and tokenizes the text for the rewards.
    fn read(&self, scorer: &Scorer, policy: Option<&Checkpoint>) -> Result<Ready> {
        let (prompt, text) = match (&self.text, &self.prompt, &self.response) {
            (Some(text), None, None) => (None, text),
            (None, Some(prompt), Some(response)) => (Some(prompt), response),
            _ => bail!("give text, or prompt and response"),
        };
        let format = self.settings.prompt_format.as_deref().map(str::parse).transpose();
        let (format, system) = (format.map_err(anyhow::Error::msg)?, self.settings.system.as_deref());
        Ok(scorer.read(policy, Finished { prompt, text, format, system })?)
    }
}
