//! Bootstrap intervals of means over prompts, and whether two runs over the same prompts differ.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal, StudentsT};

use crate::estimate::{Estimate, Wins};

/// Bootstrap resamples of prompts. They are drawn once, so all statistics of one `Bootstrap` are paired: two runs or two
/// curves use the same prompts in each resample.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    prompts: usize,
    /// For each resample, how often it contains each prompt.
    draws: Vec<Vec<u16>>,
}

impl Bootstrap {
    /// The number of resamples.
    pub const DRAWS: usize = 4000;

    /// Draws resamples of `prompts` prompts.
    pub fn new(prompts: usize, seed: u64) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let draw = |_| {
            let mut counts = vec![0_u16; prompts];
            for _ in 0..prompts {
                let prompt = rng.random_range(0..prompts);
                counts[prompt] = counts[prompt].saturating_add(1);
            }
            counts
        };
        Self { prompts, draws: (0..Self::DRAWS).map(draw).collect() }
    }

    /// The fewest prompts for which there are finite intervals. The bootstrap is not reliable for fewer.
    pub const FEWEST: usize = 10;

    /// The mean of `values`, one per prompt, in every resample; NaN if one value is NaN.
    ///
    /// # Panics
    /// The number of values is not the number of prompts.
    pub fn means(&self, values: &[f64]) -> Vec<f64> {
        assert_eq!(values.len(), self.prompts, "one value per prompt");
        let mean = |counts: &Vec<u16>| {
            let sum: f64 =
                values.iter().zip(counts).map(|(value, &count)| value * f64::from(count)).sum();
            sum / self.prompts as f64
        };
        self.draws.iter().map(mean).collect()
    }

    /// The mean with its 95 percent interval. `None` if a value is NaN, because a mean over some of the prompts is not
    /// comparable with one over all. With fewer than [`Bootstrap::FEWEST`] prompts, the interval is infinite.
    pub fn estimate(&self, values: &[f64]) -> Option<Estimate> {
        self.interval(mean(values), self.means(values))
    }

    /// The mean of the paired differences `first - second`.
    pub fn difference(&self, first: &[f64], second: &[f64]) -> Option<Estimate> {
        let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| a - b).collect();
        self.estimate(&differences)
    }

    /// The value of a curve at `x`, with its interval. The points of the curve are the means of its values, one per
    /// prompt; between points it is linear in `√x`. `None` if `x` is outside the curve, or between points that are too
    /// far apart.
    pub fn curve_at(&self, curve: &Sweep<'_>, x: f64) -> Option<Estimate> {
        self.interval(curve.at(x)?, self.curve_means(curve, x))
    }

    /// The difference `first - second` of two curves at `x`, with its interval.
    pub fn curve_difference(&self, first: &Sweep<'_>, second: &Sweep<'_>, x: f64) -> Option<Estimate> {
        let (a, b) = (self.curve_means(first, x), self.curve_means(second, x));
        self.interval(first.at(x)? - second.at(x)?, a.iter().zip(b).map(|(a, b)| a - b).collect())
    }

    /// The "expanded percentile" interval (Hesterberg 2015): a percentile interval that is widened for few prompts by the
    /// ratio of a t interval to a normal interval.
    fn interval(&self, mean: f64, means: Vec<f64>) -> Option<Estimate> {
        if self.prompts < Self::FEWEST {
            let (low, high) = (f64::NEG_INFINITY, f64::INFINITY);
            return (!mean.is_nan()).then_some(Estimate { mean, low, high });
        }
        let n = self.prompts as f64;
        let tail = match (StudentsT::new(0.0, 1.0, n - 1.0), Normal::new(0.0, 1.0)) {
            (Ok(t), Ok(normal)) => normal.cdf(t.inverse_cdf(0.025) * (n / (n - 1.0)).sqrt()),
            _ => 0.025,
        };
        interval(mean, means, tail)
    }

    fn curve_means(&self, curve: &Sweep<'_>, x: f64) -> Vec<f64> {
        let (xs, ys): (Vec<_>, Vec<_>) =
            curve.points.iter().map(|(xs, ys)| (self.means(xs), self.means(ys))).unzip();
        let draw = |draw: usize| {
            let points = xs.iter().zip(&ys).map(|(xs, ys)| (xs[draw], ys[draw])).collect();
            // In a resample whose curve ends before x, its last segment is extended.
            interpolate(points, x, true).unwrap_or(f64::NAN)
        };
        (0..self.draws.len()).map(draw).collect()
    }
}

/// A curve over strengths. Each point has two lists of values with one value per prompt: x (KL) and y.
#[derive(Debug, Clone, Default)]
pub struct Sweep<'a> {
    /// The points `(x, y)`, in any order.
    pub points: Vec<(&'a [f64], &'a [f64])>,
}

impl Sweep<'_> {
    /// The value at `x`; `None` if `x` is outside the curve, or between points that are too far apart.
    pub fn at(&self, x: f64) -> Option<f64> {
        interpolate(self.points.iter().map(|(xs, ys)| (mean(xs), mean(ys))).collect(), x, false)
    }
}

/// Neighbouring points whose x differ by more than this factor are not interpolated.
const APART: f64 = 10.0;

/// The value of a curve at `x`. It is linear in `√x` between points, because the reward of a tilted policy grows with the
/// square root of its KL.
fn interpolate(mut points: Vec<(f64, f64)>, x: f64, extend: bool) -> Option<f64> {
    points.retain(|(x, y)| *x >= 0.0 && !y.is_nan());
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (first, last) = (points.first()?, points.last()?);
    if !extend && !(first.0..=last.0).contains(&x) {
        return None;
    }
    let after = points.partition_point(|point| point.0 < x).clamp(1, points.len().max(2) - 1);
    let (Some(a), Some(b)) = (points.get(after - 1), points.get(after)) else { return Some(first.1) };
    if x == b.0 {
        return Some(b.1);
    }
    if !extend && b.0 > APART * a.0 {
        return (x == a.0).then_some(a.1);
    }
    let (from, to) = (a.0.sqrt(), b.0.sqrt());
    let share = if to > from { (x.max(0.0).sqrt() - from) / (to - from) } else { 1.0 };
    Some(a.1 + share * (b.1 - a.1))
}

/// The mean; NaN if one value is NaN.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// A statistic with the percentile interval of its values in resamples; `tail` is the share left out at either end.
pub(crate) fn interval(mean: f64, mut means: Vec<f64>, tail: f64) -> Option<Estimate> {
    means.retain(|mean| !mean.is_nan());
    means.sort_by(f64::total_cmp);
    let quantile = |q: f64| {
        let at = q * (means.len() as f64 - 1.0);
        let (below, above) = (means[at.floor() as usize], means[at.ceil() as usize]);
        below + at.fract() * (above - below)
    };
    if mean.is_nan() || means.is_empty() {
        return None;
    }
    Some(Estimate { mean, low: quantile(tail), high: quantile(1.0 - tail) })
}

/// Wins, ties and losses of the first run against the second, prompt by prompt, with the p value of the two-sided sign
/// test. The test leaves out ties; prompts with NaN are not counted.
pub fn wins(first: &[f64], second: &[f64]) -> Wins {
    let pairs = || first.iter().zip(second).filter(|(a, b)| !a.is_nan() && !b.is_nan());
    let win = pairs().filter(|(a, b)| a > b).count();
    let lose = pairs().filter(|(a, b)| a < b).count();
    let tie = pairs().count() - win - lose;
    let p = match Binomial::new(0.5, (win + lose) as u64) {
        Ok(chance) if win + lose > 0 => (2.0 * chance.cdf(win.min(lose) as u64)).min(1.0),
        _ => 1.0,
    };
    Wins { win, tie, lose, p }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_cover_as_often_as_they_say() {
        let mut rng = ChaCha12Rng::seed_from_u64(7);
        // Means of normal numbers (sums of uniform ones), then of exponential ones: what skewness takes is not given back.
        let normal = |rng: &mut ChaCha12Rng| (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        let skewed = |rng: &mut ChaCha12Rng| -rng.random::<f64>().ln() - 1.0;
        type Draw = fn(&mut ChaCha12Rng) -> f64;
        let draws: [(Draw, usize, f64); 3] =
            [(normal, 10, 0.93), (normal, 40, 0.93), (skewed, 40, 0.90)];
        for (draw, prompts, least) in draws {
            let bootstrap = Bootstrap::new(prompts, 1);
            let covers = |rng: &mut ChaCha12Rng| {
                let values: Vec<f64> = (0..prompts).map(|_| draw(rng)).collect();
                let found = bootstrap.estimate(&values).unwrap();
                assert!((found.low..=found.high).contains(&found.mean));
                (found.low..=found.high).contains(&0.0)
            };
            let covered = (0..600).filter(|_| covers(&mut rng)).count() as f64 / 600.0;
            assert!((least..0.98).contains(&covered), "{prompts} prompts: {covered}");
        }
    }

    #[test]
    fn differences_are_paired() {
        let bootstrap = Bootstrap::new(50, 3);
        let first: Vec<f64> = (0..50).map(|i| f64::from(i * 37 % 50)).collect();
        let second: Vec<f64> = first.iter().map(|v| v - 0.5).collect();
        let found = bootstrap.difference(&first, &second).unwrap();
        assert!((found.low - 0.5).abs() < 1e-9 && (found.high - 0.5).abs() < 1e-9, "{found:?}");
        let mut holes = first.clone();
        holes[3] = f64::NAN;
        assert_eq!(bootstrap.estimate(&holes), None);
        // Nine prompts say nothing for certain.
        let few = Bootstrap::new(9, 3).difference(&first[..9], &second[..9]).unwrap();
        assert_eq!((few.mean, few.low, few.high), (0.5, f64::NEG_INFINITY, f64::INFINITY));
    }

    #[test]
    fn curves_are_read_between_their_points() {
        let bootstrap = Bootstrap::new(20, 5);
        let constant = |value: f64| vec![value; 20];
        let spread: Vec<f64> = (0..20).map(|i| f64::from(i) - 9.5).collect();
        let lifted: Vec<f64> = spread.iter().map(|v| v + 4.0).collect();
        let (x0, x1, x2) = (constant(1.0), constant(4.0), constant(16.0));
        let curve = Sweep { points: vec![(&x2, &lifted), (&x0, &spread), (&x1, &spread)] };
        // Half way between the roots 2 and 4.
        assert_eq!(curve.at(9.0), Some(2.0));
        assert_eq!((curve.at(16.1), curve.at(0.9)), (None, None));
        let far = constant(50.0);
        let gap = Sweep { points: vec![(&x0, &spread), (&far, &lifted)] };
        assert_eq!((gap.at(9.0), gap.at(1.0), gap.at(50.0)), (None, Some(0.0), Some(4.0)));
        let flat = Sweep { points: vec![(&x0, &spread), (&x1, &spread), (&x2, &spread)] };
        // The spread is common to both: only the lift is left.
        let difference = bootstrap.curve_difference(&curve, &flat, 9.0).unwrap();
        assert!((difference.low - 2.0).abs() < 1e-9 && (difference.high - 2.0).abs() < 1e-9);
        assert!(bootstrap.curve_at(&curve, 9.0).unwrap().high > 3.0);
    }

    #[test]
    fn sign_test() {
        let wins = wins(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.0], &[0.0, 1.0, 2.0, 3.0, 4.0, 7.0, 1.0]);
        assert_eq!((wins.win, wins.tie, wins.lose), (5, 1, 1));
        // P(at most 1 of 6) = 7/64, twice.
        assert!((wins.p - 14.0 / 64.0).abs() < 1e-12);
        assert_eq!(super::wins(&[1.0], &[1.0]).p, 1.0);
    }
}
