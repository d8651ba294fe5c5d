//! Random sets of responses, and the threshold by bisection as an oracle.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use stackelberg_shaping::Samples;

/// At least `cases` cases, from a fixed seed unless `PROPTEST_RNG_SEED` is set.
pub fn config(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    config.cases = config.cases.max(cases);
    if matches!(config.rng_seed, RngSeed::Random) {
        config.rng_seed = RngSeed::Fixed(2602_02572);
    }
    config
}

/// Rewards with the base policy's weights, or uniform ones.
#[derive(Debug, Clone)]
pub struct Case {
    pub rewards: Vec<f64>,
    pub weights: Option<Vec<f64>>,
}

impl Case {
    pub fn samples(&self) -> Samples<'_> {
        match &self.weights {
            None => Samples::new(&self.rewards).unwrap(),
            Some(weights) => Samples::weighted(&self.rewards, weights).unwrap(),
        }
    }

    /// Largest magnitude of a reward, to which rounding errors are proportional.
    pub fn scale(&self) -> f64 {
        self.rewards.iter().fold(0.0, |most, r| r.abs().max(most))
    }
}

/// One to 40 responses with rewards that are spread out, tied, far from zero or of any scale, and with or without
/// weights, some of them zero.
pub fn case() -> impl Strategy<Value = Case> {
    (rewards(), any::<bool>()).prop_flat_map(|(rewards, weighted)| {
        let n = rewards.len();
        let weights = prop::collection::vec(prop_oneof![4 => 1e-6..1.0f64, 1 => Just(0.0)], n);
        (Just(rewards), weights).prop_map(move |(rewards, mut weights)| {
            if weights.iter().all(|&w| w == 0.0) {
                weights[0] = 1.0;
            }
            Case { rewards, weights: weighted.then_some(weights) }
        })
    })
}

/// Rewards of moderate size, for tests with absolute tolerances on shaped rewards.
pub fn ordinary() -> impl Strategy<Value = Case> {
    case().prop_map(|mut case| {
        let (scale, first) = (case.scale().max(1e-300), case.rewards[0]);
        for r in &mut case.rewards {
            *r = 4.0 * (*r / scale - first / scale);
        }
        case
    })
}

fn rewards() -> impl Strategy<Value = Vec<f64>> {
    let n = 1..=40usize;
    prop_oneof![
        prop::collection::vec(-5.0..5.0f64, n.clone()),
        prop::collection::vec((-3..=3).prop_map(f64::from), n.clone()),
        (prop::collection::vec(-1.0..1.0f64, n.clone()), -1e9..1e9f64)
            .prop_map(|(r, offset)| r.iter().map(|x| x + offset).collect()),
        (prop::collection::vec(-1.0..1.0f64, n), -300..=300i32)
            .prop_map(|(r, scale)| r.iter().map(|x| x * 10f64.powi(scale)).collect()),
    ]
}

/// Exponents `c = B/beta` over fifteen orders of magnitude, and zero.
pub fn exponent() -> impl Strategy<Value = f64> {
    prop_oneof![8 => (-9.0..6.0f64).prop_map(|x| 10f64.powf(x)), 1 => Just(0.0)]
}

/// `m*` by 200 steps of bisection on `F(m) / exp(c)`, term by term as in the paper.
pub fn bisected(samples: &Samples<'_>, c: f64) -> f64 {
    let e = (-c).exp();
    let possible = || samples.rewards().iter().zip(samples.prior()).filter(|&(_, &p)| p > 0.0);
    let f = |m: f64| -> f64 {
        possible().map(|(&r, &p)| if r >= m { p * (r - m) } else { e * p * (r - m) }).sum()
    };
    let mut low = possible().map(|(&r, _)| r).fold(f64::INFINITY, f64::min);
    let mut high = possible().map(|(&r, _)| r).fold(f64::NEG_INFINITY, f64::max);
    for _ in 0..200 {
        let middle = low / 2.0 + high / 2.0;
        if f(middle) > 0.0 { low = middle } else { high = middle }
    }
    low / 2.0 + high / 2.0
}
