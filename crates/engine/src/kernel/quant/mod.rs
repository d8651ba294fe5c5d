//! Quantised weights: integers of 4, 5, 6 or 8 bits in blocks of 32 inputs with their scales.
//!
//! [`Quant`] names the types of GGUF that are kept as they are in the file. `Dtype::Int8` is the type Q8_0, made from
//! other weights by rounding. Inputs are rounded to blocks of 32 int8 with one scale, row by row.
//!
//! Within a block, products are summed exactly, as integers. The sums of the blocks are then added in order. All types
//! share one loop per instruction set; a type differs in how its integers are unpacked and where its scales lie.
//!
//! | file | content |
//! |---|---|
//! | `format` | the types, and how their integers and scales lie in a panel |
//! | `file` | blocks of a GGUF file into a panel |
//! | `inputs` | inputs rounded to int8 |
//! | `portable`, `avx2`, `avx512`, `neon` | the product of a panel with some rows of inputs |
//! | `panels` | the panels of a layer |

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod file;
mod format;
mod inputs;
#[cfg(target_arch = "aarch64")]
mod neon;
mod panels;
mod portable;

pub use format::Quant;
pub(super) use inputs::{Inputs, round};
pub use panels::Source;
pub(super) use panels::{Alternating, Panels};
