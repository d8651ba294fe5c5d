//! Draws the samples of the missing shards of a dataset.

use std::collections::BTreeMap;

use stackelberg_decoding::{Job, Policy, Sample, Settings, Step, Watch, rollout};
use stackelberg_engine::Reward;

use super::dataset::Dataset;
use super::hidden::Hidden;
use super::part::Part;
use super::row::Row;
use crate::error::Error;

/// A prompt to draw samples for.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Name of the prompt. It determines the random numbers, together with the seed.
    pub id: String,
    /// The formatted text that the model reads.
    pub text: String,
    /// The tokens of this text.
    pub tokens: Vec<u32>,
    /// The original prompt, for rewards that read text.
    pub asked: Option<stackelberg_engine::Prompt>,
}

/// Callbacks for progress and cancellation.
pub trait Progress {
    /// Called for each token.
    fn token(&mut self) {}

    /// Called when all samples of a prompt are finished.
    fn prompt(&mut self) {}

    /// Whether to stop now. Unfinished shards are lost; written shards are kept.
    fn stop(&self) -> bool {
        false
    }
}

/// No callbacks.
impl Progress for () {}

/// Writes the missing shards of a part. `prompts` are all prompts of the dataset, and `settings` must be those of its
/// manifest. `at_once` is the batch size; it does not change the output.
///
/// # Errors
/// An existing shard is corrupt, a prompt does not fit into the context, a reward or a hidden state is not finite, or a
/// shard cannot be written. `Stopped` of the decoding crate if the caller stopped the run.
pub fn collect(
    dataset: &Dataset,
    policy: impl Into<Policy>,
    reward: Option<&Reward>,
    prompts: &[Prompt],
    settings: &Settings,
    (part, at_once): (Part, usize),
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    let manifest = dataset.manifest();
    let left = dataset.left(part)?.into_iter();
    let numbers: Vec<usize> = left.flat_map(|shard| manifest.prompts_of(shard)).collect();
    let jobs: Vec<Job<'_>> = numbers
        .iter()
        .map(|&number| &prompts[number])
        .map(|Prompt { id, tokens, asked, .. }| Job { id, prompt: tokens, asked: asked.as_ref() })
        .collect();
    let (seed, pending) = (settings.seed, BTreeMap::new());
    let mut writer = Writer { dataset, prompts, numbers, seed, pending, progress, failed: None };
    let keep_hidden = manifest.hidden.is_some();
    let outcome = rollout(policy, reward, &jobs, settings, keep_hidden, at_once, &mut writer);
    match writer.failed {
        Some(error) => Err(error),
        None => Ok(outcome?),
    }
}

/// The error of a hidden state that is not a finite f16.
pub(super) fn broken_state(dataset: &Dataset, sample: usize, id: &str) -> Error {
    let file = dataset.folder().display().to_string();
    let problem = format!(
        "a hidden state of sample {sample} of prompt '{id}' is NaN or too large for f16: the model is numerically broken on this text"
    );
    Error::Dataset { file, problem }
}

/// The samples of a prompt.
type Finished = (Vec<Row>, Hidden);

/// Writes each shard when all of its prompts are finished.
struct Writer<'a> {
    dataset: &'a Dataset,
    prompts: &'a [Prompt],
    /// The prompt's number of each job.
    numbers: Vec<usize>,
    seed: u64,
    /// Finished prompts of unfinished shards, by number.
    pending: BTreeMap<usize, Finished>,
    progress: &'a mut dyn Progress,
    failed: Option<Error>,
}

impl Watch for Writer<'_> {
    fn step(&mut self, _: usize, _: usize, _: &Step, _: &str) {
        self.progress.token();
    }

    fn samples(&mut self, job: usize, samples: Vec<Sample>) {
        if self.stop() {
            return;
        }
        self.progress.prompt();
        let number = self.numbers[job];
        match self.take(number, samples).and_then(|()| self.write(number)) {
            Ok(()) => {}
            Err(error) => self.failed = Some(error),
        }
    }

    fn stop(&self) -> bool {
        self.failed.is_some() || self.progress.stop()
    }
}

impl Writer<'_> {
    /// Keeps the samples of a prompt until its shard is complete.
    fn take(&mut self, number: usize, samples: Vec<Sample>) -> Result<(), Error> {
        let Prompt { id, text, .. } = &self.prompts[number];
        let width = self.dataset.manifest().hidden;
        let mut hidden = Hidden::new(width.unwrap_or(1));
        let mut rows = Vec::with_capacity(samples.len());
        for (sample, Sample { answer, hidden: states }) in (0..).zip(samples) {
            if width.is_some() && !hidden.push(&states) {
                return Err(broken_state(self.dataset, sample as usize, id));
            }
            rows.push(Row {
                prompt_id: id.clone(),
                sample,
                prompt: text.clone(),
                response: answer.text,
                tokens: answer.tokens,
                reward: answer.reward,
                finish_reason: answer.finish.name().to_owned(),
                seed: self.seed,
            });
        }
        self.pending.insert(number, (rows, hidden));
        Ok(())
    }

    /// Writes the shard of a prompt if it is complete.
    fn write(&mut self, number: usize) -> Result<(), Error> {
        let manifest = self.dataset.manifest();
        let shard = number / manifest.prompts_per_shard;
        let prompts = manifest.prompts_of(shard);
        if !prompts.clone().all(|number| self.pending.contains_key(&number)) {
            return Ok(());
        }
        let mut rows = Vec::new();
        let mut hidden = Hidden::new(manifest.hidden.unwrap_or(1));
        for (own, states) in prompts.filter_map(|number| self.pending.remove(&number)) {
            rows.extend(own);
            hidden.append(&states);
        }
        self.dataset.write(shard, &rows, &hidden)
    }
}
