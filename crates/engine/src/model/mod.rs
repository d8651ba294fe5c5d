//! Causal language models.

mod config;
mod decoder;
mod weights;

pub use config::{Config, Llama3Scaling};
pub use decoder::{Model, Segment};

pub(crate) use config::{OneOrMany, as_u64, open};
pub(crate) use weights::{Weights, stacked, weight_files};
