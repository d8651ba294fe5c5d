//! Simulated coverage of intervals for `m*`: the source of the tables in the documentation of `Confidence`.
//! `cargo test -p stackelberg-shaping interval -- --nocapture` prints them.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use stackelberg_shaping::{Confidence, Samples, Threshold};
use statrs::distribution::{ContinuousCDF, Normal};

const EXPONENTS: [f64; 9] = [0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 12.0];
const SIZES: [usize; 7] = [5, 10, 20, 30, 50, 100, 300];

type Quantile = fn(f64) -> f64;

fn normal(p: f64) -> f64 {
    Normal::standard().inverse_cdf(p)
}

/// Reward distributions by their quantile functions. The log-normal distribution is tested separately, since its heavy
/// right tail lowers the coverage.
const FAMILIES: [(&str, Quantile); 5] = [
    ("normal", normal),
    ("exponential", |p| -(1.0 - p).ln()),
    ("negated exponential", |p| p.ln()),
    ("uniform", |p| p),
    ("bimodal", |p| if p < 0.8 { normal(p / 0.8) } else { 4.0 + normal((p - 0.8) / 0.2) }),
];

/// A population: quantiles at the midpoints of many equal intervals of probability.
struct Population {
    rewards: Vec<f64>,
}

impl Population {
    fn new(quantile: Quantile) -> Self {
        let n = 200_000;
        Self { rewards: (0..n).map(|i| quantile((i as f64 + 0.5) / n as f64)).collect() }
    }

    fn threshold(&self, c: f64) -> f64 {
        Threshold::new(&Samples::new(&self.rewards).unwrap(), c).unwrap().value
    }

    /// Share of intervals from `m` draws that contain the population's threshold.
    fn coverage(&self, confidence: &Confidence, c: f64, m: usize, intervals: usize) -> f64 {
        let truth = self.threshold(c);
        let mut rng = ChaCha8Rng::seed_from_u64(m as u64);
        let mut rewards = vec![0.0; m];
        let mut held = 0;
        for _ in 0..intervals {
            rewards.fill_with(|| self.rewards[rng.random_range(0..self.rewards.len())]);
            let samples = Samples::new(&rewards).unwrap();
            let threshold = Threshold::new(&samples, c).unwrap();
            let interval = confidence.interval(&samples, &threshold).unwrap();
            held += usize::from(interval.low <= truth && interval.high.is_none_or(|high| truth <= high));
        }
        held as f64 / intervals as f64
    }
}

/// The coverage is at least the level, for every nominal level, exponent, sample size and family.
#[test]
fn intervals_hold_the_truth_as_often_as_they_say() {
    let populations = FAMILIES.map(|(name, quantile)| (name, Population::new(quantile)));
    for asked in [0.5, 0.8, 0.9, 0.95, 0.99] {
        let confidence = Confidence::new(asked).unwrap();
        let level = confidence.level();
        let mut worst = (1.0, String::new());
        for (name, population) in &populations {
            for c in EXPONENTS {
                for m in SIZES {
                    let held = population.coverage(&confidence, c, m, 1000);
                    if held < worst.0 {
                        worst = (held, format!("{name}, c = {c}, M = {m}"));
                    }
                }
            }
        }
        println!("asked {asked}, level {level:.3}: at worst {:.3} ({})", worst.0, worst.1);
        assert!(worst.0 >= level, "asked {asked}, called {level}, held {worst:?}");
        assert!(worst.0 <= level + 0.01, "asked {asked}: called {level}, too modest: {worst:?}");
    }
}

#[test]
fn coverage_by_exponent_and_sample_size() {
    let confidence = Confidence::new(0.9).unwrap();
    let [normal, exponential] = [FAMILIES[0].1, FAMILIES[1].1].map(Population::new);
    for c in [0.5, 1.0, 2.0, 5.0, 12.0] {
        let cells = [5, 10, 30, 100].map(|m| {
            let shares = [&normal, &exponential].map(|p| p.coverage(&confidence, c, m, 2000));
            assert!(shares.iter().all(|&s| s > 0.83), "c = {c}, M = {m}: {shares:?}");
            format!("{:.2} / {:.2}", shares[0], shares[1])
        });
        println!("/// | {c} | {} |", cells.join(" | "));
    }
}

/// The coverage for log-normal rewards in the documentation.
#[test]
fn heavy_tails_are_covered_less() {
    let confidence = Confidence::new(0.9).unwrap();
    let population = Population::new(|p| normal(p).exp());
    let cells = EXPONENTS.into_iter().flat_map(|c| SIZES.map(|m| (c, m)));
    let worst = cells.map(|(c, m)| population.coverage(&confidence, c, m, 1000)).fold(1.0, f64::min);
    println!("log-normal, asked 0.9: at worst {worst:.3}");
    assert!((0.76..0.78).contains(&worst), "{worst}");
}

/// The closed-form ends agree with a search in small steps.
#[test]
fn ends_are_where_the_test_turns() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let confidence = Confidence::new(0.9).unwrap();
    for round in 0..300 {
        let c = [0.0, 0.3, 1.0, 3.0][round % 4];
        let rewards: Vec<f64> =
            (0..12).map(|_| 1e3 + 5.0 * normal(rng.random_range(0.001..0.999))).collect();
        let samples = Samples::new(&rewards).unwrap();
        let threshold = Threshold::new(&samples, c).unwrap();
        let found = confidence.interval(&samples, &threshold).unwrap();

        let accepts = |m: f64| {
            let n = rewards.len() as f64;
            let w: Vec<f64> = rewards.iter().map(|&r| if r >= m { 1.0 } else { (-c).exp() }).collect();
            let g: Vec<f64> = rewards.iter().zip(&w).map(|(r, w)| w * (r - m)).collect();
            let mean = g.iter().sum::<f64>() / n;
            let variance = g.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / (n - 1.0);
            let power = |n: i32| w.iter().map(|w| w.powi(n)).sum::<f64>();
            let dof = power(2).powi(2) / power(4) - 1.0;
            let t = student(dof);
            mean.abs() <= t * (variance / n).sqrt()
        };
        let mut low = threshold.value;
        while accepts(low) {
            low -= 1e-3;
        }
        assert!((low - found.low).abs() < 2e-3, "c = {c}: {low} against {}", found.low);
        let mut high = threshold.value;
        while accepts(high) && high < threshold.value + 50.0 {
            high += 1e-3;
        }
        let above = rewards.iter().filter(|&&r| r >= high).count();
        match found.high {
            Some(end) => assert!((high - end).abs() < 2e-3, "c = {c}: {high} against {end}"),
            None => assert!(above < 2, "c = {c}: {above} lie above {high}"),
        }
    }
}

/// Student's 95 percent quantile, interpolated between integer degrees of freedom as in the crate.
fn student(dof: f64) -> f64 {
    let exact = |n: f64| statrs::distribution::StudentsT::new(0.0, 1.0, n).unwrap().inverse_cdf(0.95);
    if dof < 1.0 {
        return f64::INFINITY;
    }
    exact(dof.floor()) + (exact(dof.floor() + 1.0) - exact(dof.floor())) * dof.fract()
}

#[test]
fn no_interval_without_draws() {
    let confidence = Confidence::new(0.9).unwrap();
    let interval = |samples: Samples<'_>| {
        let threshold = Threshold::new(&samples, 1.0).unwrap();
        confidence.interval(&samples, &threshold)
    };
    let rewards = [1.0, 2.0, 3.0];
    assert!(interval(Samples::new(&rewards).unwrap()).is_some());
    assert_eq!(interval(Samples::from_logits(&rewards, &[0.0; 3]).unwrap()), None);
    assert_eq!(interval(Samples::weighted(&rewards, &[1.0; 3]).unwrap()), None);
    assert_eq!(interval(Samples::new(&[1.0]).unwrap()), None);
    assert_eq!(interval(Samples::new(&[1.0, 1.0]).unwrap()), None);
}

proptest! {
    #![proptest_config(crate::common::config(2000))]

    #[test]
    fn an_interval_holds_its_own_estimate(case in crate::common::case(), c in crate::common::exponent()) {
        let samples = Samples::new(&case.rewards).unwrap();
        let threshold = Threshold::new(&samples, c).unwrap();
        let confidence = Confidence::new(0.9).unwrap();
        if let Some(interval) = confidence.interval(&samples, &threshold) {
            prop_assert!(interval.low <= threshold.value && interval.low.is_finite());
            prop_assert!(interval.high.is_none_or(|high| high >= threshold.value && high.is_finite()));
        }
    }
}
