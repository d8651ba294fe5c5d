//! `stackelberg train value`: value heads from rollouts.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use stackelberg_data::words::count as counted;
use stackelberg_learning::rollouts::Dataset;
use stackelberg_learning::value::{Errors, Settings, check_resume, train_to_file};
use stackelberg_learning::{Error, check_out};
use stackelberg_shaping::Budget;

use super::command::command_line;
use crate::help::brief;
use crate::interrupt::{self, Interrupted};
use crate::limits::{self, count};
use crate::model::set_threads;
use crate::output::say;
use crate::shaping::ShapingArgs;
use crate::training::Training;

/// Train a value head on rollouts. It predicts the shaped reward of a finished answer from the answer so far.
///
/// Rewards are shaped per prompt. Writes FILE.safetensors for `generate --method cd --value`, a card FILE.md
/// with the head's quality, and plots FILE.svg and FILE-foresight.svg. --resume continues a stopped run.
#[derive(Args)]
#[command(mut_arg("kl_budget", |arg| arg.hide(true)))]
#[command(mut_args(brief(&["out", "resume", "shaping", "strength", "bound", "epochs", "lr", "batch_size"])))]
#[command(after_help = "`stackelberg train value --help` has all options.", after_long_help = "")]
pub(super) struct TrainValue {
    /// The dataset, as `stackelberg rollout` writes it.
    dataset: PathBuf,

    /// The head to write (.safetensors).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Continue a stopped run with the same settings.
    #[arg(long)]
    resume: bool,

    /// Maximum memory for hidden states; a larger dataset is read from disk in every epoch.
    #[arg(long, default_value_t = 1024, value_name = "MB", value_parser = count(0, limits::MEGABYTES))]
    memory: usize,

    /// Compute threads. [default: all cores]
    #[arg(long, value_name = "N", value_parser = limits::threads)]
    threads: Option<usize>,

    #[command(flatten)]
    shaping: ShapingArgs,

    #[command(flatten)]
    learning: Learning,
}

#[derive(Args)]
#[command(next_help_heading = "Learning")]
struct Learning {
    /// Coefficient of the smoothness term of the loss.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    coef: f64,

    /// Width of the first layer; 8192 in the paper. [default: the width of the hidden states]
    #[arg(long, value_name = "N", value_parser = count(1, limits::TRAINING))]
    width: Option<usize>,

    /// Width of the second layer. [default: the width of the hidden states]
    #[arg(long, value_name = "N", value_parser = count(1, limits::TRAINING))]
    second_width: Option<usize>,

    /// Learning rate of Adam.
    #[arg(long, default_value_t = 1e-4, value_name = "RATE", allow_negative_numbers = true)]
    lr: f64,

    /// Samples per step.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = count(1, limits::TRAINING))]
    batch_size: usize,

    /// Maximum number of epochs.
    #[arg(long, default_value_t = 15, value_name = "N", value_parser = count(1, limits::TRAINING))]
    epochs: usize,

    /// Stop after N epochs without a better validation MSE.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = count(1, limits::TRAINING))]
    patience: usize,

    /// Fraction of the prompts that form the validation set.
    #[arg(long, default_value_t = 0.05, value_name = "SHARE", allow_negative_numbers = true)]
    validation: f64,

    /// Maximum gradient norm.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    clip: f64,

    /// Random seed of the initial weights, the validation split and the order of samples.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl TrainValue {
    pub(super) fn run(&self) -> Result<()> {
        check_out(&self.out).map_err(|error| anyhow!("--out {error}"))?;
        if self.shaping.kl_budget.is_some() {
            bail!("--kl-budget: values are trained for a bound; give the budget to `generate` instead");
        }
        set_threads(self.threads)?;
        let settings = self.settings()?;
        let dataset = Dataset::open(&self.dataset)?;
        check_resume(&self.out, self.resume)?;
        let mut training = Training::new(&settings, interrupt::watch()?);
        let command = command_line();
        let head = match &dataset.manifest().reward {
            Some(reward) => crate::model::registry()?.recorded_head(&reward.name, &reward.hash),
            None => Err("the dataset has no reward".to_owned()),
        };
        let so_far = head.as_ref().map_err(String::clone);
        let outcome =
            train_to_file(&dataset, &settings, &self.out, self.resume, command, so_far, &mut training);
        training.clear();
        if let Err(Error::Stopped) = outcome {
            let said = match training.epochs() {
                0 => "interrupted in the first epoch: nothing is saved".to_owned(),
                n => {
                    format!(
                        "interrupted after {}; continue with the same command and --resume",
                        counted(n, "epoch")
                    )
                }
            };
            return Err(Interrupted(said).into());
        }
        let outcome = outcome?;
        say!("kept epoch {} of {}", outcome.best + 1, outcome.epochs.len())?;
        match outcome.explained() {
            Some(Errors { last, along }) => say!(
                "validation set: the head explains {:.1} percent of the variance of the shaped rewards at the last token, {:.1} along the text",
                100.0 * last,
                100.0 * along
            )?,
            None => say!(
                "validation set: all shaped rewards are equal, so the explained variance is undefined"
            )?,
        }
        if let Some(foresight) = &outcome.foresight {
            say!("{}", foresight.text())?;
        }
        if let Some((samples, rate)) = training.rate() {
            say!("trained on {} in all epochs, {rate:.1} samples/s", counted(samples, "sample"))?;
        }
        say!("wrote {}, its card and two plots", self.out.display())?;
        Ok(())
    }

    fn settings(&self) -> Result<Settings> {
        let learning = &self.learning;
        let shaping = self.shaping.shaping(Some(Budget::ReferenceOffline))?;
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
            memory: self.memory << 20,
            ..Settings::new(shaping)
        })
    }
}
