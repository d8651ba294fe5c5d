//! Progress of rollouts that fill a dataset, on the terminal.

use std::time::Instant;

use anyhow::Result;
use indicatif::ProgressBar;
use stackelberg_data::words::count as counted;
use stackelberg_decoding::Cancel;
use stackelberg_learning::Error;
use stackelberg_learning::rollouts::{Dataset, Part, Progress};

use crate::interrupt::{self, Interrupted};
use crate::output::note;
use crate::progress::{Pace, style};

/// A progress bar over the prompts of a part of a dataset.
pub(crate) struct Filling<'a> {
    dataset: &'a Dataset,
    part: Part,
    bar: ProgressBar,
    pace: Pace,
    tokens: usize,
    began: Instant,
    cancel: Cancel,
}

impl<'a> Filling<'a> {
    pub(crate) fn new(dataset: &'a Dataset, part: Part, cancel: Cancel) -> Self {
        let style = style("{bar:40} {pos}/{len} prompts {msg} {eta} left");
        let bar = ProgressBar::new(0).with_style(style);
        let filling =
            Self { dataset, part, bar, pace: Pace::new(), tokens: 0, began: Instant::now(), cancel };
        let (done, all) = dataset.progress(part);
        filling.bar.set_length(all as u64);
        filling.bar.set_position(done as u64);
        filling.bar.reset_eta();
        filling
    }

    /// Prints the counts and the rate at the end.
    pub(crate) fn summary(&self) {
        let ((_, all), seconds) = (self.dataset.progress(self.part), self.began.elapsed().as_secs_f64());
        self.bar.finish_and_clear();
        match self.tokens {
            0 => note!("{} done", counted(all, "prompt")),
            tokens => {
                let rate = tokens as f64 / seconds;
                note!(
                    "{} done: {}, {rate:.1} tokens/s",
                    counted(all, "prompt"),
                    counted(tokens, "token")
                )
            }
        }
        match self.dataset.missing().len() {
            0 => note!("the dataset is complete: {}", self.dataset.folder().display()),
            missing => note!(
                "missing: {} of other parts; `stackelberg rollout merge` checks the whole dataset",
                counted(missing, "shard")
            ),
        }
    }

    fn interrupted(&self) -> Interrupted {
        let ((done, all), folder) = (self.dataset.progress(self.part), self.dataset.folder().display());
        Interrupted(format!(
            "interrupted after {done} of {}; the same command resumes in {folder}",
            counted(all, "prompt")
        ))
    }
}

impl Progress for Filling<'_> {
    fn token(&mut self) {
        self.tokens += 1;
    }

    fn prompt(&mut self) {
        let rate = self.tokens as f64 / self.began.elapsed().as_secs_f64();
        self.bar.set_message(format!("{rate:.1} tokens/s"));
        self.bar.inc(1);
        self.pace.tick(&self.bar, "prompt");
    }

    fn stop(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

/// Runs `work`, which fills a part of a dataset's shards, with a progress bar, and prints a summary.
pub(crate) fn fill(
    dataset: &Dataset,
    part: Part,
    work: impl FnOnce(&mut dyn Progress) -> Result<(), Error>,
) -> Result<()> {
    let mut filling = Filling::new(dataset, part, interrupt::watch()?);
    let outcome = work(&mut filling);
    filling.bar.finish_and_clear();
    if let Err(Error::Decoding(stackelberg_decoding::Error::Stopped)) = outcome {
        return Err(filling.interrupted().into());
    }
    outcome?;
    filling.summary();
    Ok(())
}
