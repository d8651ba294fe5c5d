//! Progress of the training of a value head, on the terminal.

use std::time::Instant;

use indicatif::ProgressBar;
use stackelberg_data::words::count as counted;
use stackelberg_decoding::Cancel;
use stackelberg_learning::value::{Counts, Epoch, Errors, Settings, Watch};

use crate::output::note;
use crate::progress::style;

/// A progress bar over the samples of an epoch, and a line per epoch.
pub(crate) struct Training {
    bar: ProgressBar,
    shaping: String,
    began: Instant,
    /// Training samples processed, over all epochs.
    samples: usize,
    /// Training samples processed in earlier epochs.
    before: usize,
    written: usize,
    cancel: Cancel,
}

impl Training {
    pub(crate) fn new(settings: &Settings, cancel: Cancel) -> Self {
        let style = style("{prefix} {bar:30} {pos}/{len} {msg}");
        Self {
            bar: ProgressBar::new(0).with_style(style),
            shaping: settings.shaping.rule.to_string(),
            began: Instant::now(),
            samples: 0,
            before: 0,
            written: 0,
            cancel,
        }
    }

    /// Removes the bar.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Finished epochs, whose state is saved.
    pub(crate) fn epochs(&self) -> usize {
        self.written
    }

    /// Training samples processed and samples per second, if there were any.
    pub(crate) fn rate(&self) -> Option<(usize, f64)> {
        let rate = self.samples as f64 / self.began.elapsed().as_secs_f64();
        (self.samples > 0).then_some((self.samples, rate))
    }

    /// Prints a line above the bar.
    fn say(&self, line: &str) {
        self.bar.suspend(|| note!("{line}"));
    }
}

impl Watch for Training {
    fn begin(&mut self, counts: &Counts, done: &[Epoch]) {
        let ((samples, prompts), (checks, of)) = (counts.training, counts.validation);
        self.say(&format!(
            "train: {} ({}), validation: {} ({}); targets {}: mean {:.4}, baseline MSE {:.4}",
            counted(samples, "sample"),
            counted(prompts, "prompt"),
            counted(checks, "sample"),
            counted(of, "prompt"),
            self.shaping,
            counts.mean,
            counts.constant
        ));
        for warning in counts.warnings() {
            self.say(&format!("warning: {warning}"));
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
            "epoch {}: loss {:.4}; validation MSE: last token {last:.4}, along the text {along:.4}{mark}",
            number + 1,
            epoch.training
        ));
        self.before = self.samples;
        self.written = number + 1;
        self.bar.set_position(0);
        self.bar.set_prefix(format!("epoch {}", number + 2));
    }

    fn stop(&self) -> bool {
        self.cancel.is_cancelled()
    }
}
