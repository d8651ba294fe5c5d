//! `stackelberg train value`: value heads from rollouts.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use stackelberg_learning::Error;
use stackelberg_learning::rollouts::Dataset;
use stackelberg_learning::value::{Errors, Settings, checkpoint_of, train_to_file};
use stackelberg_shaping::{Budget, Shaping};

use super::command_line;
use crate::interrupt::{self, Interrupted};
use crate::model::set_threads;
use crate::shaping::ShapingArgs;
use crate::training::Training;

/// Train a value head on rollouts: what shaped reward will a text get that begins so?
///
/// Rewards are shaped prompt by prompt. Writes FILE.safetensors for `generate --method cd --value`, a card
/// FILE.md that says what it is worth, and a plot of the losses FILE.svg. A run that was stopped goes on
/// with --resume. Defaults: srs, strength 1, bound 2, alpha 1.5.
#[derive(Args)]
#[command(mut_arg("kl_budget", |arg| arg.hide(true)))]
pub(super) struct TrainValue {
    /// The dataset, as `stackelberg rollout` writes it.
    dataset: PathBuf,

    /// The head to write (.safetensors).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Go on with a run of the same settings that was stopped.
    #[arg(long)]
    resume: bool,

    /// Most hidden states held in memory; a larger dataset is read anew in every epoch.
    #[arg(long, default_value_t = 1024, value_name = "MB")]
    memory: usize,

    /// Threads to compute with. [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    #[command(flatten)]
    shaping: ShapingArgs,

    #[command(flatten)]
    learning: Learning,
}

#[derive(Args)]
#[command(next_help_heading = "Learning")]
struct Learning {
    /// How much smoothness along the text counts, beside the error at the last token.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    coef: f64,

    /// Width of the first layer; the paper has 8192. [default: that of the hidden states]
    #[arg(long, value_name = "N")]
    width: Option<usize>,

    /// Width of the second layer. [default: that of the hidden states]
    #[arg(long, value_name = "N")]
    second_width: Option<usize>,

    /// Adam's step size.
    #[arg(long, default_value_t = 1e-4, value_name = "RATE", allow_negative_numbers = true)]
    lr: f64,

    /// Samples per step.
    #[arg(long, default_value_t = 64, value_name = "N")]
    batch_size: usize,

    /// Most passes over the samples.
    #[arg(long, default_value_t = 15, value_name = "N")]
    epochs: usize,

    /// Stop after so many epochs without a better validation error.
    #[arg(long, default_value_t = 5, value_name = "N")]
    patience: usize,

    /// Share of the prompts that validate instead of teaching.
    #[arg(long, default_value_t = 0.05, value_name = "SHARE", allow_negative_numbers = true)]
    validation: f64,

    /// Longest gradient.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    clip: f64,

    /// Decides the weights to begin with, the split and the order.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl TrainValue {
    pub(super) fn run(&self) -> Result<()> {
        if self.out.extension().is_none_or(|e| e != "safetensors") {
            bail!("--out {}: a head's file ends in .safetensors", self.out.display());
        }
        let folder = self.out.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            bail!("--out {}: there is no folder {}", self.out.display(), folder.display());
        }
        if self.out.is_dir() {
            bail!("--out {}: it is a folder; name a file", self.out.display());
        }
        if self.shaping.kl_budget.is_some() {
            bail!("--kl-budget: values are trained for a bound; give the budget where they guide");
        }
        set_threads(self.threads)?;
        let settings = self.settings()?;
        let dataset = Dataset::open(&self.dataset)?;
        let checkpoint = checkpoint_of(&self.out);
        match (self.resume, checkpoint.exists()) {
            (false, true) => bail!(
                "{}: a run was stopped here: go on with it by --resume, or delete the file",
                checkpoint.display()
            ),
            (true, false) => bail!("--resume: there is no {} to go on with", checkpoint.display()),
            _ => {}
        }
        let mut training = Training::new(&settings, interrupt::watch()?);
        let command = command_line();
        let outcome = train_to_file(&dataset, &settings, &self.out, self.resume, command, &mut training);
        training.clear();
        if let Err(Error::Stopped) = outcome {
            let said = match training.epochs() {
                0 => "interrupted in the first epoch: nothing is kept".to_owned(),
                n => format!("interrupted after {n} epochs; the same command with --resume goes on"),
            };
            return Err(Interrupted(said).into());
        }
        let outcome = outcome?;
        println!("kept epoch {} of {}", outcome.best + 1, outcome.epochs.len());
        match outcome.explained() {
            Some(Errors { last, along }) => println!(
                "on the validation prompts: explains {:.1} percent of the shaped rewards' variance at the last token, {:.1} along the text",
                100.0 * last,
                100.0 * along
            ),
            None => println!(
                "the validation samples are all worth the same: they say nothing about the head"
            ),
        }
        if let Some((samples, rate)) = training.rate() {
            println!("{samples} samples learned from, {rate:.1} a second");
        }
        println!("wrote {}, its card and a plot", self.out.display());
        Ok(())
    }

    fn settings(&self) -> Result<Settings> {
        let learning = &self.learning;
        // A bound that ten samples can bear: at 2 nats a prompt's threshold still lies among them.
        let default = Shaping { strength: 1.0, bound: 2.0, ..Shaping::default() };
        let shaping = self.shaping.shaping(default, Some(Budget::ReferenceOffline))?;
        Ok(Settings {
            coef: learning.coef,
            widths: [learning.width, learning.second_width],
            learning_rate: learning.lr,
            batch: learning.batch_size,
            epochs: learning.epochs,
            patience: learning.patience,
            validation: learning.validation,
            clip: learning.clip,
            seed: learning.seed,
            memory: self.memory.saturating_mul(1 << 20),
            ..Settings::new(shaping)
        })
    }
}
