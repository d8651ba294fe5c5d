//! Training data: a shaped reward per sample, and the hidden states of as many shards as fit into memory.

use std::collections::{BTreeMap, HashMap};

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use stackelberg_data::hash::{Hash, sha256};
use stackelberg_data::words::count;
use stackelberg_shaping::Shaping;

use super::network::{Inputs, Moments};
use crate::error::Error;
use crate::rollouts::{Dataset, Hidden, Row, Shaper};

/// The place and the target of one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Target {
    pub(super) shard: usize,
    /// Index of the sample in the shard.
    pub(super) row: usize,
    /// Index of the prompt in the dataset.
    pub(super) prompt: usize,
    /// Reward of the sample, before shaping.
    pub(super) reward: f64,
    /// Shaped reward of the sample.
    pub(super) value: f64,
}

/// Statistics of the training data.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// Training set: number of samples and of prompts.
    pub training: (usize, usize),
    /// Validation set: number of samples and of prompts.
    pub validation: (usize, usize),
    /// Number of samples without tokens. They take part in shaping, but have no hidden states to learn from.
    pub empty: usize,
    /// Number of prompts whose samples all have the same reward, so that shaping has no effect.
    pub all_equal: usize,
    /// Number of prompts whose samples were all cut at the length limit.
    pub unfinished: usize,
    /// Mean of the training targets.
    pub mean: f64,
    /// Baseline: mean squared error on the validation set of always predicting [`Counts::mean`].
    pub constant: f64,
}

impl Counts {
    /// Warnings about samples and prompts from which nothing, or little, is learned.
    pub fn warnings(&self) -> Vec<String> {
        let Self { empty, all_equal, unfinished, .. } = *self;
        let all = [
            (empty, "sample", "without tokens: skipped"),
            (all_equal, "prompt", "with the same reward for all samples: nothing to shape"),
            (unfinished, "prompt", "without a finished sample: a larger --max-new-tokens may help"),
        ];
        let found = all.into_iter().filter(|(number, ..)| *number > 0);
        found.map(|(number, noun, what)| format!("{} {what}", count(number, noun))).collect()
    }
}

/// Largest absolute target: squares of larger errors overflow f32.
const LARGEST: f64 = 1e15;

/// All targets, and the size of each shard's hidden states.
pub(super) struct Data {
    pub(super) training: Vec<Target>,
    pub(super) validation: Vec<Target>,
    pub(super) counts: Counts,
    /// SHA-256 of the targets and the lengths of all samples.
    pub(super) fingerprint: String,
    /// Size of each shard's hidden states in bytes.
    bytes: Vec<usize>,
}

impl Data {
    /// Shapes the rewards of each prompt and splits the prompts at random into a training and a validation set. The
    /// latter has this share of the prompts, at least one.
    pub(super) fn new(
        dataset: &Dataset,
        shaping: &Shaping,
        share: f64,
        seed: u64,
    ) -> Result<Self, Error> {
        let manifest = dataset.manifest();
        let file = || dataset.folder().display().to_string();
        let wrong = |problem: &str| Error::Dataset { file: file(), problem: problem.to_owned() };
        let Some(width) = manifest.hidden else {
            return Err(wrong("it has no hidden states to learn from: roll out without --no-hidden"));
        };
        let shaper = Shaper::new(*shaping, None, None)?;
        let mut data = Self {
            training: Vec::new(),
            validation: Vec::new(),
            counts: Counts::default(),
            fingerprint: String::new(),
            bytes: Vec::new(),
        };
        // Prompts of equal text must be in the same set.
        let mut texts: HashMap<String, usize> = HashMap::new();
        let mut prompts: Vec<(usize, Vec<Target>)> = Vec::new();
        let mut fingerprint = Hash::new();
        for shard in dataset.iter() {
            let shard = shard?;
            let tokens: usize = shard.rows.iter().map(|row| row.tokens.len()).sum();
            data.bytes.push(tokens * width * size_of::<half::f16>());
            let values = shaper.shape(&shard)?.values;
            let mut row = 0;
            for rows in shard.prompts() {
                let next = texts.len();
                let text = sha256(&rows[0].prompt);
                let values = &values[row..row + rows.len()];
                if let Some(value) = values.iter().find(|value| value.abs() > LARGEST) {
                    let id = &rows[0].prompt_id;
                    return Err(wrong(&format!(
                        "prompt '{id}': a shaped reward of {value:e} is too large for training: rescale the rewards"
                    )));
                }
                for (value, row) in values.iter().zip(rows) {
                    fingerprint.update(value.to_le_bytes());
                    fingerprint.update(row.tokens.len().to_le_bytes());
                }
                let targets = data.prompt(rows, values, (shard.number, row), prompts.len());
                prompts.push((*texts.entry(text).or_insert(next), targets));
                row += rows.len();
            }
        }
        data.fingerprint = fingerprint.hex();
        if texts.len() < 2 {
            return Err(wrong("it has one prompt: at least two are needed, one of them for validation"));
        }
        let validates = chosen(texts.len(), share, seed);
        for (text, targets) in prompts {
            let (all, count) = match validates[text] {
                true => (&mut data.validation, &mut data.counts.validation.1),
                false => (&mut data.training, &mut data.counts.training.1),
            };
            all.extend(targets);
            *count += 1;
        }
        data.summarise();
        if data.training.is_empty() || data.validation.is_empty() {
            return Err(wrong("the training or the validation set has no sample with tokens"));
        }
        if data.training.iter().all(|target| target.value == data.training[0].value) {
            let (rule, value) = (shaping.rule, data.training[0].value);
            return Err(wrong(&format!(
                "all shaped rewards under {rule} are {value}: there is nothing to learn"
            )));
        }
        Ok(data)
    }

    /// The targets of the samples of this prompt, of which the first is row `first` of the shard.
    fn prompt(
        &mut self,
        rows: &[Row],
        values: &[f64],
        (shard, first): (usize, usize),
        prompt: usize,
    ) -> Vec<Target> {
        self.counts.all_equal += usize::from(rows.iter().all(|row| row.reward == rows[0].reward));
        let finished = rows.iter().any(|row| row.finish_reason != "length");
        self.counts.unfinished += usize::from(!finished);
        let with_tokens = (first..).zip(rows.iter().zip(values));
        let with_tokens = with_tokens.filter(|(_, (sample, _))| !sample.tokens.is_empty());
        let targets: Vec<Target> = with_tokens
            .map(|(row, (sample, &value))| {
                let reward = sample.reward.unwrap_or_default();
                Target { shard, row, prompt, reward, value }
            })
            .collect();
        self.counts.empty += rows.len() - targets.len();
        targets
    }

    fn summarise(&mut self) {
        let mean = |values: &mut dyn ExactSizeIterator<Item = f64>| {
            let n = values.len().max(1) as f64;
            values.sum::<f64>() / n
        };
        let counts = &mut self.counts;
        (counts.training.0, counts.validation.0) = (self.training.len(), self.validation.len());
        counts.mean = mean(&mut self.training.iter().map(|target| target.value));
        let centre = counts.mean;
        counts.constant =
            mean(&mut self.validation.iter().map(|target| (target.value - centre).powi(2)));
    }

    /// Splits shards, in this order, into windows that fit into `memory` bytes.
    fn windows(&self, order: Vec<usize>, memory: usize) -> Vec<Vec<usize>> {
        let mut windows: Vec<Vec<usize>> = Vec::new();
        let mut room = 0;
        for shard in order {
            match windows.last_mut().filter(|_| self.bytes[shard] <= room) {
                Some(window) => window.push(shard),
                None => {
                    room = memory;
                    windows.push(vec![shard]);
                }
            }
            room = room.saturating_sub(self.bytes[shard]);
        }
        windows
    }

    /// Batches of about `size` training samples in random order: first the shards are shuffled, then the samples of
    /// each window of shards.
    pub(super) fn batches(&self, epoch: usize, seed: u64, memory: usize, size: usize) -> Vec<Window> {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        rng.set_stream(1 + epoch as u64);
        let by_shard = grouped(&self.training);
        let mut order: Vec<usize> = by_shard.keys().copied().collect();
        order.shuffle(&mut rng);
        let windows = self.windows(order, memory).into_iter();
        let cut = windows.map(|shards| {
            let mut targets: Vec<Target> =
                shards.iter().flat_map(|shard| by_shard[shard].iter().copied()).collect();
            targets.shuffle(&mut rng);
            let batches = targets.len().div_ceil(size);
            let even = targets.len().div_ceil(batches.max(1)).max(1);
            let batches = targets.chunks(even).map(<[Target]>::to_vec).collect();
            Window { shards, batches }
        });
        cut.collect()
    }

    /// Mean and deviation of the hidden states of all training samples.
    pub(super) fn inputs(&self, held: &mut Held<'_>) -> Result<Inputs, Error> {
        let mut moments = Moments::new(held.dataset.manifest().hidden.unwrap_or_default());
        for (shard, targets) in grouped(&self.training) {
            held.hold(&[shard])?;
            targets.iter().for_each(|target| moments.add(held.of(target)));
        }
        Ok(moments.inputs())
    }

    /// All validation samples, one batch per window.
    pub(super) fn checks(&self, memory: usize) -> Vec<Window> {
        let by_shard = grouped(&self.validation);
        let windows = self.windows(by_shard.keys().copied().collect(), memory).into_iter();
        let cut = windows.map(|shards| {
            let batch = shards.iter().flat_map(|shard| by_shard[shard].iter().copied()).collect();
            Window { shards, batches: vec![batch] }
        });
        cut.collect()
    }
}

/// Shards that are in memory together, and batches of their samples.
pub(super) struct Window {
    pub(super) shards: Vec<usize>,
    pub(super) batches: Vec<Vec<Target>>,
}

/// Targets by shard.
fn grouped(targets: &[Target]) -> BTreeMap<usize, Vec<Target>> {
    let mut groups: BTreeMap<usize, Vec<Target>> = BTreeMap::new();
    for target in targets {
        groups.entry(target.shard).or_default().push(*target);
    }
    groups
}

/// Draws the validation set among this many prompts, at least two.
fn chosen(prompts: usize, share: f64, seed: u64) -> Vec<bool> {
    let count = ((share * prompts as f64).round() as usize).clamp(1, prompts - 1);
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    // Stream 0 initialises the weights, the next ones shuffle the epochs.
    rng.set_stream(u64::MAX);
    let mut validates = vec![false; prompts];
    let mut left = count;
    // Selection sampling: all subsets of this size are equally likely.
    for (seen, validates) in validates.iter_mut().enumerate() {
        if rng.random_range(0..prompts - seen) < left {
            *validates = true;
            left -= 1;
        }
    }
    validates
}

/// Cache of hidden states, by shard.
pub(super) struct Held<'a> {
    dataset: &'a Dataset,
    shards: BTreeMap<usize, Hidden>,
    most: usize,
}

impl<'a> Held<'a> {
    /// An empty cache of at most `most` bytes, or of one shard if that is larger.
    pub(super) fn new(dataset: &'a Dataset, most: usize) -> Self {
        Self { dataset, shards: BTreeMap::new(), most }
    }

    /// Loads these shards. Other shards are dropped if memory is needed.
    pub(super) fn hold(&mut self, shards: &[usize]) -> Result<(), Error> {
        for &shard in shards {
            if self.shards.contains_key(&shard) {
                continue;
            }
            let bytes = |hidden: &Hidden| size_of_val(&hidden.states[..]);
            let mut held: usize = self.shards.values().map(bytes).sum();
            // Memory is freed first, so that it never exceeds the limit by more than one shard.
            let others: Vec<usize> =
                self.shards.keys().copied().filter(|other| !shards.contains(other)).collect();
            let largest = self.shards.values().map(bytes).max().unwrap_or(0);
            for other in others {
                if held + largest > self.most {
                    held -= self.shards.remove(&other).map_or(0, |hidden| bytes(&hidden));
                }
            }
            self.shards.insert(shard, self.dataset.read(shard)?.hidden()?);
        }
        Ok(())
    }

    /// Number of tokens of a sample, whose shard must be loaded.
    pub(super) fn tokens(&self, target: &Target) -> usize {
        let offsets = &self.shards[&target.shard].offsets;
        offsets[target.row + 1] - offsets[target.row]
    }

    /// Hidden states of a sample, whose shard must be loaded: `[tokens, d]`, row-major.
    pub(super) fn of(&self, target: &Target) -> &[half::f16] {
        self.shards[&target.shard].of(target.row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_prompts_validates() {
        for (prompts, share, expected) in [(400, 0.05, 20), (3, 0.05, 1), (2, 0.9, 1), (6, 0.95, 5)] {
            let validates = chosen(prompts, share, 7);
            assert_eq!(validates.iter().filter(|v| **v).count(), expected);
        }
        assert_ne!(chosen(400, 0.05, 7), chosen(400, 0.05, 8));
    }
}
