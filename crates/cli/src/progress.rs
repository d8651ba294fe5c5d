//! Progress bars, and progress in lines where there is no terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use stackelberg_data::words::count as counted;
use stackelberg_decoding::{CacheCounts, Generation, Method};
use stackelberg_experiment::Progress;

use crate::output::note;

/// A progress bar's style from a template of this program.
pub(crate) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Lines of progress on a standard error that is not a terminal: at most one every 30 seconds.
pub(crate) struct Pace(Option<Instant>);

impl Pace {
    const EVERY: Duration = Duration::from_secs(30);

    pub(crate) fn new() -> Self {
        Self((!std::io::stderr().is_terminal()).then(Instant::now))
    }

    /// Prints the progress of a bar, if a line is due.
    pub(crate) fn tick(&mut self, bar: &ProgressBar, noun: &str) {
        if self.due(Instant::now()) {
            let (done, all) = (bar.position(), bar.length().unwrap_or_default());
            note!("{done} of {}, {}", counted(all, noun), bar.message());
        }
    }

    fn due(&mut self, now: Instant) -> bool {
        let due = self.0.is_some_and(|last| now.duration_since(last) >= Self::EVERY);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

/// A progress bar over prompts, and what its answers are like.
pub(crate) struct Answers<'a> {
    bar: &'a ProgressBar,
    pace: Pace,
    tokens: usize,
    answers: usize,
    steered: usize,
    /// Whether the method chooses among samples, so that no token is steered.
    chooses: bool,
    /// The number of rewards and their sum.
    rewards: (usize, f64),
    /// Tokens that stopping early saved, and the sum of what it is expected to have cost.
    saved: (usize, f64),
    began: Instant,
}

impl<'a> Answers<'a> {
    pub(crate) fn new(bar: &'a ProgressBar, method: Method) -> Self {
        let (pace, began, chooses) = (Pace::new(), Instant::now(), method.chooses());
        let (rewards, saved) = ((0, 0.0), (0, 0.0));
        Self { bar, pace, tokens: 0, answers: 0, steered: 0, chooses, rewards, saved, began }
    }

    /// One line about the answers of this run: `12 answers, mean reward +0.123, 34 of 567 tokens steered`. If the file had answers
    /// before, it begins with `8 answers kept, 12 new`.
    pub(crate) fn summary(&self) -> String {
        if self.answers == 0 {
            return "no new answers".to_owned();
        }
        let mut said = match self.bar.position() as usize - self.answers {
            0 => counted(self.answers, "answer"),
            before => format!("{} kept, {} new", counted(before, "answer"), self.answers),
        };
        if let (count @ 1.., sum) = self.rewards {
            said.push_str(&format!(", mean reward {:+.3}", sum / count as f64));
        }
        let tokens = counted(self.tokens, "token");
        match self.chooses {
            true => said.push_str(&format!(", {tokens}")),
            false => said.push_str(&format!(", {} of {tokens} steered", self.steered)),
        }
        if let (tokens @ 1.., lost) = self.saved {
            let (tokens, lost) = (counted(tokens, "token"), lost / self.answers as f64);
            said.push_str(&format!(
                ", about {tokens} saved by stopping early, for an estimated {lost:.3} of reward per answer"
            ));
        }
        said
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

    fn answer(&mut self, answer: &Generation) {
        self.answers += 1;
        self.steered += answer.steered;
        self.saved = (self.saved.0 + answer.tokens_saved, self.saved.1 + answer.reward_lost);
        if let Some(reward) = answer.reward {
            self.rewards = (self.rewards.0 + 1, self.rewards.1 + reward);
        }
    }

    fn answered(&mut self, answers: usize, tokens: usize) {
        self.tokens += tokens;
        if tokens > 0 {
            let rate = self.tokens as f64 / self.began.elapsed().as_secs_f64();
            self.bar.set_message(format!("{rate:.1} tokens/s"));
        }
        self.bar.inc(answers as u64);
        self.pace.tick(self.bar, "prompt");
    }

    fn cache(&mut self, counts: CacheCounts) {
        if counts.hits > 0 {
            let CacheCounts { hits, misses, evicted, .. } = counts;
            let line = format!(
                "prompt cache: {} reused, {misses} prefilled, {} evicted",
                counted(hits, "token"),
                counted(evicted, "page")
            );
            self.bar.suspend(|| note!("{line}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_every_30_seconds_where_there_is_no_terminal() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace(Some(start));
        let due: Vec<bool> = [0, 29, 30, 31, 59, 60, 200, 229].map(|s| pace.due(at(s))).into();
        assert_eq!(due, [false, false, true, false, false, true, true, false]);
        assert!(!Pace(None).due(at(1000)));
    }
}
