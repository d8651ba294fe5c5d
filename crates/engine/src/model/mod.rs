//! Causal language models.

mod config;
mod decoder;
mod weights;

pub use config::{Config, Llama3Scaling};
pub use decoder::{Model, Segment, Shape};

pub(crate) use config::{OneOrMany, as_u64};
pub(crate) use weights::{Weights, weight_files};
