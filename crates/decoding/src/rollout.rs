//! Many answers of the base policy to every prompt, with rewards and hidden states: what value heads are
//! trained on.

use stackelberg_engine::{Checkpoint, Reward};

use crate::error::Result;
use crate::generate::{Desk, Job, Run};
use crate::generation::Generation;
use crate::settings::{Method, Settings};
use crate::step::Step;
use crate::text::Text;

/// One of a prompt's answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The answer and its reward.
    pub answer: Generation,
    /// Hidden states of the answer's tokens after the final norm, `[tokens, d]` row by row; empty where they
    /// are not kept.
    pub hidden: Vec<f32>,
}

/// Where samples go.
pub trait Rollouts {
    /// A token was drawn, for whichever sample.
    fn token(&mut self) {}

    /// All samples of prompt `job`, in order.
    fn done(&mut self, job: usize, samples: Vec<Sample>);

    /// Whether to stop here and now.
    fn stop(&self) -> bool {
        false
    }
}

/// Writes [`Settings::samples`] answers of the base policy to every prompt, whatever [`Settings::method`]
/// says, `at_once` texts sharing each pass over the weights, and scores each if there is a reward. With
/// `keep_hidden` their hidden states are kept; no forward is run for them. Samples depend on the seed,
/// the prompt and its id alone: not on `at_once`, nor on which other prompts there are.
///
/// # Errors
/// As [`generate_all`](crate::generate_all); those of one prompt name it.
pub fn rollout(
    policy: &Checkpoint,
    reward: Option<&Reward>,
    jobs: &[Job<'_>],
    settings: &Settings,
    keep_hidden: bool,
    at_once: usize,
    rollouts: &mut dyn Rollouts,
) -> Result<()> {
    // Candidates matter to guidance alone.
    let settings = &Settings { method: Method::Base, candidates: 1, ..settings.clone() };
    settings.check(policy.model.config().vocabulary)?;
    let read_last = keep_hidden || reward.is_some_and(Reward::reads_policy);
    let samples = settings.samples;
    let run = Run { policy, reward, value: None, jobs, settings, samples, read_last, keep_hidden };
    // A long run should not learn late that a prompt is too long.
    (0..jobs.len()).try_for_each(|job| run.room(job).map(drop).map_err(|e| e.of(jobs[job].id)))?;
    run.write(at_once, &mut Samples { run: &run, rollouts })
}

struct Samples<'a> {
    run: &'a Run<'a>,
    rollouts: &'a mut dyn Rollouts,
}

impl Desk for Samples<'_> {
    fn step(&mut self, _: &Text<'_>, _: &Step, _: &str) {
        self.rollouts.token();
    }

    fn done(&mut self, job: usize, texts: Vec<Text<'_>>) -> Result<()> {
        let rewards = self.run.rewards(job, &texts)?;
        let width = self.run.policy.model.config().hidden;
        let sample = |(i, mut text): (usize, Text<'_>)| {
            let mut hidden = std::mem::take(&mut text.kept);
            // What ended the answer may have been read, and is not part of it.
            hidden.truncate(text.answer.tokens.len() * width);
            Sample { answer: text.finish(rewards.get(i).cloned()), hidden }
        };
        self.rollouts.done(job, texts.into_iter().enumerate().map(sample).collect());
        Ok(())
    }

    fn stop(&self) -> bool {
        self.rollouts.stop()
    }
}
