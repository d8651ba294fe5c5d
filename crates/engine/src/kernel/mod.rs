//! What is hot on the CPU, chosen at run time for the processor at hand.
//!
//! Every variant adds the products of one output in the same order, from the first input to the last, so
//! a row's result does not depend on how many rows share the call, on how they are cut into blocks, or
//! on the number of threads. Variants differ in rounding alone (fused or separate multiply and add).

#![allow(unsafe_code, reason = "vector instructions; each block is held against the portable twin")]

mod linear;

pub use linear::Packed;

use std::sync::OnceLock;

/// Makes the kernels compute with so many threads, from the first use on. Call once in a process, before
/// anything is computed; without a call all cores are used.
///
/// # Errors
/// The threads were started already, or the system refuses them.
pub fn set_threads(threads: usize) -> crate::Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    Ok(pool.build_global().map_err(candle_core::Error::wrap)?)
}

/// How many threads the kernels compute with.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// A set of instructions that the kernels are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// AVX-512 (F, BW): 16 lanes.
    Avx512,
    /// AVX2 with FMA: 8 lanes.
    Avx2,
    /// Plain Rust.
    Portable,
}

impl Variant {
    /// The best that this processor has, or what `STACKELBERG_KERNEL` (`avx512`, `avx2`, `portable`) asks
    /// for if the processor has that.
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Variant> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            let asked = std::env::var("STACKELBERG_KERNEL").unwrap_or_default();
            let available = Self::available();
            let by_name = available.iter().find(|v| format!("{v:?}").eq_ignore_ascii_case(&asked));
            *by_name.unwrap_or(&available[0])
        })
    }

    /// All that this processor has, best first.
    pub fn available() -> Vec<Self> {
        let mut available = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                available.push(Variant::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                available.push(Variant::Avx2);
            }
        }
        available.push(Variant::Portable);
        available
    }
}
