//! Limits of counts on the command line, checked while it is parsed: before anything is allocated or started.

use std::num::NonZero;

/// Prompts per shard, and parts of a dataset.
pub(crate) const SHARD: usize = 65_536;
/// Epochs, samples per training step, layer widths.
pub(crate) const TRAINING: usize = 65_536;
/// Megabytes of a cache: a terabyte.
pub(crate) const MEGABYTES: usize = 1 << 20;
/// Folds of a cross-validation.
pub(crate) const FOLDS: usize = 100;
/// Runs and prompts that are verified.
pub(crate) const VERIFIED: usize = 100_000;
/// Calls of a judge at once.
pub(crate) const CALLS: usize = 256;
/// Retries of a call.
pub(crate) const RETRIES: u32 = 100;
/// Seconds that a server waits for requests to finish: a day.
pub(crate) const SECONDS: u64 = 86_400;
/// Tokens of a measured sequence.
pub(crate) const LENGTH: usize = 1 << 20;

/// A parser of whole numbers between `least` and `most`.
pub(crate) fn count<T>(
    least: T,
    most: T,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display + Copy + Send + Sync + 'static,
{
    move |text| match text.parse() {
        Ok(number) if number >= least && number <= most => Ok(number),
        _ => Err(format!("it must be a whole number between {least} and {most}")),
    }
}

/// The parser of --threads: at most 1024, or four per core on a larger machine.
pub(crate) fn threads(text: &str) -> Result<usize, String> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    count(1, (4 * cores).max(1024))(text)
}
