//! A summary of shaped rewards over all prompts, as text.

use std::fmt;

use stackelberg_data::words::count;
use stackelberg_shaping::{Error, Report, Rule, Samples, Shaping, Warning};

use crate::rollouts::Frontiers;

/// The rules in the table.
const RULES: [Rule; 3] = [Rule::Raw, Rule::Hard, Rule::Srs];

/// Width of the longest bar of the histogram, in characters.
const BAR: usize = 40;
/// Bars of the histogram.
const BINS: usize = 10;

/// Statistics, one value per prompt.
pub struct Summary {
    shaping: Shaping,
    kl_budget: Option<f64>,
    rules: Vec<(Rule, Column)>,
    base: Vec<f64>,
    thresholds: Vec<f64>,
    sizes: Vec<usize>,
    few_above: usize,
    all_equal: usize,
    single: usize,
}

#[derive(Default)]
struct Column {
    gain: Vec<f64>,
    utility: Vec<f64>,
    kl: Vec<f64>,
    ess: Vec<f64>,
    saturated: usize,
}

impl Summary {
    /// An empty summary of this shaping, with a KL budget in nats in place of its bound (or strength).
    pub fn new(shaping: Shaping, kl_budget: Option<f64>) -> Self {
        let mut rules = RULES.to_vec();
        if !rules.contains(&shaping.rule) {
            rules.push(shaping.rule);
        }
        Self {
            shaping,
            kl_budget,
            rules: rules.into_iter().map(|rule| (rule, Column::default())).collect(),
            base: Vec::new(),
            thresholds: Vec::new(),
            sizes: Vec::new(),
            few_above: 0,
            all_equal: 0,
            single: 0,
        }
    }

    /// Whether no prompt has two different rewards.
    pub fn nothing_to_shape(&self) -> bool {
        self.all_equal + self.single == self.base.len()
    }

    /// Whether no prompt was added.
    pub fn is_empty(&self) -> bool {
        self.base.is_empty()
    }

    /// Adds the rewards of one prompt's responses.
    ///
    /// # Errors
    /// They cannot be shaped.
    pub fn add(&mut self, samples: &Samples<'_>) -> Result<(), Error> {
        for (rule, column) in &mut self.rules {
            let shaping = Shaping { rule: *rule, ..self.shaping };
            let report = Report::new(&shaping, samples, self.kl_budget, None)?;
            column.utility.push(report.follower.utility);
            column.gain.push(report.follower.utility - report.base_utility);
            column.kl.push(report.follower.kl);
            column.ess.push(report.follower.ess);
            let saturated = |warning: &Warning| matches!(warning, Warning::Saturated { .. });
            column.saturated += usize::from(report.warnings.iter().any(saturated));
            if *rule == Rule::Hard {
                self.base.push(report.base_utility);
            }
            if let Some(threshold) = report.shaped.threshold.filter(|_| *rule == Rule::Hard) {
                self.thresholds.push(threshold.value);
                self.few_above += usize::from(threshold.above < 2);
            }
        }
        self.sizes.push(samples.rewards().len());
        let single = samples.rewards().len() == 1;
        self.single += usize::from(single);
        self.all_equal += usize::from(!single && samples.all_equal());
        Ok(())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.base.len();
        let (fewest, most) =
            (self.sizes.iter().min().unwrap_or(&0), self.sizes.iter().max().unwrap_or(&0));
        let each = if fewest == most { most.to_string() } else { format!("{fewest} to {most}") };
        let responses = if each == "1" { "response" } else { "responses" };
        writeln!(f, "{} of {each} {responses} each", count(n, "prompt"))?;
        let Shaping { strength, bound, alpha, budget, .. } = self.shaping;
        match self.kl_budget {
            Some(nats) => writeln!(
                f,
                "KL budget {nats} nats (the bound is solved for at strength {strength}; raw: the strength), alpha {alpha}, budget {budget}"
            )?,
            None => writeln!(f, "strength {strength}, bound {bound}, alpha {alpha}, budget {budget}")?,
        }

        let mut sorted = self.thresholds.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |q: f64| sorted[(q * (n - 1) as f64).round() as usize];
        writeln!(f, "\nthreshold m* (reward units): mean {:.4}", mean(&sorted))?;
        writeln!(
            f,
            "  min {:.4} | 5% {:.4} | 25% {:.4} | median {:.4} | 75% {:.4} | 95% {:.4} | max {:.4}",
            at(0.0),
            at(0.05),
            at(0.25),
            at(0.5),
            at(0.75),
            at(0.95),
            at(1.0)
        )?;
        histogram(f, &sorted)?;

        let share = |count: usize| 100.0 * count as f64 / n as f64;
        writeln!(f, "\nfewer than 2 responses reach m*: {:.1}% of prompts", share(self.few_above))?;
        if self.all_equal > 0 {
            writeln!(
                f,
                "all rewards equal, nothing to shape: {:.1}% of prompts",
                share(self.all_equal)
            )?;
        }

        if self.single > 0 {
            writeln!(f, "a single response, nothing to shape: {:.1}% of prompts", share(self.single))?;
        }

        writeln!(f, "\npredicted, mean over prompts ± standard error")?;
        writeln!(
            f,
            "{:<12}{:>20}{:>20}{:>12}{:>8}",
            "", "utility", "gain over base", "KL (nats)", "ESS"
        )?;
        let kept = self.sizes.iter().sum::<usize>() as f64 / n as f64;
        let with_error = |x: &[f64]| match x.len() {
            1 => format!("{:.4}", mean(x)),
            _ => format!("{:.4} ± {:.4}", mean(x), standard_error(x)),
        };
        writeln!(
            f,
            "{:<12}{:>20}{:>20}{:>12}{:>8.2}",
            "base",
            with_error(&self.base),
            "",
            "0.0000",
            kept
        )?;
        for (rule, column) in &self.rules {
            let (utility, gain) = (with_error(&column.utility), with_error(&column.gain));
            let (kl, ess) = (mean(&column.kl), mean(&column.ess));
            writeln!(f, "{rule:<12}{utility:>20}{gain:>20}{kl:>12.4}{ess:>8.2}")?;
        }
        if self.kl_budget.is_some() {
            let short = self.rules.iter().filter(|(_, column)| column.saturated > 0);
            for (rule, column) in short {
                let share = share(column.saturated);
                writeln!(f, "{rule} could not spend the budget on {share:.1}% of prompts")?;
            }
            return Ok(());
        }
        writeln!(
            f,
            "\nAt equal strength, the rule that moves furthest from the base policy looks best. Compare the KL, too,"
        )?;
        writeln!(f, "or give every rule the same KL budget with --kl-budget.")
    }
}

fn histogram(f: &mut fmt::Formatter<'_>, sorted: &[f64]) -> fmt::Result {
    let (low, high) = (sorted[0], sorted[sorted.len() - 1]);
    let width = (high - low) / BINS as f64;
    if width <= 0.0 || !width.is_finite() {
        return Ok(());
    }
    let mut counts = [0; BINS];
    for m in sorted {
        counts[(((m - low) / width) as usize).min(BINS - 1)] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(1);
    for (bin, count) in counts.into_iter().enumerate() {
        let bar = "█".repeat((count * BAR).div_ceil(most));
        writeln!(f, "  {:>10.4} {bar} {count}", low + width * bin as f64)?;
    }
    Ok(())
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

fn standard_error(x: &[f64]) -> f64 {
    let (n, mean) = (x.len() as f64, mean(x));
    let squares: f64 = x.iter().map(|v| (v - mean).powi(2)).sum();
    (squares / (n - 1.0) / n).sqrt()
}

/// Bounds and KLs of the table, in nats.
const BOUNDS: [f64; 4] = [0.5, 1.0, 2.0, 4.0];
const KLS: [f64; 4] = [0.1, 0.25, 0.5, 1.0];

/// The two frontiers as a table, and the results of the checks.
pub fn frontiers_table(frontiers: &Frontiers) -> String {
    let mut text = String::new();
    let row = |cells: [Option<f64>; 4], digits: usize| -> String {
        let cell = |c: Option<f64>| c.map_or_else(|| "-".to_owned(), |c| format!("{c:.digits$}"));
        cells.map(|c| format!("{:>9}", cell(c))).concat()
    };
    line(
        &mut text,
        format_args!(
            "predicted utility at equal bound and at equal KL, budget paper, mean over prompts"
        ),
    );
    line(
        &mut text,
        format_args!("{:<12}{:>36}   {:>36}", "", "bound B/beta of every prompt, nats", "mean KL, nats"),
    );
    line(&mut text, format_args!("{:<12}{}   {}", "", row(BOUNDS.map(Some), 2), row(KLS.map(Some), 2)));
    for curve in &frontiers.curves {
        let (bounds, kls) = (BOUNDS.map(|c| curve.at_bound(c)), KLS.map(|kl| curve.at_kl(kl)));
        line(&mut text, format_args!("{:<12}{}   {}", curve.rule.name(), row(bounds, 4), row(kls, 4)));
    }
    let (checks, [hard, raw]) = (frontiers.checks, frontiers.margins);
    if checks > 0 {
        line(&mut text, format_args!("\nchecked on every prompt, {checks} followers per theorem:"));
        line(
            &mut text,
            format_args!("  nothing beats hard at its bound (Theorem 1): smallest margin {hard:.1e}"),
        );
        line(
            &mut text,
            format_args!("  nothing beats raw at its KL (Gibbs): smallest margin {raw:.1e}"),
        );
        line(
            &mut text,
            format_args!(
                "margins are relative to the range of the prompt's rewards; 0 up to rounding if a rule is equally good"
            ),
        );
    }
    text
}

fn line(text: &mut String, what: fmt::Arguments<'_>) {
    text.push_str(&what.to_string());
    text.push('\n');
}
