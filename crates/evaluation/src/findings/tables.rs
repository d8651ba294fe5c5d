//! The tables of a report.

use super::degeneration::{Degeneration, degeneration, described};
use super::paired::Findings;
use crate::compare::mean;
use crate::metrics::Metric;
use crate::report::{Cell, Row, Table};
use stackelberg_data::words::count as counted;

/// The heading of the column of costs.
const TOKENS_RUN: &str = "tokens run";

impl Findings<'_> {
    /// The main table, the table at equal strength, one table per reward at equal KL, and the table of perturbed rewards.
    /// Empty tables are left out.
    pub fn tables(&self) -> Vec<Table> {
        let mut tables = vec![self.main_table()];
        tables.extend(self.equal_strength_table());
        tables.extend(self.rewards.iter().filter_map(|reward| self.equal_kl_table(reward)));
        tables.extend(self.perturbed_table());
        tables.retain(|table| !table.rows.is_empty());
        tables
    }

    /// All methods at their kept strength.
    fn main_table(&self) -> Table {
        let text = [
            Metric::Diversity,
            Metric::Coherence,
            Metric::Length,
            Metric::LogProb,
            Metric::Kl,
            Metric::TailNll,
            Metric::Steered,
        ];
        let metrics: Vec<Metric> = self.rewards.iter().cloned().chain(text).collect();
        let kept: Vec<usize> = self.kept().collect();
        let counted_tokens = kept.iter().any(|&i| self.series[i].tokens_run.is_some());
        let cost = |i: usize| counted_tokens.then(|| self.series[i].tokens_run.map(count));
        let row = |&i: &usize| Row {
            group: self.series[i].group.clone(),
            label: self.label(i),
            cells: metrics.iter().map(|metric| self.cell(i, metric, &kept)).chain(cost(i)).collect(),
        };
        let columns = metrics.iter().map(Metric::name).chain(counted_tokens.then_some(TOKENS_RUN));
        Table {
            name: "main".to_owned(),
            title: format!("All methods at the kept strength, {}", counted(self.prompts(), "prompt")),
            note: "Means over prompts with 95 percent bootstrap intervals. Bold: the best value of its method, if the \
                   interval of the paired difference from the second best excludes 0. Triangle: the interval of the \
                   paired difference from the base policy excludes 0. The intervals are not corrected for multiple \
                   comparisons. KL: divergence from the base policy over the candidates, nats per answer; it does not \
                   include the tail NLL, which is the negative log of the base policy's mass on the candidates. For \
                   best-of-n, KL is an upper bound of the whole divergence. log p: log-probability per token under the \
                   base policy. steered: share of tokens that the base policy would not have chosen. tokens run: the mean \
                   number of tokens run through the policy per prompt, without the prompt; candidates and samples that \
                   were not chosen count. The strength was chosen on the same prompts."
                .to_owned()
                + &self.degenerate_rows(&kept),
            columns: columns.map(str::to_owned).collect(),
            rows: kept.iter().map(row).collect(),
        }
    }

    /// Which rows have degenerate text, and for which rows there are too few prompts to decide.
    fn degenerate_rows(&self, rows: &[usize]) -> String {
        let list = |verdict: Degeneration| -> Option<String> {
            let of = rows.iter().filter(|&&i| degeneration(&self.text[i]) == verdict);
            let row = |&i: &usize| format!("{} ({})", self.label(i), described(&self.text[i], verdict));
            let rows: Vec<String> = of.map(row).collect();
            (!rows.is_empty()).then(|| rows.join("; "))
        };
        let mut note = String::new();
        if let Some(rows) = list(Degeneration::Yes) {
            note += &format!(" Degenerate by the sweep's limits: {rows}.");
        }
        if let Some(rows) = list(Degeneration::CannotTell) {
            let prompts = self.prompts();
            note += &format!(" Cannot tell with {prompts} prompts whether text is degenerate: {rows}.");
        }
        note
    }

    /// A cell of the main table. It is bold if it is clearly the best of its group.
    fn cell(&self, i: usize, metric: &Metric, rows: &[usize]) -> Option<Cell> {
        let values = self.of(i, metric);
        let estimate = self.bootstrap.estimate(values)?;
        let group: Vec<usize> =
            rows.iter().copied().filter(|&j| self.series[j].group == self.series[i].group).collect();
        let better = f64::from(metric.better());
        let score = |j: usize| better * mean(self.of(j, metric));
        let next =
            group.iter().copied().filter(|&j| j != i).max_by(|&a, &b| score(a).total_cmp(&score(b)));
        let bold = better != 0.0
            && next.is_some_and(|next| {
                let difference = self.bootstrap.difference(values, self.of(next, metric));
                difference.is_some_and(|d| d.sign() == metric.better())
            });
        Some(Cell { bold, differs: self.against_base(i, metric), ..Cell::of(estimate, metric.digits()) })
    }

    /// The sign of the paired difference from the base policy: -1, 1, or 0 if it is not clear.
    fn against_base(&self, i: usize, metric: &Metric) -> i8 {
        let difference = self.bootstrap.difference(self.of(i, metric), self.of(0, metric));
        difference.filter(|_| i != 0).map_or(0, |difference| difference.sign())
    }

    /// The metrics of the smaller tables.
    fn main_metrics(&self) -> Vec<Metric> {
        let text = [Metric::Diversity, Metric::Coherence, Metric::Kl];
        self.rewards.iter().cloned().chain(text).collect()
    }

    /// The paired differences of all shapings from the vanilla shaping at the kept strength.
    fn equal_strength_table(&self) -> Option<Table> {
        let metrics = self.main_metrics();
        let mut rows = Vec::new();
        for group in self.guided() {
            let (kept, Some(vanilla)) = self.kept_of(&group) else { continue };
            for i in kept.into_iter().filter(|&i| i != vanilla) {
                rows.push(Row {
                    group: group.clone(),
                    label: format!("{} minus {}", self.series[i].curve, self.series[vanilla].curve),
                    cells: metrics.iter().map(|metric| self.difference(i, vanilla, metric)).collect(),
                });
            }
        }
        (!rows.is_empty()).then(|| Table {
            name: "equal-strength".to_owned(),
            title: "Differences at equal strength, the paper's comparison".to_owned(),
            note: "Paired differences from the vanilla shaping with 95 percent bootstrap intervals. Triangle: the interval \
                   excludes 0. At equal strength, shapings that move further from the base policy tend to have the \
                   higher reward: compare the column KL and the table at equal KL."
                .to_owned(),
            columns: metrics.iter().map(|metric| metric.name().to_owned()).collect(),
            rows,
        })
    }

    fn difference(&self, i: usize, from: usize, metric: &Metric) -> Option<Cell> {
        let difference = self.bootstrap.difference(self.of(i, metric), self.of(from, metric))?;
        Some(Cell { differs: difference.sign(), ..Cell::of(difference, metric.digits()) })
    }

    /// All curves at the same KL levels.
    fn equal_kl_table(&self, reward: &Metric) -> Option<Table> {
        let levels = self.levels();
        let mut rows = Vec::new();
        for group in self.guided() {
            let curves = self.curves(&group);
            let sweeps: Vec<_> =
                curves.iter().map(|(_, points)| self.sweep(points, &Metric::Kl, reward)).collect();
            for ((name, points), sweep) in curves.iter().zip(&sweeps) {
                let cell = |&level: &f64| {
                    let estimate = self.bootstrap.curve_at(sweep, level)?;
                    let vanilla = sweeps.first().filter(|_| !self.series[points[0]].vanilla);
                    let difference =
                        vanilla.and_then(|v| self.bootstrap.curve_difference(sweep, v, level));
                    let differs = difference.map_or(0, |difference| difference.sign());
                    Some(Cell { differs, ..Cell::of(estimate, reward.digits()) })
                };
                let cells: Vec<Option<Cell>> = levels.iter().map(cell).collect();
                if cells.iter().any(Option::is_some) {
                    rows.push(Row { group: group.clone(), label: name.clone(), cells });
                }
            }
        }
        (!levels.is_empty() && !rows.is_empty()).then(|| Table {
            name: format!("equal-kl-{}", reward.name()),
            title: format!("{} at equal KL", reward.name()),
            note: "The reward of each curve at the same KL from the base policy (nats per answer over the candidates, \
                   without the tail NLL), with 95 percent bootstrap intervals. Between the strengths that were run, the \
                   reward is interpolated linearly in the square root of KL. Triangle: the interval of the paired \
                   difference from the vanilla shaping at that KL excludes 0. Dash: the curve does not reach that KL, or \
                   its neighbouring points are too far apart."
                .to_owned(),
            columns: levels.iter().map(|level| format!("KL {level}")).collect(),
            rows,
        })
    }

    /// The true rewards of answers whose guide saw perturbed rewards.
    fn perturbed_table(&self) -> Option<Table> {
        let metrics = self.main_metrics();
        let perturbed = (0..self.series.len()).filter(|&i| self.series[i].perturbation.is_some());
        let row = |i: usize| {
            let cell = |metric: &Metric| {
                let estimate = self.bootstrap.estimate(self.of(i, metric))?;
                Some(Cell {
                    differs: self.against_base(i, metric),
                    ..Cell::of(estimate, metric.digits())
                })
            };
            let series = &self.series[i];
            Row {
                group: format!(
                    "{}, {}",
                    series.group,
                    series.perturbation.as_deref().unwrap_or_default()
                ),
                label: series.curve.clone(),
                cells: metrics.iter().map(cell).collect(),
            }
        };
        let rows: Vec<Row> = perturbed.map(row).collect();
        (!rows.is_empty()).then(|| Table {
            name: "perturbed".to_owned(),
            title: "Perturbed rewards".to_owned(),
            note: "The rewards that guided were perturbed; the table shows the true rewards, at the kept strength. noise: \
                   Gaussian noise of that standard deviation is added. random: Gaussian noise replaces the rewards. \
                   reversed: the order of the candidates' rewards is reversed. Triangle: the interval of the paired \
                   difference from the base policy excludes 0."
                .to_owned(),
            columns: metrics.iter().map(|metric| metric.name().to_owned()).collect(),
            rows,
        })
    }
}

/// A number of tokens.
fn count(tokens: f64) -> Cell {
    Cell { mean: tokens, interval: None, digits: 0, bold: false, differs: 0 }
}
