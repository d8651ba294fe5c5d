//! Random numbers: one seed, and a stream for each answer.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// Randomness of one answer: a stream of its own per seed, prompt and sample, so that no answer depends
/// on which others were written, in what order or where a run was resumed.
#[derive(Debug, Clone)]
pub struct Randomness(ChaCha12Rng);

impl Randomness {
    /// The stream of answer `sample` to the prompt called `prompt`.
    pub fn new(seed: u64, prompt: &str, sample: u64) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        // FNV-1a: streams need to differ, not to be secret.
        let hash = prompt.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        rng.set_stream(hash.wrapping_add(sample.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        Self(rng)
    }

    /// The stream that disturbs the rewards of the same answer: another one, so that perturbation leaves what tokens are
    /// drawn with alone.
    pub(crate) fn of_perturbation(seed: u64, prompt: &str, sample: u64) -> Self {
        Self::new(seed ^ 0x5bd1_e995_9d1b_a5e7, prompt, sample)
    }

    /// A stream of its own, which this one decides.
    pub fn fork(&mut self) -> Self {
        Self(ChaCha12Rng::seed_from_u64(self.0.random()))
    }

    /// A seed for draws on a server: below `2^31`, which all servers accept.
    pub(crate) fn seed(&mut self) -> u64 {
        self.0.random::<u64>() >> 33
    }

    /// A number of the normal distribution with mean 0 and standard deviation 1, by Box and Muller.
    pub(crate) fn normal(&mut self) -> f64 {
        let (radius, angle) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    /// A number in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.0.random()
    }
}
