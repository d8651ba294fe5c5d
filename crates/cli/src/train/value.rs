//! `stackelberg train value`: value heads from rollouts.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use stackelberg_learning::Error;
use stackelberg_learning::rollouts::Dataset;
use stackelberg_learning::value::{self, About, Counts, Epoch, Errors, Outcome, Settings, Watch};
use stackelberg_shaping::{Budget, Shaping};

use super::command_line;
use crate::generate::{INTERRUPTED, Interrupted, watch_for_ctrl_c};
use crate::model::set_threads;
use crate::plot::{Curve, draw};
use crate::shaping::ShapingArgs;

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
        let checkpoint = self.out.with_extension("training");
        match (self.resume, checkpoint.exists()) {
            (false, true) => bail!(
                "{}: a run was stopped here: go on with it by --resume, or delete the file",
                checkpoint.display()
            ),
            (true, false) => bail!("--resume: there is no {} to go on with", checkpoint.display()),
            _ => {}
        }
        watch_for_ctrl_c()?;
        let mut desk = Desk::new(&settings)?;
        let outcome = value::train(&dataset, &settings, (&checkpoint, self.resume), &mut desk);
        desk.bar.finish_and_clear();
        if let Err(Error::Stopped) = outcome {
            let said = match desk.written {
                0 => "interrupted in the first epoch: nothing is kept".to_owned(),
                n => format!("interrupted after {n} epochs; the same command with --resume goes on"),
            };
            return Err(Interrupted(said).into());
        }
        let outcome = outcome?;
        let stem = self.out.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let plot = Some(format!("{stem}.svg"));
        let about = About { title: stem, command: command_line(), plot };
        value::save(&self.out, &dataset, &settings, &outcome, &about)?;
        self.draw(&outcome)?;
        remove(&checkpoint)?;
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
        if desk.samples > 0 {
            let rate = desk.samples as f64 / desk.began.elapsed().as_secs_f64();
            println!("{} samples learned from, {rate:.1} a second", desk.samples);
        }
        println!("wrote {}, its card and a plot", self.out.display());
        Ok(())
    }

    /// The losses by epoch, beside the head.
    fn draw(&self, outcome: &Outcome) -> Result<()> {
        let curve = |name: &str, thick: bool, of: fn(&Epoch) -> f64| Curve {
            name: name.to_owned(),
            points: (1..).zip(&outcome.epochs).map(|(n, epoch)| (f64::from(n), of(epoch))).collect(),
            thick,
        };
        let curves = [
            curve("training loss", false, |epoch| epoch.training),
            curve("validation, last token", true, |epoch| epoch.validation.last),
            curve("validation, along the text", false, |epoch| epoch.validation.along),
        ];
        let title = format!("Epoch {} of {} is kept", outcome.best + 1, outcome.epochs.len());
        draw(&self.out.with_extension("svg"), &title, "epoch", "squared error", &curves)
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

fn remove(checkpoint: &Path) -> Result<()> {
    match std::fs::remove_file(checkpoint) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            bail!("cannot remove {}: {e}", checkpoint.display())
        }
        _ => Ok(()),
    }
}

/// What the terminal shows while a head is trained.
struct Desk {
    bar: ProgressBar,
    shaping: String,
    began: Instant,
    /// Samples learned from, over all epochs.
    samples: usize,
    /// Of which in the epochs before this one.
    before: usize,
    written: usize,
}

impl Desk {
    fn new(settings: &Settings) -> Result<Self> {
        let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg}")?;
        Ok(Self {
            bar: ProgressBar::new(0).with_style(style),
            shaping: settings.shaping.rule.to_string(),
            began: Instant::now(),
            samples: 0,
            before: 0,
            written: 0,
        })
    }

    /// A line that stays.
    fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }
}

impl Watch for Desk {
    fn begin(&mut self, counts: &Counts, done: &[Epoch]) {
        let ((samples, prompts), (checks, of)) = (counts.training, counts.validation);
        self.say(&format!(
            "{samples} samples of {prompts} prompts teach, {checks} of {of} others validate; targets {}: mean {:.4}, which errs by {:.4} in squares",
            self.shaping, counts.mean, counts.constant
        ));
        for (count, what) in [
            (counts.empty, "samples have no token and are left out"),
            (counts.all_equal, "prompts have one reward for all samples: nothing to shape"),
            (
                counts.unfinished,
                "prompts have no sample that ended by itself: a larger --max-new-tokens may help",
            ),
        ] {
            if count > 0 {
                self.say(&format!("warning: {count} {what}"));
            }
        }
        self.bar.set_length(samples as u64);
        self.began = Instant::now();
        let mut least = f64::INFINITY;
        for (number, epoch) in done.iter().enumerate() {
            self.epoch(number, epoch, epoch.validation.last < least);
            least = least.min(epoch.validation.last);
        }
        self.bar.set_prefix(format!("epoch {}", done.len() + 1));
    }

    fn step(&mut self, samples: usize, loss: f64) {
        self.samples = self.before + samples;
        let rate = self.samples as f64 / self.began.elapsed().as_secs_f64();
        self.bar.set_position(samples as u64);
        self.bar.set_message(format!("loss {loss:.4}, {rate:.1} samples/s"));
    }

    fn epoch(&mut self, number: usize, epoch: &Epoch, best: bool) {
        let Errors { last, along } = epoch.validation;
        let mark = if best { ", best so far" } else { "" };
        self.say(&format!(
            "epoch {}: loss {:.4}; validation: last token {last:.4}, along the text {along:.4}{mark}",
            number + 1,
            epoch.training
        ));
        self.before = self.samples;
        self.written = number + 1;
        self.bar.set_position(0);
        self.bar.set_prefix(format!("epoch {}", number + 2));
    }

    fn stop(&self) -> bool {
        INTERRUPTED.load(Ordering::Relaxed)
    }
}
