//! Upper limits on the utility of any shaped reward, at a given bound and at a given KL.

use crate::error::{Error, require};
use crate::follower::{Follower, kl_term};
use crate::samples::Samples;
use crate::threshold::Threshold;

/// Two upper limits on the utility with these responses, for any shaped reward.
///
/// - **At a bound.** If `max s - min s <= B`, then `E_{rho_s}[r] <= U(hard at c = B/beta)` (Theorem 1).
/// - **At a KL.** `E_q[r] <= U(raw at t)` for every policy `q` with `KL(q || rho) <= KL(raw at t)`
///   (Gibbs' variational principle).
///
/// Both hold for each prompt and for the exact follower. [`Frontier::margins`] gives the distance of a shaped reward
/// from them, which is non-negative up to [`Frontier::rounding`].
#[derive(Debug, Clone)]
pub struct Frontier<'s, 'r> {
    samples: &'s Samples<'r>,
    /// Largest and smallest reward of positive mass.
    top: f64,
    bottom: f64,
    /// The base policy's mean and variance of the reward, in units of [`Frontier::unit`].
    mean: f64,
    variance: f64,
    /// `-ln P(best)`: with this KL all mass is on the best responses.
    most_kl: f64,
}

/// Distances of a follower from the two limits, in reward units.
#[derive(Debug, Clone, PartialEq)]
pub struct Margins {
    /// The follower.
    pub follower: Follower,
    /// The span of the shaped rewards times the strength, in nats.
    pub bound: f64,
    /// `U(hard at that bound) - U`.
    pub below_hard: f64,
    /// `U(raw at the follower's KL) - U`.
    pub below_raw: f64,
}

/// The follower of the raw rewards at one strength, in units of [`Frontier::unit`].
struct Raw {
    log_z: f64,
    kl: f64,
    variance: f64,
}

impl<'s, 'r> Frontier<'s, 'r> {
    /// The limits for these responses.
    pub fn new(samples: &'s Samples<'r>) -> Self {
        let (top, bottom) = samples.support();
        let best = samples.ranked().iter().take_while(|x| x.reward == top).map(|x| x.mass).sum::<f64>();
        let mut frontier =
            Self { samples, top, bottom, mean: 0.0, variance: 0.0, most_kl: (-best.ln()).max(0.0) };
        for x in samples.ranked() {
            frontier.mean += x.mass * frontier.unit(x.reward);
        }
        for x in samples.ranked() {
            frontier.variance += x.mass * (frontier.unit(x.reward) - frontier.mean).powi(2);
        }
        frontier
    }

    /// The responses.
    pub fn samples(&self) -> &'s Samples<'r> {
        self.samples
    }

    /// The largest utility, in reward units, at the bound `c = B/beta` in nats: the utility of the hard threshold.
    ///
    /// # Errors
    /// `c` is negative or NaN.
    pub fn by_bound(&self, c: f64) -> Result<f64, Error> {
        let hard = Threshold::new(self.samples, c)?;
        Ok(hard.value + hard.residual)
    }

    /// The largest utility, in reward units, of any policy within `nats` of KL from the base policy:
    /// `min_t (ln E_rho[exp(t r)] + nats) / t`. The raw reward attains it at the minimising strength `t`.
    ///
    /// Every `t` gives an upper limit, and near the minimum the error is of second order in `t`, so that a few Newton
    /// steps suffice.
    ///
    /// # Errors
    /// `nats` is negative or NaN.
    pub fn by_kl(&self, nats: f64) -> Result<f64, Error> {
        require("KL", nats, nats >= 0.0, "zero or more")?;
        if nats >= self.most_kl || self.variance == 0.0 {
            return Ok(self.top);
        }
        let rewards = |u: f64| self.top + (self.top - self.bottom) * u;
        let mut t = (2.0 * nats / self.variance).sqrt();
        if t < f64::MIN_POSITIVE {
            return Ok(rewards(self.mean));
        }
        let (mut best, mut low, mut high) = (0.0f64, 0.0, f64::INFINITY);
        for _ in 0..100 {
            let raw = self.raw(t);
            best = best.min((raw.log_z + nats) / t);
            let off = (raw.kl / nats).ln();
            if off < 0.0 {
                low = t
            } else {
                high = t
            }
            // A Newton step in ln t. It changes the limit by half its square times t V.
            let step = off * raw.kl / (t * t * raw.variance);
            if !step.is_finite() || 0.5 * step * step * t * raw.variance < 1e-17 {
                break;
            }
            let mut next = t * (-step.clamp(-1.5, 1.5)).exp();
            if !(low..high).contains(&next) || next == low {
                next = low + (high - low) / 2.0;
            }
            if next <= low || next >= high {
                break;
            }
            t = next;
        }
        Ok(rewards(best))
    }

    /// The distances of the follower of `shaped` (one value per response) at `strength` from both limits.
    ///
    /// # Errors
    /// As [`Follower::respond`].
    pub fn margins(&self, shaped: &[f64], strength: f64) -> Result<Margins, Error> {
        let follower = Follower::respond(self.samples, shaped, strength)?;
        let bound = strength * self.span(shaped);
        let below_hard = self.by_bound(bound)? - follower.utility;
        let below_raw = self.by_kl(follower.kl)? - follower.utility;
        Ok(Margins { follower, bound, below_hard, below_raw })
    }

    /// How far margins can fall below zero by rounding in `f64`, in reward units: `1e-13` of the span of the rewards,
    /// plus the errors of long sums and of a large offset.
    pub fn rounding(&self) -> f64 {
        let sums = f64::EPSILON * self.samples.rewards().len() as f64;
        let offset = f64::EPSILON * self.top.abs().max(self.bottom.abs());
        (1e-13 + sums) * (self.top - self.bottom) + 8.0 * offset + 8.0 * f64::MIN_POSITIVE
    }

    /// Largest minus smallest of `values` (one per response) over responses of positive mass.
    pub fn span(&self, values: &[f64]) -> f64 {
        let possible = values.iter().zip(self.samples.prior()).filter(|&(_, &p)| p > 0.0);
        let (low, high) = possible
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (&v, _)| (low.min(v), high.max(v)));
        if high > low { high - low } else { 0.0 }
    }

    /// A reward in units of the span: 0 for the best, -1 for the worst.
    fn unit(&self, reward: f64) -> f64 {
        if self.top > self.bottom { (reward - self.top) / (self.top - self.bottom) } else { 0.0 }
    }

    fn raw(&self, t: f64) -> Raw {
        let ranked = self.samples.ranked();
        let z_minus_one: f64 = ranked.iter().map(|x| x.mass * (t * self.unit(x.reward)).exp_m1()).sum();
        let log_z = match z_minus_one > -0.5 {
            true => z_minus_one.ln_1p(),
            false => ranked.iter().map(|x| x.mass * (t * self.unit(x.reward)).exp()).sum::<f64>().ln(),
        };
        let (mut kl, mut mean, mut square) = (0.0, 0.0, 0.0);
        for x in ranked {
            let u = self.unit(x.reward);
            let w = x.mass * (t * u - log_z).exp();
            kl += kl_term(x.mass, w, t * u - log_z);
            mean += w * u;
            square += w * u * u;
        }
        Raw { log_z, kl, variance: square - mean * mean }
    }
}
