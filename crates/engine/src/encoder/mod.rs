//! Encoders (BERT and its relatives) and the sentence embedders made of them. See [`Embedder`].
//!
//! | file | content |
//! |---|---|
//! | `config` | the shape of an encoder, from `config.json` |
//! | `linear` | a linear layer with a bias |
//! | `relative` | DeBERTa's attention to relative positions |
//! | `model` | the forward pass |
//! | `parts` | builds an encoder from its tensors |
//! | `pooling` | how hidden states become one embedding |
//! | `settings` | the settings of sentence-transformers |
//! | `embedder` | texts to embeddings |

mod config;
mod embedder;
mod linear;
mod model;
mod parts;
mod pooling;
mod relative;
mod settings;

pub use embedder::{Embedder, Truncate};
pub(crate) use linear::{Linear, bias};
pub use pooling::Pooling;
