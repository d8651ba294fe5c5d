//! Random features for tests.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

pub struct Random(ChaCha8Rng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// In (0, 1].
    pub fn uniform(&mut self) -> f64 {
        ((self.0.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    pub fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal() as f32).collect()
    }
}

/// Features that resemble hidden states: columns of different scales and offsets, one of them large, and neighbours
/// correlated.
pub fn features(random: &mut Random, n: usize, d: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(n * d);
    for _ in 0..n {
        let common = random.normal();
        let mut last = 0.0;
        for j in 0..d {
            last = 0.8 * last + 0.4 * random.normal() + 0.2 * common;
            let scale = if j == 3 { 300.0 } else { 0.3 + (j % 7) as f64 / 3.0 };
            values.push((scale * (last + (j % 5) as f64 - 2.0)) as f32);
        }
    }
    values
}
