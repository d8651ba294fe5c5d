//! Rewards of one prompt's responses with the base policy's mass on each.

use crate::error::{Error, require_finite};

/// Known responses: rewards `r_i` and the base policy's mass `p_i` on each.
///
/// Offline, these are `M` samples of one prompt, each of mass `1/M` ([`Samples::new`]). In token-level search they are
/// the `k` candidates of one step, whose masses are the softmax of their logits ([`Samples::from_logits`]). The
/// constructors check and sort the input once for all other functions of this crate.
#[derive(Debug, Clone)]
pub struct Samples<'a> {
    rewards: &'a [f64],
    prior: Vec<f64>,
    ranked: Vec<Ranked>,
    low: f64,
    high: f64,
    drawn: bool,
}

/// One response of positive mass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ranked {
    /// Its reward.
    pub(crate) reward: f64,
    /// Its prior mass.
    pub(crate) mass: f64,
}

impl<'a> Samples<'a> {
    /// `M` responses drawn from the base policy: mass `1/M` each.
    ///
    /// # Errors
    /// There are no rewards, a reward is NaN or infinite, or their span overflows `f64`.
    pub fn new(rewards: &'a [f64]) -> Result<Self, Error> {
        let mass = 1.0 / rewards.len() as f64;
        Self::build(rewards, vec![mass; rewards.len()], true)
    }

    /// Responses with weights of any positive scale, which are normalised to sum to 1. A response of weight zero is
    /// shaped but has no influence on thresholds and followers.
    ///
    /// # Errors
    /// As [`Samples::new`]; a weight is negative, NaN or infinite; all weights are zero; or the lengths differ.
    pub fn weighted(rewards: &'a [f64], weights: &[f64]) -> Result<Self, Error> {
        same_length("weights", weights.len(), rewards.len())?;
        require_finite("weights", weights)?;
        if let Some(index) = weights.iter().position(|&w| w < 0.0) {
            return Err(Error::NegativeWeight { index, value: weights[index] });
        }
        // Scaling by the largest weight avoids overflow and underflow.
        let most = weights.iter().copied().fold(0.0, f64::max);
        if most == 0.0 && !weights.is_empty() {
            return Err(Error::NoMass { what: "weights" });
        }
        let prior = normalised(weights.iter().map(|w| w / most).collect());
        Self::build(rewards, prior, false)
    }

    /// The `k` candidates of one decoding step, with masses softmax(logits) over the `k`. A logit of minus infinity (a
    /// masked token) has mass zero.
    ///
    /// # Errors
    /// As [`Samples::new`]; a logit is NaN or plus infinity; all logits are minus infinity; or the lengths differ.
    pub fn from_logits(rewards: &'a [f64], logits: &[f64]) -> Result<Self, Error> {
        same_length("logits", logits.len(), rewards.len())?;
        let bad = |l: &f64| l.is_nan() || *l == f64::INFINITY;
        if let Some(index) = logits.iter().position(bad) {
            return Err(Error::NotFinite { what: "logits", index, value: logits[index] });
        }
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if most == f64::NEG_INFINITY && !logits.is_empty() {
            return Err(Error::NoMass { what: "logits" });
        }
        let prior = normalised(logits.iter().map(|l| (l - most).exp()).collect());
        Self::build(rewards, prior, false)
    }

    /// Responses as files and requests give them: with weights, with logits, or with neither, as draws from the base policy.
    ///
    /// # Errors
    /// As [`Samples::new`], [`Samples::weighted`] and [`Samples::from_logits`]; both weights and logits are given.
    pub fn given(
        rewards: &'a [f64],
        weights: Option<&[f64]>,
        logits: Option<&[f64]>,
    ) -> Result<Self, Error> {
        match (weights, logits) {
            (None, None) => Self::new(rewards),
            (Some(weights), None) => Self::weighted(rewards, weights),
            (None, Some(logits)) => Self::from_logits(rewards, logits),
            (Some(_), Some(_)) => Err(Error::TwoPriors),
        }
    }

    fn build(rewards: &'a [f64], prior: Vec<f64>, drawn: bool) -> Result<Self, Error> {
        if rewards.is_empty() {
            return Err(Error::Empty);
        }
        require_finite("rewards", rewards)?;
        let low = rewards.iter().copied().fold(f64::INFINITY, f64::min);
        let high = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if !(high - low).is_finite() {
            return Err(Error::Span { low, high });
        }
        let mut ranked = Vec::with_capacity(rewards.len());
        let possible = rewards.iter().zip(&prior).filter(|&(_, &mass)| mass > 0.0);
        ranked.extend(possible.map(|(&reward, &mass)| Ranked { reward, mass }));
        // Best first. Ties are sorted by mass, so that sums do not depend on the input order.
        ranked.sort_unstable_by(|a: &Ranked, b: &Ranked| {
            b.reward.total_cmp(&a.reward).then_with(|| b.mass.total_cmp(&a.mass))
        });
        Ok(Self { rewards, prior, ranked, low, high, drawn })
    }

    /// The rewards, as given.
    pub fn rewards(&self) -> &'a [f64] {
        self.rewards
    }

    /// The base policy's mass on each response, in the order of the rewards. The masses sum to 1.
    pub fn prior(&self) -> &[f64] {
        &self.prior
    }

    /// Whether these are independent draws from the base policy ([`Samples::new`]) instead of an enumeration or a
    /// weighted set. Confidence intervals exist only for draws.
    pub fn drawn(&self) -> bool {
        self.drawn
    }

    /// Smallest reward, over all responses.
    pub fn min(&self) -> f64 {
        self.low
    }

    /// Largest reward, over all responses.
    pub fn max(&self) -> f64 {
        self.high
    }

    /// Largest minus smallest reward, over all responses.
    pub fn range(&self) -> f64 {
        self.high - self.low
    }

    /// Whether all responses of positive mass have the same reward, so that shaping has no effect.
    pub fn all_equal(&self) -> bool {
        let (top, bottom) = self.support();
        top == bottom
    }

    /// Unweighted mean of the rewards, used by `mean-soft` and `meanstd`.
    pub fn mean(&self) -> f64 {
        let n = self.rewards.len() as f64;
        let below = self.rewards.iter().map(|r| (r - self.high) / n).sum::<f64>();
        (self.high + below).clamp(self.low, self.high)
    }

    /// Unweighted population standard deviation of the rewards.
    pub fn std(&self) -> f64 {
        let (mean, range, n) = (self.mean(), self.range(), self.rewards.len() as f64);
        if range == 0.0 {
            return 0.0;
        }
        // In units of the range, since squares of large rewards overflow.
        let squares = self.rewards.iter().map(|r| ((r - mean) / range).powi(2)).sum::<f64>();
        (squares / n).sqrt() * range
    }

    /// The unweighted `q` quantile of the rewards, `q` in `[0, 1]`, interpolated linearly (NumPy's default).
    pub fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.rewards.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = q.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
        let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
        below + (above - below) * at.fract()
    }

    /// Responses of positive mass, best first. Never empty.
    pub(crate) fn ranked(&self) -> &[Ranked] {
        &self.ranked
    }

    /// Largest and smallest reward of responses of positive mass.
    pub(crate) fn support(&self) -> (f64, f64) {
        (self.ranked[0].reward, self.ranked[self.ranked.len() - 1].reward)
    }
}

fn same_length(what: &'static str, found: usize, expected: usize) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(Error::Length { what, found, expected }) }
}

/// Scales masses to sum to 1. Masses below the normal range of `f64` become zero, since their odds would overflow.
fn normalised(mut masses: Vec<f64>) -> Vec<f64> {
    let total: f64 = masses.iter().sum();
    for mass in &mut masses {
        *mass /= total;
        if *mass < f64::MIN_POSITIVE {
            *mass = 0.0;
        }
    }
    masses
}
