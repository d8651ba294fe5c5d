//! The training loop.

use std::path::Path;

use half::slice::HalfFloatSliceExt;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use serde_json::json;

use super::checkpoint::Checkpoint;
use super::data::{Counts, Data, Held, Target, Window};
use super::epoch::Epoch;
use super::foresight::Foresight;
use super::loss::{Errors, loss};
use super::network::{Layers, Network};
use super::settings::Settings;
use crate::error::Error;
use crate::rollouts::Dataset;

/// A trained head and its training history.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub(super) network: Network,
    /// The losses of all epochs.
    pub epochs: Vec<Epoch>,
    /// Index of the epoch whose head was kept.
    pub best: usize,
    /// Statistics of the training data.
    pub counts: Counts,
    /// What the head foresees, once it is measured.
    pub foresight: Option<Foresight>,
}

impl Outcome {
    /// Widths of the head: `d`, `h₁`, `h₂`.
    pub fn widths(&self) -> [usize; 3] {
        self.network.widths
    }

    /// Explained variance (R²) on the validation set, at the last token and along the text: 1 minus the validation MSE
    /// divided by the baseline MSE ([`Counts::constant`]). `None` if the baseline MSE is zero up to rounding.
    pub fn explained(&self) -> Option<Errors> {
        let constant = self.counts.constant;
        let varies = constant > 1e-20 * (1.0 + self.counts.mean * self.counts.mean);
        let share = |error: f64| 1.0 - error / constant;
        let Errors { last, along } = self.epochs[self.best].validation;
        varies.then(|| Errors { last: share(last), along: share(along) })
    }
}

/// Callbacks for progress and cancellation.
pub trait Watch {
    /// Called before training, with statistics of the data and the finished epochs of a resumed run.
    fn begin(&mut self, _counts: &Counts, _done: &[Epoch]) {}

    /// Called after each piece of a batch, with the number of samples and the mean loss of the epoch so far.
    fn step(&mut self, _samples: usize, _loss: f64) {}

    /// Called after each epoch, with its number from 0 and whether it is the best so far.
    fn epoch(&mut self, _number: usize, _epoch: &Epoch, _best: bool) {}

    /// Whether to stop now. The unfinished epoch is lost; the checkpoint is kept.
    fn stop(&self) -> bool {
        false
    }
}

/// No callbacks.
impl Watch for () {}

/// Largest number of tokens in one forward and backward pass.
const TOKENS: usize = 2048;

/// Largest number of elements of a tensor in a pass, just below 32 MiB. glibc requests larger blocks from the system at
/// each allocation, which takes a tenth of the time at the paper's width of 8192.
const NUMBERS: usize = (1 << 23) - 1;

/// Trains a value head on a dataset with hidden states and rewards. Writes `checkpoint` after every epoch; with
/// `resume`, continues from an existing checkpoint. The caller removes the checkpoint.
///
/// # Errors
/// A setting is out of range. The dataset has no rewards or no hidden states, is incomplete or corrupt, has only one
/// prompt, or has constant targets. The checkpoint has other settings. The loss is not finite. A file cannot be
/// written. The caller stopped the run ([`Error::Stopped`]).
pub fn train(
    dataset: &Dataset,
    settings: &Settings,
    (checkpoint, resume): (&Path, bool),
    watch: &mut dyn Watch,
) -> Result<Outcome, Error> {
    let (data, mut held) = read(dataset, settings)?;
    learn(dataset, (&data, &mut held), settings, (checkpoint, resume), watch)
}

/// Checks the settings, and reads what a head is trained and validated on.
pub(super) fn read<'a>(dataset: &'a Dataset, settings: &Settings) -> Result<(Data, Held<'a>), Error> {
    settings.check()?;
    let data = Data::new(dataset, &settings.shaping, settings.validation, settings.seed)?;
    Ok((data, Held::new(dataset, settings.memory)))
}

/// [`train`] on data that are read.
pub(super) fn learn(
    dataset: &Dataset,
    (data, held): (&Data, &mut Held<'_>),
    settings: &Settings,
    (checkpoint, resume): (&Path, bool),
    watch: &mut dyn Watch,
) -> Result<Outcome, Error> {
    let mut summary = settings.summary(dataset);
    summary.insert("targets".to_owned(), json!(data.fingerprint));
    let mut state = match resume && checkpoint.exists() {
        true => Checkpoint::read(checkpoint, &summary)?,
        false => {
            let d = dataset.manifest().hidden.unwrap_or_default();
            let [first, second] = settings.widths.map(|width| width.unwrap_or(d));
            let mut rng = ChaCha12Rng::seed_from_u64(settings.seed);
            let inputs = data.inputs(held)?;
            let network = Network::new([d, first, second], inputs, data.counts.mean, &mut rng);
            Checkpoint::new(network)
        }
    };
    if state.epochs.len() > settings.epochs {
        let must = "at least the number of finished epochs in the checkpoint";
        return Err(Error::Setting { name: "epochs", value: settings.epochs as f64, must });
    }
    watch.begin(&data.counts, &state.epochs);
    let mut trainer = Trainer { settings, data, held, watch };
    while state.epochs.len() < settings.epochs && !state.exhausted(settings.patience) {
        let number = state.epochs.len();
        let training = trainer.epoch(&mut state, number)?;
        let validation = trainer.validate(&state.network)?;
        let epoch = Epoch { training, validation };
        if !(training.is_finite() && validation.last.is_finite()) {
            return Err(Error::Diverged { epoch: number + 1, rate: settings.learning_rate });
        }
        let best = state.add(epoch);
        state.write(checkpoint, &summary)?;
        trainer.watch.epoch(number, &epoch, best);
    }
    let Checkpoint { kept, epochs, best, .. } = state;
    Ok(Outcome { network: kept, epochs, best, counts: data.counts.clone(), foresight: None })
}

struct Trainer<'a, 'd> {
    settings: &'a Settings,
    data: &'a Data,
    held: &'a mut Held<'d>,
    watch: &'a mut dyn Watch,
}

impl Trainer<'_, '_> {
    /// One pass over the training set. Returns the mean loss.
    fn epoch(&mut self, state: &mut Checkpoint, number: usize) -> Result<f64, Error> {
        let Settings { seed, memory, batch, learning_rate, clip, .. } = *self.settings;
        let (mut sum, mut done) = (0.0, 0);
        for Window { shards, batches } in self.data.batches(number, seed, memory, batch) {
            self.held.hold(&shards)?;
            for batch in batches {
                let layers = state.network.layers()?;
                let mut gradient = Network::zeros(state.network.widths);
                for piece in pieces(self.held, &batch, state.network.widths) {
                    if self.watch.stop() {
                        return Err(Error::Stopped);
                    }
                    let scale = 1.0 / batch.len() as f64;
                    let slopes = |values: &[f32]| {
                        let mut slopes = vec![0f32; values.len()];
                        for (target, own) in self.by_sample(piece) {
                            let (values, slopes) = (&values[own.clone()], &mut slopes[own]);
                            sum += loss(values, target.value, self.settings.coef, scale, slopes);
                        }
                        slopes
                    };
                    layers.learn(self.states(piece, &state.network), slopes, &mut gradient)?;
                    done += piece.len();
                    self.watch.step(done, sum / done as f64);
                }
                state.adam.step(&mut state.network.numbers, &gradient, learning_rate, clip);
            }
        }
        Ok(sum / done as f64)
    }

    /// Mean errors on the validation set.
    fn validate(&mut self, network: &Network) -> Result<Errors, Error> {
        let layers: Layers = network.layers()?;
        let (mut sum, n) = (Errors::default(), self.data.validation.len() as f64);
        let bound = self.settings.bound();
        for Window { shards, batches } in self.data.checks(self.settings.memory) {
            self.held.hold(&shards)?;
            for piece in batches.iter().flat_map(|batch| pieces(self.held, batch, network.widths)) {
                if self.watch.stop() {
                    return Err(Error::Stopped);
                }
                let values = layers.values(self.states(piece, network))?;
                for (target, own) in self.by_sample(piece) {
                    let errors = Errors::of(&values[own], target.value, bound);
                    sum.last += errors.last / n;
                    sum.along += errors.along / n;
                }
            }
        }
        Ok(sum)
    }

    /// Standardised hidden states of these samples, `[tokens, d]`, row-major.
    fn states(&self, piece: &[Target], network: &Network) -> Vec<f32> {
        let states = piece.iter().map(|target| self.held.of(target));
        let mut all = vec![0f32; states.clone().map(<[half::f16]>::len).sum()];
        let mut rest = &mut all[..];
        for states in states {
            let (own, behind) = rest.split_at_mut(states.len());
            states.convert_to_f32_slice(own);
            rest = behind;
        }
        network.inputs.standardise(&mut all);
        all
    }

    /// Samples with the index ranges of their values.
    fn by_sample<'b>(
        &'b self,
        piece: &'b [Target],
    ) -> impl Iterator<Item = (&'b Target, std::ops::Range<usize>)> {
        piece.iter().scan(0, |end, target| {
            let begin = *end;
            *end += self.held.tokens(target);
            Some((target, begin..*end))
        })
    }
}

/// Splits a batch into pieces of at most [`TOKENS`] tokens and [`NUMBERS`] elements per tensor. A longer sample is a
/// piece of its own.
fn pieces<'a>(held: &Held<'_>, batch: &'a [Target], widths: [usize; 3]) -> Vec<&'a [Target]> {
    let most = widths.into_iter().fold(TOKENS, |most, width| most.min(NUMBERS / width.max(1)));
    let mut pieces = Vec::new();
    let (mut begin, mut tokens) = (0, 0);
    for (i, target) in batch.iter().enumerate() {
        let own = held.tokens(target);
        if i > begin && tokens + own > most {
            pieces.push(&batch[begin..i]);
            (begin, tokens) = (i, 0);
        }
        tokens += own;
    }
    pieces.push(&batch[begin..]);
    pieces
}
