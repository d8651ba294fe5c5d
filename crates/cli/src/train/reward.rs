//! `stackelberg train reward`: reward heads from preference pairs or rated texts.

use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Result, anyhow};
use clap::Args;
use indicatif::ProgressBar;
use stackelberg_engine::reward::TextFormat;
use stackelberg_learning::reward::{Judgements, Reader, Settings, Watch, train};
use stackelberg_learning::{Error, Metric, check_out};
use stackelberg_registry::Registry;

use super::command::command_line;
use crate::help::brief;
use crate::limits::{self, count};
use crate::model::{ModelArgs, registry};
use crate::output::{note, say};
use crate::progress::style;

/// Train a reward head on the policy's own hidden states, or on a sentence embedder, from preference pairs
/// or rated texts.
///
/// Preference pairs are JSON lines {"chosen", "rejected"} (conversations as in HH-RLHF, or with a
/// "prompt"); rated texts are JSON lines {"text", "score"} or {"prompt", "response", "score"}, or VADER's
/// tab-separated files. Writes FILE.safetensors and a card FILE.md with the head's quality.
#[derive(Args)]
#[command(mut_args(brief(&["pairs", "rated", "held_out", "out", "embedder", "about", "model"])))]
#[command(after_help = "`stackelberg train reward --help` has all options.", after_long_help = "")]
pub(super) struct TrainReward {
    /// Preference pairs for training (.jsonl or .jsonl.gz).
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "rated")]
    pairs: Vec<String>,

    /// Rated texts for training: a file, or a reference to one as in `stackelberg models`.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    rated: Vec<String>,

    /// Held-out data of the same kind: the card reports the head's quality on it.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    held_out: Vec<String>,

    /// The head to write (.safetensors).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Train on this sentence embedder instead of the policy: a known name, a folder or another reference.
    /// Such a head reads text, so it guides and scores any policy, at the cost of one pass of the embedder per
    /// candidate.
    #[arg(long, value_name = "REF", conflicts_with_all = ["model", "text_format"])]
    embedder: Option<String>,

    /// The format of the texts that the head is trained on: raw, or chat (the policy's chat template).
    /// [default: chat]
    #[arg(long)]
    text_format: Option<TextFormat>,

    /// A description of what a high reward means, for the card.
    #[arg(long, default_value = "", value_name = "TEXT")]
    about: String,

    /// Folds of the cross-validation that chooses the regularization.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = count(2, limits::FOLDS))]
    folds: usize,

    /// Random seed of the cross-validation folds.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    model: ModelArgs,
}

impl TrainReward {
    pub(super) fn run(&self) -> Result<()> {
        if self.pairs.is_empty() && self.rated.is_empty() {
            return Err(Error::NoJudgements.into());
        }
        check_out(&self.out).map_err(|error| anyhow!("--out {error}"))?;
        // Malformed lines are reported before the slow part begins.
        let registry = registry()?;
        let judgements = Judgements::read(&registry, &self.pairs, &self.rated, &self.held_out)?;
        let reader = self.reader(&registry)?;
        let settings = Settings {
            out: self.out.clone(),
            about: self.about.clone(),
            folds: self.folds,
            seed: self.seed,
            base_name: self.embedder.as_deref().unwrap_or(self.model.name()).to_owned(),
            command: command_line(),
            threads: rayon::current_num_threads(),
        };
        let trained = train(&judgements, &reader, &settings, &Bars::default())?;
        for (name, Metric { name: metric, value, standard_error }) in trained.metrics() {
            say!("{name}: {metric} {value:.4} ± {standard_error:.4}")?;
        }
        say!("wrote {} and its card", self.out.display())?;
        Ok(())
    }

    fn reader(&self, registry: &Registry) -> Result<Reader> {
        let Some(name) = &self.embedder else {
            let policy = Box::new(self.model.load(registry)?);
            return Ok(Reader::Policy(policy, self.text_format.unwrap_or(TextFormat::Chat)));
        };
        self.model.set_threads()?;
        Ok(Reader::Embedder(Box::new(registry.embedder(name)?)))
    }
}

/// A progress bar for each file, and one for the fit.
#[derive(Default)]
struct Bars(Mutex<Option<ProgressBar>>);

impl Watch for Bars {
    fn warning(&self, text: &str) {
        note!("warning: {text}");
    }

    fn progress(&self, what: &str, done: usize, total: usize) {
        let Ok(mut bar) = self.0.lock() else { return };
        let new = || {
            let style = style("{msg} {bar:40} {pos}/{len} {eta} left");
            ProgressBar::new(0).with_style(style).with_message(what.to_owned())
        };
        let bar = bar.get_or_insert_with(new);
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    }

    fn done(&self) {
        if let Some(bar) = self.0.lock().ok().and_then(|mut bar| bar.take()) {
            bar.finish_and_clear();
        }
    }
}
