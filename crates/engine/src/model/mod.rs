//! Causal language models. One decoder serves all families.
//!
//! | file | content |
//! |---|---|
//! | `config` | the shape of a decoder, independent of the file format |
//! | `family` | the families and the names of their tensors |
//! | `hf`, `gguf` | the configuration from `config.json` or from the metadata of a GGUF file |
//! | `lengths` | checks that the lengths in a GGUF header fit into the file |
//! | `rope` | rotary embeddings and their scaling |
//! | `files` | the weight files of a folder |
//! | `matrix` | a matrix, read a few rows at a time |
//! | `weights` | the tensors of a checkpoint by name |
//! | `open` | configuration and tensors of a checkpoint together |
//! | `parts` | the layers of a decoder among the tensors |
//! | `segment` | the input of a forward pass |
//! | `decoder` | the model: inputs and outputs |
//! | `on_kernels` | the forward pass by this crate's kernels, on the CPU |
//! | `on_device` | the forward pass by candle's operations, on a GPU |

mod blocks;
mod config;
mod decoder;
mod family;
mod files;
mod gguf;
mod hf;
mod lengths;
mod matrix;
mod on_device;
mod on_kernels;
mod open;
mod parts;
mod rope;
mod score;
mod segment;
mod weights;

pub use config::{Bias, Config, Norms, QkNorm};
pub use decoder::Model;
pub use open::check_finite;
pub use score::ScoreHead;
pub use segment::Segment;

pub use files::{safetensors_header, weight_files};
pub(crate) use gguf::as_u64;
pub(crate) use hf::{OneOrMany, labels};
pub(crate) use matrix::stacked;
pub(crate) use open::{gguf_header, open};
pub(crate) use rope::{plain, rotary};
pub(crate) use weights::Weights;
