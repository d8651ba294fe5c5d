//! `stackelberg score`: rewards of texts.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stackelberg_engine::reward::{Exchange, TextFormat, TextReward};
use stackelberg_engine::{Checkpoint, Message, Prompt, Reward};

use crate::model::{ModelArgs, scored_tokens, text_reward};
use crate::output::Output;
use crate::rows::{Rows, stdin};

/// Score texts with a reward.
///
/// Each input line is {"text": ...}, scored as it is, or {"prompt": ..., "response": ...}, laid out as the
/// reward was trained, or as the line's own settings say (answers of `generate` can be given as they are). One line out for each, in order: its reward, and its id if it had one.
#[derive(Args)]
pub(crate) struct Score {
    /// JSON lines; - is standard input.
    #[arg(default_value_os_t = stdin())]
    file: PathBuf,

    /// A built-in name, a head, a folder, a program or a server: what `generate --reward` takes. Rewards that read
    /// text need no policy.
    #[arg(long, value_name = "NAME")]
    reward: String,

    /// Write here instead of to standard output; the file appears when all is written.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Deserialize)]
struct Row {
    id: Option<Box<RawValue>>,
    text: Option<String>,
    prompt: Option<PromptField>,
    response: Option<String>,
    /// Of an answer of `generate`: how its prompt was laid out.
    #[serde(default)]
    settings: Layout,
}

#[derive(Default, Deserialize)]
struct Layout {
    prompt_format: Option<String>,
    system: Option<String>,
}

/// Text, or messages.
#[derive(Deserialize)]
#[serde(untagged)]
enum PromptField {
    Text(String),
    Messages(Vec<Turn>),
}

#[derive(Deserialize)]
struct Turn {
    role: String,
    content: String,
}

impl PromptField {
    fn prompt(&self) -> Prompt {
        match self {
            Self::Text(text) => Prompt::Text(text.clone()),
            Self::Messages(turns) => {
                Prompt::Messages(turns.iter().map(|t| Message::new(&t.role, &t.content)).collect())
            }
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    reward: f64,
}

/// Texts read before they are scored together.
const BATCH: usize = 64;

impl Score {
    pub(crate) fn run(&self) -> Result<()> {
        let rows = Rows::open(&self.file)?;
        if let Some(reward) = text_reward(&self.reward)? {
            self.model.set_threads()?;
            return self.score(rows, finished, |texts| of_texts(&reward, texts));
        }
        let policy = &self.model.load()?;
        let reward = self.model.reward(&self.reward, policy)?;
        if let Reward::Text(reward) = &reward {
            return self.score(rows, finished, |texts| of_texts(reward, texts));
        }
        let read = |row: &Row| tokens(row, policy, &reward);
        self.score(rows, read, |texts: &[Vec<u32>]| {
            let rewards = texts.par_iter().map(|tokens| reward.of_tokens(policy, tokens));
            Ok(rewards.collect::<Result<_, _>>()?)
        })
    }

    /// Reads rows as `read` lays them out and writes what `rewards` says of them, some at a time.
    fn score<T>(
        &self,
        mut rows: Rows,
        read: impl Fn(&Row) -> Result<T>,
        rewards: impl Fn(&[T]) -> Result<Vec<f64>>,
    ) -> Result<()> {
        let mut out = Output::open(self.out.as_deref())?;
        let style = ProgressStyle::with_template("{spinner} {pos} texts, {per_sec}")?;
        let bar = ProgressBar::new_spinner().with_style(style);
        let mut done = 0;
        loop {
            let (mut ids, mut batch) = (Vec::new(), Vec::with_capacity(BATCH));
            while batch.len() < BATCH {
                let Some(row) = rows.next::<Row>()? else { break };
                batch.push(read(&row).map_err(|e| rows.wrong(&format!("{e:#}")))?);
                ids.push(row.id);
            }
            if batch.is_empty() {
                break;
            }
            for (id, reward) in ids.iter().zip(rewards(&batch)?) {
                if !reward.is_finite() {
                    bail!(
                        "the reward of text {} is {reward}: the reward model is broken for it",
                        done + 1
                    );
                }
                done += 1;
                let line = Line { id: id.as_deref(), reward };
                serde_json::to_writer(&mut out, &line).map_err(std::io::Error::from)?;
                out.write_all(b"\n").context("cannot write the output")?;
            }
            bar.inc(batch.len() as u64);
        }
        bar.finish_and_clear();
        out.finish()
    }
}

/// A row for a reward that reads text: a text as it is, or an answer and what was asked.
fn finished(row: &Row) -> Result<(Option<Prompt>, String)> {
    let (prompt, text) = match (&row.text, &row.prompt, &row.response) {
        (Some(text), None, None) => (None, text.clone()),
        (None, Some(prompt), Some(response)) => (Some(prompt.prompt()), response.clone()),
        _ => bail!("give text, or prompt and response"),
    };
    if prompt.is_none() && text.trim().is_empty() {
        bail!("an empty text has no reward");
    }
    Ok((prompt, text))
}

fn of_texts(reward: &TextReward, rows: &[(Option<Prompt>, String)]) -> Result<Vec<f64>> {
    let mut rewards = Vec::with_capacity(rows.len());
    for rows in rows.chunk_by(|a, b| a.0.is_some() == b.0.is_some()) {
        let exchanges: Vec<Exchange<'_>> = rows
            .iter()
            .filter_map(|(prompt, answer)| Some(Exchange { prompt: prompt.as_ref()?, answer }))
            .collect();
        rewards.extend(match exchanges.is_empty() {
            true => {
                reward.score_texts(&rows.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>())?
            }
            false => reward.score(&exchanges)?,
        });
    }
    Ok(rewards)
}

fn tokens(row: &Row, policy: &Checkpoint, reward: &Reward) -> Result<Vec<u32>> {
    let recorded = row.settings.prompt_format.as_deref().map(str::parse::<TextFormat>).transpose();
    let format = recorded.map_err(anyhow::Error::msg)?.unwrap_or(reward.text_format(policy));
    let text = match (&row.text, &row.prompt, &row.response) {
        (Some(text), None, None) => text.clone(),
        (None, Some(prompt), Some(response)) => {
            policy.lay_out(&prompt.prompt(), row.settings.system.as_deref(), format)? + response
        }
        _ => bail!("give text, or prompt and response"),
    };
    scored_tokens(policy, &text, format)
}
