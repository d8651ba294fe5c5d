//! Confidence intervals for `m*` from the samples of a prompt.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use crate::error::{Error, require};
use crate::samples::{Ranked, Samples};
use crate::threshold::Threshold;

/// A confidence interval for the threshold of the population that the samples were drawn from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Simulated worst-case coverage of such intervals, below the nominal level. See [`Confidence`].
    pub level: f64,
    /// Low end, in reward units.
    pub low: f64,
    /// High end, in reward units. `None` if fewer than two samples would lie above it; the interval is then
    /// one-sided.
    pub high: Option<f64>,
}

/// Computes intervals for `m*` at one nominal level of confidence.
///
/// # Method
///
/// `F(m)` is estimated by the mean of the independent terms `g_i(m) = w_i(m) (r_i - m)`. Starting from the estimate and
/// going outwards, a threshold `m` belongs to the interval while `|mean g(m)| <= t se(m)`. Between neighbouring
/// rewards this is a quadratic inequality, which is solved exactly.
///
/// Two corrections matter for large exponents, where only the few samples above `m` have weight. First, Student's `t`
/// has `(sum w²)² / sum w⁴ - 1` degrees of freedom instead of `M - 1` (Satterthwaite's rule for a variance of terms
/// of weight `w`), with the weights at the threshold under test. Second, the high end is given only if two samples
/// lie above it. Without them, nominal 90 percent intervals of `M = 10` normal rewards at `c = 5` cover 28 percent,
/// since no sample lies near `m*`.
///
/// # Simulated coverage
///
/// Share of nominal 90 percent intervals that contain the true `m*`, 2,000 intervals each, for normal / exponential
/// rewards. An interval without a high end contains all values above its low end.
///
/// | c | M = 5 | M = 10 | M = 30 | M = 100 |
/// |---|---|---|---|---|
/// | 0.5 | 0.98 / 1.00 | 0.90 / 0.85 | 0.90 / 0.87 | 0.90 / 0.90 |
/// | 1 | 0.99 / 1.00 | 0.92 / 0.88 | 0.90 / 0.87 | 0.90 / 0.89 |
/// | 2 | 1.00 / 1.00 | 0.99 / 1.00 | 0.91 / 0.86 | 0.90 / 0.88 |
/// | 5 | 1.00 / 1.00 | 1.00 / 1.00 | 0.98 / 0.98 | 0.90 / 0.89 |
/// | 12 | 1.00 / 1.00 | 1.00 / 1.00 | 1.00 / 1.00 | 1.00 / 1.00 |
///
/// [`Interval::level`] is the smallest coverage over normal, uniform, exponential, negated exponential and bimodal
/// rewards, `c` from 0.25 to 12 and `M` from 5 to 300:
///
/// | nominal | 0.50 | 0.80 | 0.90 | 0.95 | 0.99 |
/// |---|---|---|---|---|---|
/// | level | 0.47 | 0.76 | 0.835 | 0.875 | 0.935 |
///
/// Rewards with a heavier right tail have lower coverage: for log-normal rewards it is 77 percent in the worst case,
/// at nominal 90. `tests/interval.rs` computes and checks these numbers.
#[derive(Debug, Clone)]
pub struct Confidence {
    level: f64,
    /// Student's t quantiles for 1 to `t.len()` degrees of freedom.
    t: Vec<f64>,
    /// The quantile for infinitely many degrees of freedom.
    z: f64,
}

/// Share of intervals that miss `m*`: nominal, and in the worst simulated case, rounded up.
const MISSES: [(f64, f64); 5] =
    [(0.01, 0.065), (0.05, 0.125), (0.10, 0.165), (0.20, 0.24), (0.50, 0.53)];

/// Above this many degrees of freedom, Student's quantile is interpolated linearly in their inverse.
const TABLE: usize = 100;

impl Confidence {
    /// Intervals of nominal confidence `level`.
    ///
    /// # Errors
    /// The level is below 0.5 or above 0.99, where coverage was not simulated.
    pub fn new(level: f64) -> Result<Self, Error> {
        let (fewest, most) = (1.0 - MISSES[MISSES.len() - 1].0, 1.0 - MISSES[0].0);
        require("level", level, (fewest..=most).contains(&level), "between 0.5 and 0.99")?;
        let at = 0.5 + level / 2.0;
        let t = (1..=TABLE)
            .map(|dof| StudentsT::new(0.0, 1.0, dof as f64).map_or(f64::INFINITY, |t| t.inverse_cdf(at)))
            .collect();
        Ok(Self { level: simulated(level), t, z: Normal::standard().inverse_cdf(at) })
    }

    /// The simulated worst-case coverage of these intervals; see [`Interval::level`].
    pub fn level(&self) -> f64 {
        self.level
    }

    /// The interval for a threshold of these samples. `None` if the responses are an enumeration or weighted instead of
    /// drawn, or if all rewards are equal.
    pub fn interval(&self, samples: &Samples<'_>, threshold: &Threshold) -> Option<Interval> {
        let (top, bottom) = samples.support();
        if !samples.drawn() || top == bottom {
            return None;
        }
        let span = top - bottom;
        let (low, high) = Inversion::new(samples.ranked(), top, span, threshold).walk(threshold, self);
        Some(Interval { level: self.level, low: top + span * low, high: high.map(|h| top + span * h) })
    }

    /// Student's quantile for any number of degrees of freedom; infinite below one.
    fn quantile(&self, dof: f64) -> f64 {
        if dof < 1.0 {
            return f64::INFINITY;
        }
        let below = dof.floor() as usize;
        let (from, to, share) = if below >= TABLE {
            (self.t[TABLE - 1], self.z, 1.0 - TABLE as f64 / dof)
        } else {
            let next = self.t.get(below).copied().unwrap_or(self.z);
            (self.t[below - 1], next, dof - dof.floor())
        };
        from + (to - from) * share
    }
}

/// The simulated coverage at a nominal level, interpolated linearly between the simulated levels.
fn simulated(level: f64) -> f64 {
    let asked = 1.0 - level;
    let next = MISSES.iter().position(|&(a, _)| asked <= a).unwrap_or(MISSES.len() - 1).max(1);
    let ((a0, s0), (a1, s1)) = (MISSES[next - 1], MISSES[next]);
    1.0 - (s0 + (s1 - s0) * (asked - a0) / (a1 - a0))
}

/// The test of thresholds, in units of the span of the rewards, with the best reward at 0.
struct Inversion {
    u: Vec<f64>,
    estimate: f64,
    e: f64,
}

/// `z - 2 y m + x m² <= 0` accepts `m`.
struct Quadratic {
    x: f64,
    y: f64,
    z: f64,
}

impl Inversion {
    fn new(ranked: &[Ranked], top: f64, span: f64, threshold: &Threshold) -> Self {
        Self {
            u: ranked.iter().map(|x| (x.reward - top) / span).collect(),
            estimate: (threshold.value - top) / span,
            e: (-threshold.exponent).exp(),
        }
    }

    /// Walks from the estimate down and up to the first rejected thresholds.
    fn walk(&self, threshold: &Threshold, confidence: &Confidence) -> (f64, Option<f64>) {
        let n = self.u.len();
        // In segment j, from u[j] to u[j - 1], exactly the best j rewards are at or above the threshold.
        let tests = self.quadratics(confidence);
        let low = (threshold.above..=n).find_map(|j| {
            let to = self.estimate.min(self.u[j - 1]);
            let from = self.u.get(j).copied().unwrap_or(f64::NEG_INFINITY);
            tests[j - 1].last_rejected(from, to)
        });
        let high = (2..=threshold.above).rev().find_map(|j| {
            let from = self.u.get(j).copied().unwrap_or(f64::NEG_INFINITY).max(self.estimate);
            tests[j - 1].first_rejected(from, self.u[j - 1])
        });
        // Thresholds far enough below all rewards are always rejected.
        (low.unwrap_or(self.u[n - 1]), high)
    }

    /// The test of each segment, in which the best 1, 2, ... are rewarded: `(sum g)² (n - 1 + t²) <= n t² sum g²` with
    /// `sum g = a - b m`.
    fn quadratics(&self, confidence: &Confidence) -> Vec<Quadratic> {
        let n = self.u.len() as f64;
        let (e, e2) = (self.e, self.e * self.e);
        let all: f64 = self.u.iter().sum();
        let all_squares: f64 = self.u.iter().map(|u| u * u).sum();
        let (mut sum, mut squares) = (0.0, 0.0);
        let best = self.u.iter().enumerate();
        best.map(|(before, u)| {
            sum += u;
            squares += u * u;
            let j = (before + 1) as f64;
            let b = j + e * (n - j);
            let weight_squares = j + e2 * (n - j);
            let t = confidence.quantile(weight_squares * weight_squares / (j + e2 * e2 * (n - j)) - 1.0);
            let k = (1.0 + (n - 1.0) / (t * t)) / n;
            let a = sum + e * (all - sum);
            let cross = sum + e2 * (all - sum);
            Quadratic {
                x: k * b * b - weight_squares,
                y: k * a * b - cross,
                z: k * a * a - (squares + e2 * (all_squares - squares)),
            }
        })
        .collect()
    }
}

impl Quadratic {
    fn accepts(&self, m: f64) -> bool {
        (self.x * m - 2.0 * self.y) * m + self.z <= 0.0
    }

    fn roots(&self) -> impl Iterator<Item = f64> {
        // NaN if all thresholds are accepted, or none: then there is no root.
        let root = (self.y * self.y - self.x * self.z).sqrt();
        let w = self.y + root.copysign(self.y);
        [w / self.x, self.z / w].into_iter().filter(|m| m.is_finite())
    }

    /// The first rejected threshold, going up from `from` to `to`.
    fn first_rejected(&self, from: f64, to: f64) -> Option<f64> {
        if !self.accepts(from) {
            return Some(from);
        }
        let leaves = self.roots().filter(|&m| m > from && m < to).reduce(f64::min);
        leaves.or_else(|| (!self.accepts(to)).then_some(to))
    }

    /// The first rejected threshold, going down from `to` to `from`.
    fn last_rejected(&self, from: f64, to: f64) -> Option<f64> {
        if !self.accepts(to) {
            return Some(to);
        }
        let leaves = self.roots().filter(|&m| m < to && m > from).reduce(f64::max);
        leaves.or_else(|| (from.is_finite() && !self.accepts(from)).then_some(from))
    }
}
