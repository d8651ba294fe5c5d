//! The machine of a bench.

use std::fs;

use serde::Serialize;
use stackelberg_engine::kernel::{Variant, bf16_products};

/// Properties of the machine that affect the figures.
#[derive(Serialize)]
pub(super) struct Machine {
    /// The processor's name, or its architecture if the system does not report the name.
    pub(super) cpu: String,
    /// Cores available to this process.
    pub(super) cores: usize,
    pub(super) os: &'static str,
    pub(super) arch: &'static str,
    /// The instruction set of the kernels, and how bf16 is multiplied where there are two ways.
    pub(super) kernel: String,
}

impl Machine {
    pub(super) fn this() -> Self {
        let arch = std::env::consts::ARCH;
        let products = bf16_products().map(|how| format!(" (bf16 by {how})")).unwrap_or_default();
        Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| arch.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            os: std::env::consts::OS,
            arch,
            kernel: format!("{}{products}", Variant::detect()),
        }
    }
}

/// Peak memory of this process in MB; `None` if the system does not report it.
pub(super) fn peak_rss_mb() -> Option<f64> {
    let peak = field("/proc/self/status", "VmHWM")?;
    let kib: f64 = peak.strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

/// The first value of a key in a file with lines `key: value`.
fn field(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
}
