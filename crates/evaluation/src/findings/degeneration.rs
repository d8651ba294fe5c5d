//! Whether the text of a setting has degenerated, by its diversity and coherence relative to the base policy's.

use super::series::Series;
use crate::compare::{Bootstrap, mean};
use crate::estimate::Estimate;
use crate::metrics::Metric;

/// Whether text has degenerated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Degeneration {
    /// Every interval lies at or above its limit.
    #[default]
    No,
    /// An interval contains its limit: there are too few prompts to decide.
    CannotTell,
    /// An interval lies wholly below its limit.
    Yes,
}

/// The fractions of the base policy's diversity and coherence that text must keep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// The limit of diversity, from 0 to 1.
    pub diversity: f64,
    /// The limit of coherence, from 0 to 1.
    pub coherence: f64,
}

/// A metric of a setting as a fraction of the base policy's.
#[derive(Debug, Clone, PartialEq)]
pub struct Relative {
    /// The metric.
    pub metric: Metric,
    /// The limit of the fraction.
    pub limit: f64,
    /// The fraction: the mean of the setting divided by the mean of the base policy. The ends of its interval are those
    /// of the paired difference from the limit, divided by the mean of the base policy.
    pub fraction: Estimate,
    /// Where the interval lies.
    pub degeneration: Degeneration,
}

impl Limits {
    /// Compares the diversity and the coherence of a setting with the limits. The interval is that of the mean of
    /// `x - limit * base`, paired by prompt; text is degenerate only if it lies wholly below 0. A metric is left out if
    /// a value is missing, or if the base policy's mean is not above 0.
    ///
    /// With fewer than [`Bootstrap::FEWEST`] prompts the interval is infinite, so nothing is degenerate.
    ///
    /// # Panics
    /// A series does not have one answer per prompt of `bootstrap`.
    pub fn compare(&self, bootstrap: &Bootstrap, series: &Series, base: &Series) -> Vec<Relative> {
        let metrics = [(Metric::Diversity, self.diversity), (Metric::Coherence, self.coherence)];
        let compare = |(metric, limit): (Metric, f64)| {
            let (values, base) = (series.values(&metric), base.values(&metric));
            relative(bootstrap, metric, limit, &values, &base)
        };
        metrics.into_iter().filter_map(compare).collect()
    }
}

fn relative(
    bootstrap: &Bootstrap,
    metric: Metric,
    limit: f64,
    values: &[f64],
    base: &[f64],
) -> Option<Relative> {
    let whole = mean(base);
    let least: Vec<f64> = base.iter().map(|base| limit * base).collect();
    let above = bootstrap.difference(values, &least).filter(|_| whole > 0.0)?;
    let degeneration = match above {
        Estimate { high, .. } if high < 0.0 => Degeneration::Yes,
        Estimate { low, .. } if low >= 0.0 => Degeneration::No,
        _ => Degeneration::CannotTell,
    };
    let fraction = |above: f64| limit + above / whole;
    let Estimate { low, high, .. } = above;
    let fraction = Estimate { mean: mean(values) / whole, low: fraction(low), high: fraction(high) };
    Some(Relative { metric, limit, fraction, degeneration })
}

/// The verdict on a setting: the worst of its metrics.
pub fn degeneration(relatives: &[Relative]) -> Degeneration {
    relatives.iter().map(|relative| relative.degeneration).max().unwrap_or_default()
}

/// The metrics with this verdict as words: `coherence is 0.895 [0.841, 0.950] of base's, limit 0.9`.
pub fn described(relatives: &[Relative], verdict: Degeneration) -> String {
    let of = relatives.iter().filter(|relative| relative.degeneration == verdict);
    let words = |Relative { metric, limit, fraction: Estimate { mean, low, high }, .. }: &Relative| {
        let interval = match low.is_finite() {
            true => format!(" [{low:.3}, {high:.3}]"),
            false => String::new(),
        };
        format!("{} is {mean:.3}{interval} of base's, limit {limit}", metric.name())
    };
    of.map(words).collect::<Vec<_>>().join(", ")
}
