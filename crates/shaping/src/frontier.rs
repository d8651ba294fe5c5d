//! The most that any shaped reward can get the user: at a given bound, and at a given KL.

use crate::error::{Error, require};
use crate::follower::{Follower, kl_term};
use crate::samples::Samples;
use crate::threshold::Threshold;

/// The two limits on what a leader can achieve with these responses, whatever it shows the follower.
///
/// - **At a bound.** If `s` spans at most `B`, then `E_{rho_s}[r] <= U(hard at c = B/beta)`: Theorem 1.
/// - **At a KL.** `E_q[r] <= U(raw at t)` for every policy `q` with `KL(q || rho) <= KL(raw at t)`: Gibbs'
///   variational principle.
///
/// Both hold prompt by prompt, for the exact follower. [`Frontier::margins`] says by how much a shaped
/// reward stays below them: never less than nothing, but for [`Frontier::rounding`].
#[derive(Debug, Clone)]
pub struct Frontier<'s, 'r> {
    samples: &'s Samples<'r>,
    /// Best and worst possible reward.
    top: f64,
    bottom: f64,
    /// The base policy's mean and variance, in units of the span with the best reward at 0.
    mean: f64,
    variance: f64,
    /// `-ln P(best)`, the most KL that makes a difference.
    most_kl: f64,
}

/// How far a follower stays below the two frontiers, in reward units.
#[derive(Debug, Clone, PartialEq)]
pub struct Margins {
    /// The follower.
    pub follower: Follower,
    /// What the shaped rewards really span, times strength: nats.
    pub bound: f64,
    /// `U(hard at that bound) - U`.
    pub below_hard: f64,
    /// `U(raw at the follower's KL) - U`.
    pub below_raw: f64,
}

/// The follower of raw rewards at one strength, in units of the span.
struct Raw {
    log_z: f64,
    kl: f64,
    variance: f64,
}

impl<'s, 'r> Frontier<'s, 'r> {
    /// The frontiers of these responses.
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

    /// The most utility, in reward units, of a follower whose shaped rewards span `c` nats of
    /// `B/beta`: that of the hard threshold.
    ///
    /// # Errors
    /// `c` negative or NaN.
    pub fn by_bound(&self, c: f64) -> Result<f64, Error> {
        let hard = Threshold::new(self.samples, c)?;
        Ok(hard.value + hard.residual)
    }

    /// The most utility, in reward units, of a policy within `nats` of KL from the base: that of the raw
    /// reward at the strength which spends them, `min_t (ln E_rho[exp(t r)] + KL) / t`.
    ///
    /// Every `t` gives an upper limit, the right one the limit itself, and near it the error is of second
    /// order: a few of Newton's steps suffice.
    ///
    /// # Errors
    /// `nats` negative or NaN.
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
            // Newton's step in ln t; what it still changes in the limit is half its square, times t V.
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

    /// How far the follower of `shaped` (one per response) at `strength` stays below both frontiers.
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

    /// By how much margins may fall below zero in f64, in reward units: `1e-13` of the span of the rewards,
    /// what adding up many of them takes, and what an offset takes from their digits.
    pub fn rounding(&self) -> f64 {
        let sums = f64::EPSILON * self.samples.rewards().len() as f64;
        let offset = f64::EPSILON * self.top.abs().max(self.bottom.abs());
        (1e-13 + sums) * (self.top - self.bottom) + 8.0 * offset + 8.0 * f64::MIN_POSITIVE
    }

    /// Largest minus smallest of values that are one per response, over responses of positive mass.
    pub fn span(&self, values: &[f64]) -> f64 {
        let possible = values.iter().zip(self.samples.prior()).filter(|&(_, &p)| p > 0.0);
        let (low, high) = possible
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (&v, _)| (low.min(v), high.max(v)));
        if high > low { high - low } else { 0.0 }
    }

    /// A reward in units of the span, the best at 0, the worst at -1.
    fn unit(&self, reward: f64) -> f64 {
        if self.top > self.bottom { (reward - self.top) / (self.top - self.bottom) } else { 0.0 }
    }

    fn raw(&self, t: f64) -> Raw {
        let ranked = self.samples.ranked();
        let z_less_one: f64 = ranked.iter().map(|x| x.mass * (t * self.unit(x.reward)).exp_m1()).sum();
        let log_z = match z_less_one > -0.5 {
            true => z_less_one.ln_1p(),
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
