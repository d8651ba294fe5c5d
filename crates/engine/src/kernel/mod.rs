//! What is hot on the CPU, chosen at run time for the processor at hand.
//!
//! - [`Packed`] is a linear layer whose weights are laid out once, so that few rows cost hardly more than
//!   one: the weights stream through once for all of them.
//! - Attention lets any number of rows look back over prefixes that they share, without a copy.
//! - An encoder's attention, norm and activations, of texts that are not padded.
//! - A pool of threads takes both in tasks of microseconds ([`set_threads`]).
//!
//! **What is promised**: the order in which the terms of one output are added depends on the [`Variant`]
//! alone, never on the rows that share the call, on how a text was cut into pieces, or on the number of
//! threads. So a candidate's numbers are the same to the bit alone and among forty others, and a text's
//! whether it was read at once or token by token. Variants differ in rounding.

#![allow(
    unsafe_code,
    reason = "vector instructions and threads; each block is held against a plain twin"
)]

mod activation;
mod attention;
mod dtype;
mod elementwise;
mod encoder;
mod int8;
mod linear;
mod norm;
mod pages;
mod pool;
mod tanh;
mod tile;

pub use activation::Activation;
pub(crate) use attention::{Angles, Attention, Keys, Rotary, Run, Sight, attend};
pub use dtype::Dtype;
pub use elementwise::{log_sum_exp, masses};
pub(crate) use encoder::{Bias, BothWays, turn};
pub use linear::{Packed, Rows};
pub use norm::Norm;
pub(crate) use pages::{Layout, PAGE, Page};
pub(crate) use pool::share;
pub use pool::{count as threads, set as set_threads};
pub use tanh::BiasTanh;
pub(crate) use tanh::tanh_all;

use std::sync::OnceLock;

/// A set of instructions that the kernels are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// AVX-512 with dot products of bf16 pairs (BF16) and of int8 quadruples (VNNI).
    Avx512Dot,
    /// AVX-512 (F, BW): 16 lanes.
    Avx512,
    /// AVX2 with FMA: 8 lanes.
    Avx2,
    /// ARM's NEON: 4 lanes.
    Neon,
    /// Plain Rust.
    Portable,
}

impl Variant {
    /// The best that this processor has, or what `STACKELBERG_KERNEL` (`avx512dot`, `avx512`, `avx2`,
    /// `neon`, `portable`) asks for; if the processor lacks that, a warning goes to standard error.
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Variant> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            let (asked, available) = (std::env::var("STACKELBERG_KERNEL"), Self::available());
            let Ok(asked) = asked else { return available[0] };
            let by_name = available.iter().find(|v| v.name() == asked.to_ascii_lowercase());
            *by_name.unwrap_or_else(|| {
                let names: Vec<&str> = available.iter().map(|v| v.name()).collect();
                let names = names.join(", ");
                eprintln!("warning: STACKELBERG_KERNEL is {asked}, this processor has {names}: the first is used");
                &available[0]
            })
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512Dot => "avx512dot",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }

    /// All that this processor has, best first.
    pub fn available() -> Vec<Self> {
        let mut available = Vec::new();
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 =
                avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
            let dot = is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512vnni");
            let found = [(Self::Avx512Dot, avx512 && dot), (Self::Avx512, avx512), (Self::Avx2, avx2)];
            available.extend(found.into_iter().filter(|(_, is)| *is).map(|(variant, _)| variant));
        }
        #[cfg(all(target_arch = "aarch64", not(miri)))]
        available.push(Self::Neon);
        available.push(Self::Portable);
        available
    }
}
