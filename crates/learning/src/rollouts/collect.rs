//! Writes what is missing of a dataset.

use std::collections::BTreeMap;

use stackelberg_decoding::{Job, Rollouts, Sample, Settings, rollout};
use stackelberg_engine::{Checkpoint, Reward};

use super::dataset::Dataset;
use super::hidden::Hidden;
use super::part::Part;
use super::row::Row;
use crate::error::Error;

/// A prompt to be sampled from.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Its name: with the seed it decides all that is random.
    pub id: String,
    /// What the model reads, laid out.
    pub text: String,
    /// The same as tokens.
    pub tokens: Vec<u32>,
    /// What was asked, which rewards that read text must be told.
    pub asked: Option<stackelberg_engine::Prompt>,
}

/// What a caller may watch.
pub trait Progress {
    /// A token was drawn.
    fn token(&mut self) {}

    /// All samples of a prompt are finished.
    fn prompt(&mut self) {}

    /// Whether to stop here and now: shards under way are dropped, those written stay.
    fn stop(&self) -> bool {
        false
    }
}

/// Watches nothing.
impl Progress for () {}

/// Writes the shards of a part that are not there yet. `prompts` are all of the dataset's, `settings` those
/// that its manifest was made of; `at_once` texts share each pass over the weights, and change nothing in
/// what is written.
///
/// # Errors
/// A shard that is there is broken; a prompt does not fit the context; a reward or a hidden state is not
/// finite; a shard cannot be written; decoding's `Stopped`.
pub fn collect(
    dataset: &Dataset,
    policy: &Checkpoint,
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

/// The error of a hidden state that is no finite f16.
pub(super) fn broken_state(dataset: &Dataset, sample: usize, id: &str) -> Error {
    let file = dataset.folder().display().to_string();
    let problem = format!(
        "a hidden state of sample {sample} of prompt '{id}' is not a number or too large for f16: the model is broken for this text"
    );
    Error::Dataset { file, problem }
}

/// Samples of a prompt.
type Finished = (Vec<Row>, Hidden);

/// Writes a shard as soon as all its prompts are finished.
struct Writer<'a> {
    dataset: &'a Dataset,
    prompts: &'a [Prompt],
    /// Of each job, the prompt's number.
    numbers: Vec<usize>,
    seed: u64,
    /// Prompts of shards under way, by number.
    pending: BTreeMap<usize, Finished>,
    progress: &'a mut dyn Progress,
    failed: Option<Error>,
}

impl Rollouts for Writer<'_> {
    fn token(&mut self) {
        self.progress.token();
    }

    fn done(&mut self, job: usize, samples: Vec<Sample>) {
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

    /// Writes the shard of a prompt, if it is complete.
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
