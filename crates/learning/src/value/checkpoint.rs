//! Checkpoints: the state of training after an epoch.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::{Map, Value, from_value, json};
use stackelberg_data::{Error as FileError, atomic};

use super::adam::Adam;
use super::epoch::Epoch;
use super::network::{Inputs, Network, Numbers};
use crate::error::Error;
use crate::rollouts::difference;
use crate::tensors::{Named, to_bytes};

/// The state that is needed to resume training.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Checkpoint {
    pub(super) network: Network,
    pub(super) adam: Adam,
    /// The network after the best epoch, which becomes the result.
    pub(super) kept: Network,
    pub(super) best: usize,
    pub(super) epochs: Vec<Epoch>,
}

/// Value of the metadata key `format`.
const FORMAT: &str = "stackelberg-training-1";

/// Prefixes of the tensor names of the two networks and of Adam's averages.
const SETS: [&str; 4] = ["network", "kept", "adam.first", "adam.second"];

const MEAN: &str = "inputs.mean";
const DEVIATION: &str = "inputs.deviation";

impl Checkpoint {
    /// The state before the first epoch.
    pub(super) fn new(network: Network) -> Self {
        let adam = Adam::new(network.widths);
        Self { kept: network.clone(), network, adam, best: 0, epochs: Vec::new() }
    }

    /// Adds a finished epoch. Returns whether it is the best so far.
    pub(super) fn add(&mut self, epoch: Epoch) -> bool {
        let least = self.epochs.get(self.best).map(|best| best.validation.last);
        let best = least.is_none_or(|least| epoch.validation.last < least);
        if best {
            self.best = self.epochs.len();
            self.kept = self.network.clone();
        }
        self.epochs.push(epoch);
        best
    }

    /// Whether the last `patience` epochs were not better than the best one.
    pub(super) fn exhausted(&self, patience: usize) -> bool {
        self.epochs.len() > self.best + patience
    }

    /// Writes the checkpoint atomically. Only a run with equal `settings` can resume from it.
    pub(super) fn write(&self, path: &Path, settings: &Map<String, Value>) -> Result<(), Error> {
        let fields = [
            ("format", FORMAT.to_owned()),
            ("settings", Value::Object(settings.clone()).to_string()),
            ("epochs", json!(self.epochs).to_string()),
            ("best", self.best.to_string()),
            ("steps", self.adam.steps.to_string()),
            ("widths", json!(self.network.widths).to_string()),
        ];
        let metadata: BTreeMap<String, String> =
            fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let sets = [&self.network.numbers, &self.kept.numbers, &self.adam.first, &self.adam.second];
        let named = SETS.iter().zip(sets).flat_map(|(set, numbers)| {
            numbers.iter().enumerate().map(move |(i, numbers)| (format!("{set}.{i}"), numbers))
        });
        let named: Vec<(String, &Vec<f32>)> = named.collect();
        let inputs = &self.network.inputs;
        let tensors: Vec<Named<'_>> = named
            .iter()
            .map(|(name, numbers)| (name.as_str(), *numbers))
            .chain([(MEAN, &inputs.mean), (DEVIATION, &inputs.deviation)])
            .map(|(name, numbers)| (name, vec![numbers.len()], &numbers[..]))
            .collect();
        atomic::sweep(path)?;
        Ok(atomic::write(path, &to_bytes(&metadata, &tensors))?)
    }

    /// Reads a checkpoint that was written with these settings.
    pub(super) fn read(path: &Path, settings: &Map<String, Value>) -> Result<Self, Error> {
        let file = || path.display().to_string();
        let bytes = std::fs::read(path).map_err(|e| FileError::read(path, e))?;
        let wrong = |problem: &dyn std::fmt::Display| Error::Dataset {
            file: file(),
            problem: format!("not a valid checkpoint: {problem}: delete it to start again"),
        };
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| wrong(&e))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| wrong(&e))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let field = |key: &str| -> Result<Value, Error> {
            let text = metadata.get(key).ok_or_else(|| wrong(&format!("its metadata has no {key}")))?;
            Ok(serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into()))
        };
        if field("format")? != FORMAT {
            return Err(wrong(&format!("its format is {}", field("format")?)));
        }
        let now = Value::Object(settings.clone());
        if let Some((field, was, is)) = difference(&field("settings")?, &now) {
            let (was, is) = (was.to_string(), is.to_string());
            return Err(Error::OtherSettings { folder: file(), field, was, is });
        }
        let widths: [usize; 3] = from_value(field("widths")?).map_err(|e| wrong(&e))?;
        let epochs: Vec<Epoch> = from_value(field("epochs")?).map_err(|e| wrong(&e))?;
        let best: usize = from_value(field("best")?).map_err(|e| wrong(&e))?;
        let steps: u64 = from_value(field("steps")?).map_err(|e| wrong(&e))?;
        if best >= epochs.len() {
            return Err(wrong(&format!("its best epoch is {best}, but it has {} epochs", epochs.len())));
        }
        let floats = |name: &str, length: usize| -> Result<Vec<f32>, Error> {
            let tensor = tensors.tensor(name).map_err(|e| wrong(&e))?;
            let found = tensor.data().as_chunks().0;
            if found.len() != length {
                return Err(wrong(&format!("{name} has the wrong length")));
            }
            Ok(found.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
        };
        let set = |set: &str| -> Result<Numbers, Error> {
            let mut numbers = Network::zeros(widths);
            for (i, numbers) in numbers.iter_mut().enumerate() {
                *numbers = floats(&format!("{set}.{i}"), numbers.len())?;
            }
            Ok(numbers)
        };
        let inputs = Inputs { mean: floats(MEAN, widths[0])?, deviation: floats(DEVIATION, widths[0])? };
        let [network, kept, first, second] = SETS.map(set);
        Ok(Self {
            network: Network { widths, inputs: inputs.clone(), numbers: network? },
            kept: Network { widths, inputs, numbers: kept? },
            adam: Adam { first: first?, second: second?, steps },
            best,
            epochs,
        })
    }
}
