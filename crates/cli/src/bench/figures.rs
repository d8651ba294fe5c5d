//! Figures of a bench: medians, quartiles, and fractions of the limit set by the memory bandwidth.

use std::collections::BTreeMap;

use serde::Serialize;

/// The statistics of one repeated measurement.
pub(super) struct Figure {
    pub(super) median: f64,
    /// The first and the third quartile.
    pub(super) spread: [f64; 2],
    /// The speed relative to reading the weights once at full bandwidth; `None` if the weights need not be read.
    pub(super) limit_fraction: Option<f64>,
}

impl Figure {
    /// The statistics of at least one sample.
    pub(super) fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let quantile = |q: f64| {
            let at = q * (sorted.len() - 1) as f64;
            let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
            below + (above - below) * at.fract()
        };
        Self { median: quantile(0.5), spread: [quantile(0.25), quantile(0.75)], limit_fraction: None }
    }

    /// Sets the limit fraction of a time, in milliseconds, that cannot be below `least`.
    pub(super) fn at_least(self, least: f64) -> Self {
        Self { limit_fraction: Some(least / self.median), ..self }
    }

    /// Sets the limit fraction of a rate that cannot be above `most`.
    pub(super) fn at_most(self, most: f64) -> Self {
        Self { limit_fraction: Some(self.median / most), ..self }
    }
}

/// All figures. JSON has them three times: medians, quartiles and fractions of the limit.
#[derive(Serialize)]
pub(super) struct Figures<T> {
    /// Memory bandwidth, measured between the steps; each sample is the best of three passes.
    pub(super) bandwidth_gb_s: T,
    /// Loading the model from files in the page cache.
    pub(super) load_ms: T,
    /// Prefill of the prefix, and the logits of its last token.
    pub(super) prefill_ms: T,
    /// One token after the prefix and its logits: a decoding step, equal to a branch of 1.
    pub(super) token_ms: T,
    /// `k` candidates after the prefix in one forward, and the logits of one of them.
    pub(super) branch_ms: BTreeMap<usize, T>,
    /// Time of a branch of 10 divided by that of one token.
    pub(super) branch_ratio: T,
    /// `n` sequences decoded in parallel, with the logits of each.
    pub(super) batch_tokens_per_s: BTreeMap<usize, T>,
    /// Whole answers of the base policy, prefill included.
    pub(super) base_tokens_per_s: T,
    /// Whole answers with ARGS and a head.
    pub(super) args_head_tokens_per_s: T,
    /// Whole answers with ARGS and a causal reward model of the policy's size.
    pub(super) args_model_tokens_per_s: T,
    /// Whole answers with controlled decoding; the layers of the value head are as wide as the model.
    pub(super) cd_tokens_per_s: T,
    /// Peak memory up to the first guided answer (with a head); `None` if the system does not report it.
    pub(super) peak_rss_mb: Option<T>,
}

impl<T> Figures<T> {
    pub(super) fn map<U>(&self, f: impl Fn(&T) -> U) -> Figures<U> {
        let each = |map: &BTreeMap<usize, T>| map.iter().map(|(&key, x)| (key, f(x))).collect();
        Figures {
            bandwidth_gb_s: f(&self.bandwidth_gb_s),
            load_ms: f(&self.load_ms),
            prefill_ms: f(&self.prefill_ms),
            token_ms: f(&self.token_ms),
            branch_ms: each(&self.branch_ms),
            branch_ratio: f(&self.branch_ratio),
            batch_tokens_per_s: each(&self.batch_tokens_per_s),
            base_tokens_per_s: f(&self.base_tokens_per_s),
            args_head_tokens_per_s: f(&self.args_head_tokens_per_s),
            args_model_tokens_per_s: f(&self.args_model_tokens_per_s),
            cd_tokens_per_s: f(&self.cd_tokens_per_s),
            peak_rss_mb: self.peak_rss_mb.as_ref().map(&f),
        }
    }
}

impl Figures<Figure> {
    /// The figures as a text table.
    pub(super) fn table(&self) -> String {
        let mut table = format!("{:<32}{:>8}       {:>17}  of the limit\n", "", "median", "quartiles");
        let mut row = |what: &str, unit: &str, figure: &Figure| {
            let Figure { median, spread: [low, high], limit_fraction } = figure;
            // Three significant digits: timings on a shared machine are no more precise.
            let decimals = match *median {
                m if m < 10.0 => 2,
                m if m < 100.0 => 1,
                _ => 0,
            };
            let spread = match low == high {
                true => String::new(),
                false => format!("{low:.decimals$} - {high:.decimals$}"),
            };
            let share =
                limit_fraction.map_or_else(String::new, |share| format!("{:.0}%", 100.0 * share));
            let line = format!("{what:<32}{median:>8.decimals$} {unit:<6}{spread:>17}{share:>14}");
            table.push_str(line.trim_end());
            table.push('\n');
        };
        row("memory", "GB/s", &self.bandwidth_gb_s);
        row("load", "ms", &self.load_ms);
        row("prefill", "ms", &self.prefill_ms);
        row("one token", "ms", &self.token_ms);
        for (k, figure) in &self.branch_ms {
            row(&format!("branch of {k}"), "ms", figure);
        }
        row("branch of 10 / one token", "", &self.branch_ratio);
        for (n, figure) in &self.batch_tokens_per_s {
            row(&format!("batch of {n}"), "tok/s", figure);
        }
        row("base", "tok/s", &self.base_tokens_per_s);
        row("args, head", "tok/s", &self.args_head_tokens_per_s);
        row("args, causal reward model", "tok/s", &self.args_model_tokens_per_s);
        row("cd", "tok/s", &self.cd_tokens_per_s);
        if let Some(figure) = &self.peak_rss_mb {
            row("peak memory", "MB", figure);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::Figure;

    #[test]
    fn quartiles_are_linear_between_samples() {
        let figure = Figure::of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!((figure.median, figure.spread), (2.5, [1.75, 3.25]));
        let figure = Figure::of(&[7.0]).at_least(3.5);
        assert_eq!((figure.spread, figure.limit_fraction), ([7.0, 7.0], Some(0.5)));
    }
}
