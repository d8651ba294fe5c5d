//! The threshold `m*` of the optimal shaped reward, in closed form, with a certificate.

use crate::error::{Error, require};
use crate::samples::Samples;

/// The threshold `m*` of the optimal shaped reward, with a certificate.
///
/// With exponent `c = B/beta`, the optimal shaped reward is `B` where `r >= m*` and 0 elsewhere (Theorem 1 of the
/// paper), and `m*` is the unique root of
///
/// ```text
/// F(m) = E_{y~rho}[ w(m) (r - m) ],   w(m) = exp(c) where r >= m, else 1.
/// ```
///
/// `F(m*) = 0` means that `m*` is also the utility of the follower of this reward. Therefore no root finding is needed.
/// If exactly the best `j` responses are rewarded, the follower's utility is
///
/// ```text
/// m_j = (S_j + e (S - S_j)) / (P_j + e (P - P_j)),   e = exp(-c),
/// ```
///
/// with `S_j`, `P_j` the sums of `p r` and `p` over the best `j`, and `S`, `P` over all. Then `m* = max_j m_j`. Since
/// `m_j` is an average of `m_{j-1}` and `r_j`, the sequence rises while `r_j > m_{j-1}` and falls afterwards, so one
/// pass over the sorted rewards finds the maximum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// `m*`, in reward units: the threshold, and the utility of the follower at the exponent below. (In the reference
    /// budgets the follower responds to a larger exponent, and its utility is not `m*`.)
    pub value: f64,
    /// `F(m*) / E[w]`: the utility of that follower minus `m*`, in reward units. Zero up to rounding.
    pub residual: f64,
    /// The smallest rewarded reward, among responses of positive mass.
    pub lowest_rewarded: f64,
    /// The largest reward that is not rewarded; `None` if all are.
    pub highest_unrewarded: Option<f64>,
    /// Number of rewarded responses of positive mass.
    pub above: usize,
    /// The base policy's mass on the rewarded responses.
    pub mass: f64,
    /// The exponent `c = B/beta`, in nats.
    pub exponent: f64,
}

impl Threshold {
    /// Computes `m*` for the exponent `c = B/beta` in nats. For `c` infinite, `m*` is the best reward.
    ///
    /// # Errors
    /// `c` is negative or NaN.
    pub fn new(samples: &Samples<'_>, c: f64) -> Result<Self, Error> {
        require("bound times strength", c, c >= 0.0, "zero or more")?;
        let ranked = samples.ranked();
        let (top, bottom) = samples.support();
        let span = top - bottom;
        let unit = if span > 0.0 { span } else { 1.0 };
        // u = (r - top) / span is in [-1, 0]. All sums below add terms of one sign, so that there is no cancellation
        // for any offset or scale of the rewards.
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
            // The best response is always rewarded, and equal rewards are treated alike.
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

    /// Whether the optimal shaped reward is `B`, and not 0, for a response of this reward.
    ///
    /// This compares with the bracket of neighbouring rewards instead of with `m*`: if all rewards are equal, rounding
    /// can put `m*` above them. `m*` decides only inside the bracket, for rewards that no response of positive mass
    /// has.
    pub fn pays(&self, reward: f64) -> bool {
        let unpaid = self.highest_unrewarded.is_some_and(|most| reward <= most);
        reward >= self.lowest_rewarded || (!unpaid && reward >= self.value)
    }

    /// `F(m*) / E[w]`, computed from the unsorted rewards and [`Threshold::pays`]. It shares no sum with the search
    /// above, so that it is an independent check.
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
