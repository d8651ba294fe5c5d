//! Figures of a bench: medians, their spread, and how near they come to what memory allows.

use std::collections::BTreeMap;

use serde::Serialize;

/// One thing measured several times.
pub(super) struct Figure {
    pub(super) median: f64,
    /// The first and the third quartile.
    pub(super) spread: [f64; 2],
    /// 1 is as fast as the weights can be read; `None` where they need not be.
    pub(super) limit_fraction: Option<f64>,
}

impl Figure {
    /// Of at least one sample.
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

    /// Milliseconds of something that cannot take less than `least`.
    pub(super) fn at_least(self, least: f64) -> Self {
        Self { limit_fraction: Some(least / self.median), ..self }
    }

    /// A rate that cannot be more than `most`.
    pub(super) fn at_most(self, most: f64) -> Self {
        Self { limit_fraction: Some(self.median / most), ..self }
    }
}

/// Everything that is measured. In JSON three times: medians, quartiles and fractions of the limit.
#[derive(Serialize)]
pub(super) struct Figures<T> {
    /// Reading memory, between the steps; each sample is the best of three passes.
    pub(super) bandwidth_gb_s: T,
    /// From the files, in the system's cache, to a model that can be used.
    pub(super) load_ms: T,
    /// Reading a prefix, and the logits of its last token.
    pub(super) prefill_ms: T,
    /// One token behind the prefix and its logits: a step of decoding. The same as a branch of one.
    pub(super) token_ms: T,
    /// `k` candidates behind the prefix in one forward, and the logits of one of them.
    pub(super) branch_ms: BTreeMap<usize, T>,
    /// A branch of 10 over one token.
    pub(super) branch_ratio: T,
    /// `n` texts that are written together, all their logits included.
    pub(super) batch_tokens_per_s: BTreeMap<usize, T>,
    /// Whole answers, the reading of their prompts included: the model alone,
    pub(super) base_tokens_per_s: T,
    /// guided by a head,
    pub(super) args_head_tokens_per_s: T,
    /// guided by a causal reward model of the model's own size,
    pub(super) args_model_tokens_per_s: T,
    /// and by controlled decoding, the layers of its value head as wide as the model.
    pub(super) cd_tokens_per_s: T,
    /// The most memory held until a first guided answer (with a head) was written; `None` where the
    /// system does not tell.
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
    /// A table for people.
    pub(super) fn table(&self) -> String {
        let mut table = format!("{:<32}{:>8}       {:>17}  of the limit\n", "", "median", "quartiles");
        let mut row = |what: &str, unit: &str, figure: &Figure| {
            let Figure { median, spread: [low, high], limit_fraction } = figure;
            // Three figures are all that a clock on a shared machine is good for.
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
