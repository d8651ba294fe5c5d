//! Progress bars.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use stackelberg_decoding::CacheCounts;
use stackelberg_experiment::Progress;

use crate::output::note;

/// A progress bar's style from a template of this program.
pub(crate) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A progress bar over prompts.
pub(crate) struct Answers<'a> {
    bar: &'a ProgressBar,
    tokens: usize,
    began: Instant,
}

impl<'a> Answers<'a> {
    pub(crate) fn new(bar: &'a ProgressBar) -> Self {
        Self { bar, tokens: 0, began: Instant::now() }
    }
}

impl Progress for Answers<'_> {
    fn warning(&mut self, text: &str) {
        self.bar.suspend(|| note!("warning: {text}"));
    }

    fn hacking(&mut self, id: &str, text: &str) {
        self.bar.suspend(|| note!("warning: prompt {id}: {text}"));
    }

    fn failed(&mut self, text: &str) {
        self.bar.suspend(|| note!("failed: {text}"));
    }

    fn answered(&mut self, answers: usize, tokens: usize) {
        self.tokens += tokens;
        if tokens > 0 {
            let rate = self.tokens as f64 / self.began.elapsed().as_secs_f64();
            self.bar.set_message(format!("{rate:.1} tokens/s"));
        }
        self.bar.inc(answers as u64);
    }

    fn cache(&mut self, counts: CacheCounts) {
        if counts.hits > 0 {
            let CacheCounts { hits, misses, evicted, .. } = counts;
            let line = format!(
                "prompt cache: {hits} tokens reused, {misses} prefilled, {evicted} pages evicted"
            );
            self.bar.suspend(|| note!("{line}"));
        }
    }
}
