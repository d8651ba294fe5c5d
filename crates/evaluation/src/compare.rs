//! How sure a mean over prompts is, and whether two runs over the same prompts differ.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use statrs::distribution::{Binomial, DiscreteCDF};

use crate::report::{Estimate, Wins};

/// Resamples of prompts, drawn once, so that everything computed over them is paired: two runs, or two curves, see
/// the same prompts in each.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    prompts: usize,
    /// Of each resample, how often it has each prompt.
    draws: Vec<Vec<u16>>,
}

impl Bootstrap {
    /// Resamples that an interval is taken from.
    pub const DRAWS: usize = 4000;

    /// Resamples of so many prompts.
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

    /// The mean of one value a prompt in every resample. A value that is not a number is left out, with its prompt;
    /// where none is left the mean is not a number.
    ///
    /// # Panics
    /// Not as many values as prompts.
    pub fn means(&self, values: &[f64]) -> Vec<f64> {
        assert_eq!(values.len(), self.prompts, "one value a prompt");
        let mean = |counts: &Vec<u16>| {
            let (mut sum, mut weight) = (0.0, 0.0);
            for (value, &count) in values.iter().zip(counts).filter(|(value, _)| !value.is_nan()) {
                sum += value * f64::from(count);
                weight += f64::from(count);
            }
            sum / weight
        };
        self.draws.iter().map(mean).collect()
    }

    /// The mean with its 95 percent percentile interval; `None` without a value that is a number.
    pub fn estimate(&self, values: &[f64]) -> Option<Estimate> {
        interval(mean(values), self.means(values))
    }

    /// The mean difference of two runs, prompt by prompt, `first - second`.
    pub fn difference(&self, first: &[f64], second: &[f64]) -> Option<Estimate> {
        let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| a - b).collect();
        self.estimate(&differences)
    }

    /// The value of a curve at `x`, with its interval. The curve's points are the means of `xs[point]` and
    /// `ys[point]`, each with one value a prompt; between them it is straight. `None` if `x` lies outside it.
    pub fn curve_at(&self, curve: &Sweep<'_>, x: f64) -> Option<Estimate> {
        interval(curve.at(x)?, self.curve_means(curve, x))
    }

    /// How far one curve lies above another at `x`, with its interval.
    pub fn curve_difference(&self, first: &Sweep<'_>, second: &Sweep<'_>, x: f64) -> Option<Estimate> {
        let (a, b) = (self.curve_means(first, x), self.curve_means(second, x));
        interval(first.at(x)? - second.at(x)?, a.iter().zip(b).map(|(a, b)| a - b).collect())
    }

    fn curve_means(&self, curve: &Sweep<'_>, x: f64) -> Vec<f64> {
        let (xs, ys): (Vec<_>, Vec<_>) =
            curve.points.iter().map(|(xs, ys)| (self.means(xs), self.means(ys))).unzip();
        let draw = |draw: usize| {
            let points = xs.iter().zip(&ys).map(|(xs, ys)| (xs[draw], ys[draw])).collect();
            // A resample whose curve ends before x goes on with its last piece.
            interpolate(points, x, true).unwrap_or(f64::NAN)
        };
        (0..self.draws.len()).map(draw).collect()
    }
}

/// A curve that strength moves along: of each strength two values a prompt, those of the horizontal axis first.
#[derive(Debug, Clone, Default)]
pub struct Sweep<'a> {
    /// The points, in any order.
    pub points: Vec<(&'a [f64], &'a [f64])>,
}

impl Sweep<'_> {
    /// The curve's value at `x`; `None` outside it.
    pub fn at(&self, x: f64) -> Option<f64> {
        interpolate(self.points.iter().map(|(xs, ys)| (mean(xs), mean(ys))).collect(), x, false)
    }

    /// Where the curve begins and ends.
    pub fn range(&self) -> Option<(f64, f64)> {
        let xs = self.points.iter().map(|(xs, _)| mean(xs));
        let (low, high) = xs.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
        (low <= high).then_some((low, high))
    }
}

fn interpolate(mut points: Vec<(f64, f64)>, x: f64, extend: bool) -> Option<f64> {
    points.retain(|(x, y)| !x.is_nan() && !y.is_nan());
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (first, last) = (points.first()?, points.last()?);
    if !extend && !(first.0..=last.0).contains(&x) {
        return None;
    }
    let after = points.partition_point(|point| point.0 < x).clamp(1, points.len().max(2) - 1);
    let (Some(a), Some(b)) = (points.get(after - 1), points.get(after)) else { return Some(first.1) };
    let share = if b.0 > a.0 { (x - a.0) / (b.0 - a.0) } else { 1.0 };
    Some(a.1 + share * (b.1 - a.1))
}

/// The mean of the values that are numbers.
pub fn mean(values: &[f64]) -> f64 {
    let numbers = values.iter().filter(|value| !value.is_nan());
    let (sum, count) = numbers.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    sum / f64::from(count)
}

/// A statistic with the 95 percent percentile interval of its values in resamples.
pub(crate) fn interval(mean: f64, mut means: Vec<f64>) -> Option<Estimate> {
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
    Some(Estimate { mean, low: quantile(0.025), high: quantile(0.975) })
}

/// Wins, ties and losses of the first over the second, prompt by prompt, and the two-sided sign test's p: how
/// likely so uneven a split of the prompts that differ is by chance. Ties are left out of the test.
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
        // Means of 40 skewed numbers; the true mean is 1.
        let mut rng = ChaCha12Rng::seed_from_u64(7);
        let mut covered = 0;
        let bootstrap = Bootstrap::new(40, 1);
        for _ in 0..300 {
            let values: Vec<f64> = (0..40).map(|_| -rng.random::<f64>().ln()).collect();
            let found = bootstrap.estimate(&values).unwrap();
            assert!((found.low..=found.high).contains(&found.mean));
            covered += usize::from((found.low..=found.high).contains(&1.0));
        }
        // 95 percent less what skewness takes.
        assert!((265..=297).contains(&covered), "{covered} of 300");
    }

    #[test]
    fn differences_are_paired() {
        let bootstrap = Bootstrap::new(50, 3);
        let first: Vec<f64> = (0..50).map(|i| f64::from(i * 37 % 50)).collect();
        let second: Vec<f64> = first.iter().map(|v| v - 0.5).collect();
        let found = bootstrap.difference(&first, &second).unwrap();
        assert!((found.low - 0.5).abs() < 1e-9 && (found.high - 0.5).abs() < 1e-9, "{found:?}");
        assert_eq!(bootstrap.estimate(&[f64::NAN; 50]), None);
        let mut holes = first.clone();
        holes[3] = f64::NAN;
        assert!(bootstrap.estimate(&holes).is_some());
    }

    #[test]
    fn curves_are_read_between_their_points() {
        let bootstrap = Bootstrap::new(20, 5);
        let constant = |value: f64| vec![value; 20];
        let spread: Vec<f64> = (0..20).map(|i| f64::from(i) - 9.5).collect();
        let lifted: Vec<f64> = spread.iter().map(|v| v + 4.0).collect();
        let (x0, x1, x2) = (constant(0.0), constant(2.0), constant(6.0));
        let curve = Sweep { points: vec![(&x2, &lifted), (&x0, &spread), (&x1, &spread)] };
        assert_eq!(curve.range(), Some((0.0, 6.0)));
        assert_eq!(curve.at(4.0), Some(2.0));
        assert_eq!(curve.at(6.1), None);
        let flat = Sweep { points: vec![(&x0, &spread), (&x2, &spread)] };
        // The spread is common to both: only the lift is left.
        let difference = bootstrap.curve_difference(&curve, &flat, 4.0).unwrap();
        assert!((difference.low - 2.0).abs() < 1e-9 && (difference.high - 2.0).abs() < 1e-9);
        assert!(bootstrap.curve_at(&curve, 4.0).unwrap().high > 3.0);
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
