//! The leader's threshold m*, in closed form, with a certificate.

use crate::error::{Error, require};
use crate::samples::Samples;

/// The threshold `m*` of the leader's optimal reward, and what proves it.
///
/// With exponent `c = B/beta`, the optimal shaped reward pays `B` where `r >= m*` and 0 elsewhere
/// (Theorem 1 of the paper), and `m*` is the unique root of
///
/// ```text
/// F(m) = E_{y~rho}[ w(m) (r - m) ],   w(m) = exp(c) where r >= m, else 1.
/// ```
///
/// `F(m*) = 0` says that `m*` is also the utility of the follower that sees this reward. So the root
/// needs no search: reward exactly the best `j` responses, and the follower's utility is
///
/// ```text
/// m_j = (S_j + e (S - S_j)) / (P_j + e (P - P_j)),   e = exp(-c),
/// ```
///
/// with `S_j`, `P_j` the sums of `p r` and `p` over the best `j`. The leader takes the best:
/// `m* = max_j m_j`. Since `m_j` is an average of `m_{j-1}` and `r_j`, the sequence rises for as long as
/// `r_j` lies above `m_{j-1}` and falls ever after, so one pass over sorted rewards finds it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// `m*`, in reward units: threshold and predicted utility at once, of the follower that feels the
    /// exponent below. (In the reference's budgets the follower feels more than that, and its utility is
    /// not `m*`.)
    pub value: f64,
    /// `F(m*) / E[w]`: that follower's utility minus `m*`, in reward units. Zero up to rounding.
    pub residual: f64,
    /// The smallest reward that is paid, among responses of positive mass.
    pub lowest_rewarded: f64,
    /// The largest reward that is not; `None` when all are paid.
    pub highest_unrewarded: Option<f64>,
    /// How many responses of positive mass are paid.
    pub above: usize,
    /// The base policy's mass on them.
    pub mass: f64,
    /// The exponent `c = B/beta` it was found with, in nats.
    pub exponent: f64,
}

impl Threshold {
    /// Finds `m*` for the exponent `c = B/beta` (nats; infinity is allowed and gives the best reward).
    ///
    /// # Errors
    /// `c` negative or NaN.
    pub fn new(samples: &Samples<'_>, c: f64) -> Result<Self, Error> {
        require("bound times strength", c, c >= 0.0, "zero or more")?;
        let ranked = samples.ranked();
        let (top, bottom) = samples.support();
        let span = top - bottom;
        let unit = if span > 0.0 { span } else { 1.0 };
        // u = (r - top) / span lies in [-1, 0]: every sum below adds terms of one sign, so nothing
        // cancels, whatever the offset or the scale of the rewards.
        let u = |reward: f64| (reward - top) / unit;
        let e = (-c).exp();

        let (mut all_u, mut all_mass) = (0.0, 0.0);
        for item in ranked {
            all_u += item.mass * u(item.reward);
            all_mass += item.mass;
        }
        let (mut sum_u, mut mass, mut above) = (0.0, 0.0, 0);
        let mut m = all_u / all_mass;
        for item in ranked {
            // The best response is always paid; equal rewards are paid together.
            if above > 0 && u(item.reward) < m && item.reward < ranked[above - 1].reward {
                break;
            }
            sum_u += item.mass * u(item.reward);
            mass += item.mass;
            above += 1;
            m = (sum_u + e * (all_u - sum_u)) / (mass + e * (all_mass - mass));
        }
        let mut threshold = Self {
            value: (top + unit * m).clamp(bottom, top),
            residual: 0.0,
            lowest_rewarded: ranked[above - 1].reward,
            highest_unrewarded: ranked.get(above).map(|item| item.reward),
            above,
            mass: mass / all_mass,
            exponent: c,
        };
        threshold.residual = threshold.gap(samples, e, unit);
        Ok(threshold)
    }

    /// Whether the optimal reward pays a response of this reward.
    ///
    /// Decided by the bracket, not by comparing with `m*`: where all rewards are equal, rounding puts
    /// `m*` above them as often as not. `m*` itself only decides inside the bracket, for rewards that
    /// no response of positive mass has.
    pub fn pays(&self, reward: f64) -> bool {
        let unpaid = self.highest_unrewarded.is_some_and(|most| reward <= most);
        reward >= self.lowest_rewarded || (!unpaid && reward >= self.value)
    }

    /// `F(m*) / E[w]` from the rewards as given and from [`Threshold::pays`] alone: it shares no sum
    /// with the search above, so it can certify it.
    fn gap(&self, samples: &Samples<'_>, e: f64, unit: f64) -> f64 {
        let (mut gap, mut total) = (0.0, 0.0);
        for (&reward, &mass) in samples.rewards().iter().zip(samples.prior()) {
            let weight = if self.pays(reward) { mass } else { e * mass };
            gap += weight * ((reward - self.value) / unit);
            total += weight;
        }
        unit * (gap / total)
    }
}
