//! Hidden states of a shard, stored as safetensors.

use std::path::Path;

use half::f16;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use stackelberg_data::{Error as FileError, hash::sha256};

use super::row::Row;
use crate::error::Error;

/// Hidden states of all samples of a shard.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hidden {
    /// Width `d` of a hidden state.
    pub width: usize,
    /// Row at which each sample begins, and the number of rows: `[samples + 1]`.
    pub offsets: Vec<usize>,
    /// The hidden states, `[tokens, d]`, row-major.
    pub states: Vec<f16>,
}

impl Hidden {
    /// Hidden states of no samples yet.
    pub fn new(width: usize) -> Self {
        Self { width, offsets: vec![0], states: Vec::new() }
    }

    /// Hidden states of sample `i` of the shard, `[tokens, d]`, row-major.
    ///
    /// # Panics
    /// If the sample does not exist.
    pub fn of(&self, i: usize) -> &[f16] {
        &self.states[self.offsets[i] * self.width..self.offsets[i + 1] * self.width]
    }

    /// Appends a sample, `[tokens, d]`. Returns false if a number is NaN or too large for f16.
    pub(super) fn push(&mut self, states: &[f32]) -> bool {
        self.states.extend(states.iter().map(|&x| f16::from_f32(x)));
        self.offsets.push(self.states.len() / self.width);
        self.states[self.states.len() - states.len()..].iter().all(|x| x.is_finite())
    }

    /// Appends all samples of `other`.
    pub(super) fn append(&mut self, other: &Self) {
        let behind = self.states.len() / self.width;
        self.offsets.extend(other.offsets[1..].iter().map(|offset| behind + offset));
        self.states.extend_from_slice(&other.states);
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, SafeTensorError> {
        let offsets: Vec<u8> = self.offsets.iter().flat_map(|&o| (o as i64).to_le_bytes()).collect();
        let states: Vec<u8> = self.states.iter().flat_map(|x| x.to_le_bytes()).collect();
        let shape = vec![self.states.len() / self.width, self.width];
        let tensors = [
            ("offsets", TensorView::new(Dtype::I64, vec![self.offsets.len()], &offsets)?),
            ("hidden", TensorView::new(Dtype::F16, shape, &states)?),
        ];
        safetensors::serialize(tensors, None)
    }

    /// Reads the hidden states of these rows from a file with this SHA-256.
    pub(super) fn read(path: &Path, hash: &str, rows: &[Row], width: usize) -> Result<Self, Error> {
        let wrong = |problem: String| Error::Shard { file: path.display().to_string(), problem };
        let broken = |e: SafeTensorError| wrong(format!("not a whole safetensors file ({e})"));
        let bytes = std::fs::read(path).map_err(|source| FileError::read(path, source))?;
        if sha256(&bytes) != hash {
            return Err(wrong("its content has changed since it was written".to_owned()));
        }
        let tensors = SafeTensors::deserialize(&bytes).map_err(broken)?;
        let (hidden, offsets) =
            (tensors.tensor("hidden").map_err(broken)?, tensors.tensor("offsets").map_err(broken)?);
        let mut expected = vec![0];
        rows.iter().for_each(|row| expected.push(expected[expected.len() - 1] + row.tokens.len()));
        let found: Vec<usize> =
            offsets.data().as_chunks().0.iter().map(|&o| i64::from_le_bytes(o) as usize).collect();
        let shape = [expected[rows.len()], width];
        let dtypes = (hidden.dtype(), offsets.dtype());
        if dtypes != (Dtype::F16, Dtype::I64) || hidden.shape() != shape || found != expected {
            return Err(wrong("its hidden states do not match the shard's rows".to_owned()));
        }
        let states: Vec<f16> =
            hidden.data().as_chunks().0.iter().map(|&x| f16::from_le_bytes(x)).collect();
        match states.iter().position(|x| !x.is_finite()) {
            Some(at) => Err(wrong(format!("hidden[{}][{}] is {}", at / width, at % width, states[at]))),
            None => Ok(Self { width, offsets: expected, states }),
        }
    }
}
