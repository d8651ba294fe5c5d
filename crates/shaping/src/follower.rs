//! The follower: the best response of the language model to a shaped reward.

use crate::error::{Error, require, require_finite};
use crate::samples::Samples;

/// The follower's policy under a shaped reward, and its statistics.
///
/// The policy is the base policy tilted by the shaped reward `s`:
/// `rho_s(y) ∝ rho(y) exp(strength * s(y))`, with `strength = 1/beta`.
#[derive(Debug, Clone, PartialEq)]
pub struct Follower {
    /// The follower's mass on each response, in the order of the rewards; sums to 1.
    pub policy: Vec<f64>,
    /// Utility `E_{rho_s}[r]`: the expected unshaped reward, in reward units.
    pub utility: f64,
    /// `KL(rho_s || rho)` in nats.
    pub kl: f64,
    /// Effective sample size `1 / sum policy²`, between 1 and the number of responses.
    pub ess: f64,
}

impl Follower {
    /// The best response to the shaped rewards `shaped` (one per response) at `strength = 1/beta`.
    ///
    /// # Errors
    /// The strength is negative or not finite; a shaped reward is not finite; the lengths of `shaped` and the rewards
    /// differ.
    pub fn respond(samples: &Samples<'_>, shaped: &[f64], strength: f64) -> Result<Self, Error> {
        let rewards = samples.rewards();
        if shaped.len() != rewards.len() {
            let (found, expected) = (shaped.len(), rewards.len());
            return Err(Error::Length { what: "shaped", found, expected });
        }
        require_finite("shaped", shaped)?;
        require("strength", strength, valid_strength(strength), STRENGTH)?;

        let prior = samples.prior();
        let (tilts, log_z) = tilt(prior, shaped, strength);
        let policy: Vec<f64> = prior
            .iter()
            .zip(&tilts)
            .map(|(&p, &t)| if p > 0.0 { p * (t - log_z).exp() } else { 0.0 })
            .collect();
        let (top, bottom) = samples.support();
        let (mut below, mut kl, mut squares) = (0.0, 0.0, 0.0);
        for i in (0..rewards.len()).filter(|&i| prior[i] > 0.0) {
            below += policy[i] * (rewards[i] - top);
            kl += kl_term(prior[i], policy[i], tilts[i] - log_z);
            squares += policy[i] * policy[i];
        }
        let utility = (top + below).clamp(bottom, top);
        Ok(Self { policy, utility, kl: kl.max(0.0), ess: 1.0 / squares })
    }
}

/// `KL(rho_s || rho)` in nats for any prior and shaped rewards, as in [`Follower::respond`].
pub(crate) fn kl(prior: &[f64], shaped: &[f64], strength: f64) -> f64 {
    let (tilts, log_z) = tilt(prior, shaped, strength);
    let terms = prior.iter().zip(&tilts).filter(|&(&p, _)| p > 0.0);
    terms.map(|(&p, &t)| kl_term(p, p * (t - log_z).exp(), t - log_z)).sum::<f64>().max(0.0)
}

/// KL in nats of the hard threshold at exponent `c`, where the base policy's mass on the rewarded responses is
/// `mass`: `q c - ln(1 + mass (e^c - 1))`, with `q` the follower's mass on them.
pub(crate) fn kl_hard(mass: f64, c: f64) -> f64 {
    if c == f64::INFINITY { -mass.ln() } else { kl(&[mass, 1.0 - mass], &[c, 0.0], 1.0) }
}

/// Fused scores of a decoding step, `f_j = l_j + strength * s_j`: the follower's policy over the
/// candidates is the softmax of these scores. The result has the length of the shorter slice.
pub fn fuse(logits: &[f64], shaped: &[f64], strength: f64) -> Vec<f64> {
    logits.iter().zip(shaped).map(|(l, s)| l + strength * s).collect()
}

/// Index of the largest score, the first one among ties; `None` for an empty slice. NaN is chosen only if all scores
/// are NaN.
pub fn argmax(scores: &[f64]) -> Option<usize> {
    (0..scores.len()).reduce(
        |best, i| {
            if scores[i] > scores[best] || scores[best].is_nan() { i } else { best }
        },
    )
}

pub(crate) const STRENGTH: &str = "zero or more, and finite";

pub(crate) fn valid_strength(strength: f64) -> bool {
    (0.0..f64::INFINITY).contains(&strength)
}

/// Exponents `t_i = strength * (s_i - max s) <= 0` and `ln sum p_i exp(t_i)`, where the maximum is over responses of
/// positive mass.
fn tilt(prior: &[f64], shaped: &[f64], strength: f64) -> (Vec<f64>, f64) {
    let possible = prior.iter().zip(shaped).filter(|&(&p, _)| p > 0.0);
    let most = possible.map(|(_, &s)| s).fold(f64::NEG_INFINITY, f64::max);
    let tilts: Vec<f64> = shaped
        .iter()
        .map(|&s| if strength == 0.0 { 0.0 } else { (strength * (s - most)).min(0.0) })
        .collect();
    // expm1 and ln_1p keep precision for small tilts, where Z is close to 1.
    let z_minus_one: f64 = prior.iter().zip(&tilts).map(|(p, t)| p * t.exp_m1()).sum();
    let log_z = if z_minus_one > -0.5 {
        z_minus_one.ln_1p()
    } else {
        prior.iter().zip(&tilts).map(|(p, t)| p * t.exp()).sum::<f64>().ln()
    };
    (tilts, log_z)
}

/// One response's term of the KL, `w ln(w/p) - w + p >= 0`, with `x = ln(w/p)`. The terms `p - w` sum to zero; they
/// make every term non-negative, so that terms do not cancel. For small `x` a series avoids the cancellation between
/// `w x` and `p - w`.
pub(crate) fn kl_term(p: f64, w: f64, x: f64) -> f64 {
    if x.abs() < 0.05 {
        // p (x e^x - (e^x - 1)) = p sum_{n>=2} x^n (n-1)/n!
        let (mut power, mut sum) = (x, 0.0);
        for n in 2..12 {
            power *= x / f64::from(n);
            sum += power * f64::from(n - 1);
        }
        p * sum
    } else if w > 0.0 {
        w * x + (p - w)
    } else {
        p
    }
}
