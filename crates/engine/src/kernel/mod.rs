//! CPU kernels for the hot loops. The instruction set is chosen at run time, see [`Variant`] and [`choose`].
//!
//! - [`Packed`] is a linear layer whose weights are repacked once at load time. One pass over the weights serves all
//!   input rows, so a few rows cost hardly more than one.
//! - Causal attention reads keys and values of shared prefixes in place, without copying them.
//! - Bidirectional attention, norms and activations serve encoders. Their inputs are not padded.
//! - A thread pool splits both into tasks of microseconds ([`set_threads`]).
//!
//! **Results are batch-invariant**: they are bit-identical at any batch size. The order in which the terms of one
//! output are added depends on the [`Variant`] alone, not on the other rows of the call, on how a sequence was split
//! into chunks, or on the number of threads. Different variants round differently.

#![allow(
    unsafe_code,
    reason = "vector instructions and the thread pool need it; tests compare each kernel with plain Rust"
)]

mod activation;
mod attention;
mod bandwidth;
mod bidirectional;
mod candidates;
mod dtype;
mod elementwise;
mod form;
mod linear;
mod norm;
mod output;
mod pack;
mod pages;
mod pool;
mod quant;
mod rotary;
mod slice;
mod softmax;
mod tanh;
mod tile;
mod variant;
mod weight;

pub use activation::Activation;
pub(crate) use attention::{Attention, Keys, Run, Sight, attend};
pub use bandwidth::Bandwidth;
pub(crate) use bidirectional::{Bias, BothWays, turn};
pub use dtype::{Dtype, KvDtype};
pub use elementwise::{log_sum_exp, masses};
pub use form::bf16_products;
pub use linear::Packed;
pub use norm::Norm;
pub use pack::Rows;
pub(crate) use pages::{Layout, PAGE, Page};
pub(crate) use pool::share;
pub use pool::{count as threads, set as set_threads};
pub use quant::{Quant, Source};
pub(crate) use rotary::{Angles, Rotary};
pub use tanh::BiasTanh;
pub(crate) use tanh::tanh_all;
pub use variant::{ChooseError, Variant, choose};
