//! When to stop drawing samples ([`Settings::token_price`](crate::Settings::token_price)).
//!
//! Samples are drawn in rounds of [`ROUND`]. After a round, the expected gain of one more sample is computed from the
//! rewards so far: `E[max(X - best, 0)]`, the expected improvement of Bayesian optimisation (Jones, Schonlau and Welch
//! 1998). Rewards are modelled as normal with unknown mean and variance: given the variance, `X` is normal with the mean of the
//! `m` rewards and `1 + 1/m` times the variance; the variance is `v (m - 1) / chi²_{m-1}`, where `v` is the unbiased variance of
//! the rewards (so `X` has Student's t distribution). Taking `v` for the variance would stop where it is small by chance.
//! Drawing stops when this gain is less than the price of a token times the mean number of tokens of a sample.
//!
//! Whether sample `i` is drawn depends on the samples before it only. So the chosen answer has at most `E[N]` times the
//! probability that the base policy gives it, `N` being the number of samples drawn, and its KL is at most `ln E[N]`.

use statrs::distribution::{ChiSquared, ContinuousCDF, Normal};

use crate::settings::Settings;

/// Samples that are drawn before the rule is applied, and between two applications.
const ROUND: usize = 4;

/// Samples to draw before the rule is applied for the first time.
pub(crate) fn first(settings: &Settings) -> usize {
    settings.price_in_force().map_or(settings.samples, |_| settings.samples.min(ROUND))
}

/// Further samples to draw after those of these rewards, which have `tokens` tokens in the mean. 0 if all are drawn, or if one
/// more is expected to gain less than its tokens cost.
pub(crate) fn further(settings: &Settings, rewards: &[f64], tokens: f64) -> usize {
    let left = settings.samples.saturating_sub(rewards.len());
    match settings.price_in_force() {
        Some(price) if left > 0 && !stops(rewards, tokens, price) => left.min(ROUND),
        _ => 0,
    }
}

/// Whether to stop: one more sample, of `tokens` tokens, is expected to gain less than it costs.
fn stops(rewards: &[f64], tokens: f64, price: f64) -> bool {
    expected_gain(rewards, 1) < price * tokens
}

/// What stopping early saved and lost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Saved {
    /// Tokens of the samples that were not drawn.
    pub(crate) tokens: f64,
    /// What these samples would be expected to gain, in reward units.
    pub(crate) reward: f64,
}

impl Saved {
    /// The samples that were not drawn after those of these rewards, which have `tokens` tokens in the mean.
    pub(crate) fn new(settings: &Settings, rewards: &[f64], tokens: f64) -> Self {
        let left = settings.samples.saturating_sub(rewards.len());
        Self { tokens: left as f64 * tokens, reward: expected_gain(rewards, left) }
    }
}

impl std::ops::AddAssign for Saved {
    fn add_assign(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.reward += other.reward;
    }
}

/// The expected gain of `more` further samples over the best so far, in reward units:
/// `E[max(X_1, ..., X_more) - best]` over its positive part, each `X` as above. 0 for fewer than two rewards; for two, whose
/// `X` would have no mean, the variance is taken as known.
pub(crate) fn expected_gain(rewards: &[f64], more: usize) -> f64 {
    let n = rewards.len() as f64;
    let best = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mean = rewards.iter().sum::<f64>() / n;
    let variance = rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let deviation = (variance * (1.0 + 1.0 / n)).sqrt();
    if more == 0 || !(deviation > 0.0 && deviation.is_finite()) {
        return 0.0;
    }
    match ChiSquared::new(n - 1.0) {
        Ok(chi_squared) if rewards.len() > 2 => {
            let scale = |node: usize| {
                let quantile = chi_squared.inverse_cdf((node as f64 + 0.5) / NODES as f64);
                ((n - 1.0) / quantile).sqrt()
            };
            let gains =
                (0..NODES).map(|node| gain_of_normal(best - mean, deviation * scale(node), more));
            gains.sum::<f64>() / NODES as f64
        }
        _ => gain_of_normal(best - mean, deviation, more),
    }
}

/// Nodes of the quadrature over the variance: equally likely values of `chi²`.
const NODES: usize = 32;

/// `E[max(X_1, ..., X_more) - ahead]` over its positive part, for normal `X` with mean 0 and this deviation.
fn gain_of_normal(ahead: f64, deviation: f64, more: usize) -> f64 {
    // The integral of P(max > t) over t from `ahead`, by Simpson's rule, in units of the deviation.
    const INTERVALS: usize = 200;
    const WIDTH: f64 = 8.0;
    let normal = Normal::standard();
    let from = ahead / deviation;
    let above = |i: usize| {
        let z = from + WIDTH * i as f64 / INTERVALS as f64;
        // 1 - (1 - tail)^more without cancellation.
        -f64::exp_m1(more as f64 * f64::ln_1p(-normal.sf(z)))
    };
    let weight = |i: usize| match i {
        0 | INTERVALS => 1.0,
        i if i % 2 == 1 => 4.0,
        _ => 2.0,
    };
    let sum: f64 = (0..=INTERVALS).map(|i| weight(i) * above(i)).sum();
    deviation * sum * WIDTH / (3.0 * INTERVALS as f64)
}

/// A bound on the KL of a choice among `drawn` samples of at most `samples`, in nats, where drawing may stop early:
/// `ln M - 1 + N/M`. Its mean over answers is at least `ln E[N]`, since it is a tangent of the logarithm.
pub(crate) fn kl_of_stopping(drawn: usize, samples: usize) -> f64 {
    let all = samples as f64;
    all.ln() - 1.0 + drawn as f64 / all
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha12Rng;
    use statrs::distribution::{Continuous, StudentsT};

    use super::*;
    use crate::method::{Keep, Method};

    #[test]
    fn the_gain_of_one_more_is_the_expected_improvement() {
        // Mean 1.5, variance 5/3, predictive scale sqrt(25/12), z = 1.5 / that.
        let s = (25.0f64 / 12.0).sqrt();
        let z = 1.5 / s;
        let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let normal = s * (density - z * Normal::standard().sf(z));
        let found = gain_of_normal(1.5, s, 1);
        assert!((found - normal).abs() < 1e-6, "{found} {normal}");
        // The closed form for Student's t with 3 degrees of freedom. The quadrature leaves out a little of its tail.
        let t = StudentsT::new(0.0, 1.0, 3.0).expect("a distribution");
        let closed = s * ((3.0 + z * z) / 2.0 * t.pdf(z) - z * t.sf(z));
        let found = expected_gain(&[0.0, 1.0, 2.0, 3.0], 1);
        assert!(found > 0.93 * closed && found < closed && closed > 1.5 * normal, "{found} {closed}");
        // Another offset and scale.
        let scaled = expected_gain(&[-7.0, -5.0, -3.0, -1.0], 1);
        assert!((scaled - 2.0 * found).abs() < 1e-6, "{scaled}");
    }

    #[test]
    fn the_loss_is_what_is_lost_in_the_mean() {
        let mut rng = ChaCha12Rng::seed_from_u64(3);
        let settings =
            Settings { method: Method::BestOfN, samples: 16, token_price: 0.01, ..Settings::default() };
        let (mut said, mut lost, mut stopped) = (0.0, 0.0, 0);
        for _ in 0..1500 {
            // Sums of twelve uniform numbers are nearly normal. The scale differs between prompts.
            let scale = 0.5 + rng.random::<f64>();
            let draw = |rng: &mut ChaCha12Rng| {
                scale * ((0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0)
            };
            let all: Vec<f64> = (0..16).map(|_| draw(&mut rng)).collect();
            let mut drawn = first(&settings);
            while let more @ 1.. = further(&settings, &all[..drawn], 10.0) {
                drawn += more;
            }
            let best = |rewards: &[f64]| rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            said += Saved::new(&settings, &all[..drawn], 10.0).reward;
            lost += best(&all) - best(&all[..drawn]);
            stopped += usize::from(drawn < 16);
        }
        // With the sample variance for the variance, the loss that is said is half of this.
        assert!(stopped > 500 && (said / lost - 1.0).abs() < 0.15, "{said} {lost} {stopped}");
    }

    #[test]
    fn more_samples_gain_more_but_less_each() {
        let rewards = [0.3, -1.0, 0.9, 0.2, 0.1];
        let gains: Vec<f64> = [0, 1, 2, 4, 8].map(|more| expected_gain(&rewards, more)).to_vec();
        assert_eq!(gains[0], 0.0);
        for pair in gains[1..].windows(2) {
            assert!(pair[1] > pair[0] && pair[1] < 2.0 * pair[0], "{gains:?}");
        }
    }

    #[test]
    fn equal_rewards_and_one_reward_promise_nothing() {
        assert_eq!(expected_gain(&[2.0; 4], 12), 0.0);
        assert_eq!(expected_gain(&[2.0], 12), 0.0);
        assert!(stops(&[2.0; 4], 16.0, 1e-9));
    }

    #[test]
    fn a_higher_price_stops_earlier() {
        let rewards = [0.0, 1.0, 2.0, 3.0];
        let gain = expected_gain(&rewards, 1);
        assert!(!stops(&rewards, 10.0, 0.99 * gain / 10.0));
        assert!(stops(&rewards, 10.0, 1.01 * gain / 10.0));
    }

    #[test]
    fn only_methods_that_keep_the_best_stop() {
        for method in Method::ALL {
            for keep in Keep::ALL {
                let settings =
                    Settings { method, keep, token_price: 1e9, samples: 10, ..Settings::default() };
                let best = match method {
                    Method::BestOfN => true,
                    Method::Blockwise => keep == Keep::Best,
                    _ => false,
                };
                assert_eq!(first(&settings), if best { 4 } else { 10 }, "{method} {keep}");
                assert_eq!(further(&settings, &[0.0, 1.0, 2.0, 3.0], 1.0), 0);
                let cheap = Settings { token_price: 1e-12, ..settings };
                for (drawn, more) in [(4, 4), (8, 2), (10, 0)] {
                    let rewards: Vec<f64> = (0..drawn).map(f64::from).collect();
                    assert_eq!(further(&cheap, &rewards, 1.0), if best { more } else { 0 });
                }
            }
        }
    }

    #[test]
    fn the_bound_on_the_kl_holds_in_the_mean() {
        // N is 4 or 16 with equal probability: ln E[N] is ln 10.
        let mean = 0.5 * (kl_of_stopping(4, 16) + kl_of_stopping(16, 16));
        assert!(mean >= 10.0f64.ln() && mean < 10.0f64.ln() + 0.1, "{mean}");
        assert_eq!(kl_of_stopping(16, 16), 16.0f64.ln());
    }
}
