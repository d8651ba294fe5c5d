//! The tables of a report.

use super::Findings;
use crate::compare::mean;
use crate::metrics::Metric;
use crate::report::{Cell, Estimate, Row, Table};

/// KL that curves are compared at, in nats per answer.
const LEVELS: [f64; 9] = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

impl Findings<'_> {
    /// All methods at their kept strength.
    pub(super) fn main_table(&self) -> Table {
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
        let row = |&i: &usize| Row {
            group: self.series[i].group.clone(),
            label: match self.series[i].knob {
                Some(knob) => format!("{}, {knob}", self.series[i].curve),
                None => self.series[i].curve.clone(),
            },
            cells: metrics.iter().map(|metric| self.cell(i, metric, &kept)).collect(),
        };
        Table {
            name: "main".to_owned(),
            title: format!("All methods at the kept strength, {} prompts", self.of(0, &Metric::Diversity).len()),
            note: "Means over prompts with 95 percent bootstrap intervals. Bold: the best of its method, and the \
                   interval of its paired difference from the next best leaves out 0. A triangle: the paired difference \
                   from the base policy leaves out 0; nothing is corrected for the number of marks. KL: nats per answer \
                   from the base policy over the candidates, without what they leave out (tail NLL); of best-of-n an \
                   upper bound of the whole. log p: the base policy's, per token. steered: share of tokens that are not \
                   the base policy's choice. The strength was chosen on the same prompts."
                .to_owned(),
            columns: metrics.iter().map(|metric| metric.name().to_owned()).collect(),
            rows: kept.iter().map(row).collect(),
        }
    }

    /// A cell of the main table: bold within its group of rows, and whether it differs from the base policy.
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
                difference.is_some_and(|d| sign(&d) == metric.better())
            });
        Some(Cell { bold, differs: self.beside_base(i, metric), ..plain(estimate, metric.digits()) })
    }

    /// Whether a series differs from the base policy, paired by prompt: -1 below, 1 above, 0 not clearly.
    fn beside_base(&self, i: usize, metric: &Metric) -> i8 {
        let difference = self.bootstrap.difference(self.of(i, metric), self.of(0, metric));
        difference.filter(|_| i != 0).map_or(0, |difference| sign(&difference))
    }

    /// What smaller tables show: the rewards, what they cost the text, and how far from the base policy it is.
    fn in_short(&self) -> Vec<Metric> {
        let text = [Metric::Diversity, Metric::Coherence, Metric::Kl];
        self.rewards.iter().cloned().chain(text).collect()
    }

    /// Every shaping against the vanilla one at the kept strength: paired differences.
    pub(super) fn against_table(&self) -> Option<Table> {
        let metrics = self.in_short();
        let mut rows = Vec::new();
        for group in self.guided() {
            let kept: Vec<usize> = self.kept().filter(|&i| self.series[i].group == group).collect();
            let vanilla = kept.iter().copied().find(|&i| self.series[i].vanilla);
            let Some(vanilla) = vanilla else { continue };
            for i in kept.into_iter().filter(|&i| i != vanilla) {
                rows.push(Row {
                    group: group.clone(),
                    label: format!("{} less {}", self.series[i].curve, self.series[vanilla].curve),
                    cells: metrics.iter().map(|metric| self.difference(i, vanilla, metric)).collect(),
                });
            }
        }
        (!rows.is_empty()).then(|| Table {
            name: "equal-strength".to_owned(),
            title: "At equal strength, as the paper compares".to_owned(),
            note: "Paired differences from the vanilla shaping with 95 percent bootstrap intervals; a triangle where they \
                   leave out 0. At equal strength whoever moves further from the base policy looks best: see the \
                   column KL, and the table at equal KL."
                .to_owned(),
            columns: metrics.iter().map(|metric| metric.name().to_owned()).collect(),
            rows,
        })
    }

    fn difference(&self, i: usize, from: usize, metric: &Metric) -> Option<Cell> {
        let difference = self.bootstrap.difference(self.of(i, metric), self.of(from, metric))?;
        Some(Cell { differs: sign(&difference), ..plain(difference, metric.digits()) })
    }

    /// Every curve at the same KL: one table a reward.
    pub(super) fn equal_kl_tables(&self) -> Vec<Table> {
        self.rewards.iter().filter_map(|reward| self.equal_kl_table(reward)).collect()
    }

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
                    let differs = difference.map_or(0, |difference| sign(&difference));
                    Some(Cell { differs, ..plain(estimate, reward.digits()) })
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
            note: "Each curve read at the same KL from the base policy (nats per answer over the candidates; what they \
                   leave out comes on top for all), straight in its root between the strengths that were run, with 95 \
                   percent bootstrap intervals. A triangle: the paired difference from the vanilla shaping at that KL \
                   leaves out 0. A dash: the curve does not reach that KL, or its points around it are too far apart."
                .to_owned(),
            columns: levels.iter().map(|level| format!("KL {level}")).collect(),
            rows,
        })
    }

    /// KL that at least two curves of a group reach, vanilla's among them.
    pub(super) fn levels(&self) -> Vec<f64> {
        let reached = |group: &String, level: f64| {
            let curves = self.curves(group);
            let reaches = |(_, points): &(String, Vec<usize>)| {
                self.sweep(points, &Metric::Kl, &Metric::Kl).at(level).is_some()
            };
            curves.first().is_some_and(reaches)
                && curves.iter().filter(|curve| reaches(curve)).count() > 1
        };
        let groups = self.guided();
        LEVELS.into_iter().filter(|&level| groups.iter().any(|group| reached(group, level))).collect()
    }

    /// What is left of the true rewards where those that guide were made worse.
    pub(super) fn stress_table(&self) -> Option<Table> {
        let metrics = self.in_short();
        let stressed = (0..self.series.len()).filter(|&i| self.series[i].stress.is_some());
        let row = |i: usize| {
            let cell = |metric: &Metric| {
                let estimate = self.bootstrap.estimate(self.of(i, metric))?;
                Some(Cell { differs: self.beside_base(i, metric), ..plain(estimate, metric.digits()) })
            };
            let series = &self.series[i];
            Row {
                group: format!("{}, {}", series.group, series.stress.as_deref().unwrap_or_default()),
                label: series.curve.clone(),
                cells: metrics.iter().map(cell).collect(),
            }
        };
        let rows: Vec<Row> = stressed.map(row).collect();
        (!rows.is_empty()).then(|| Table {
            name: "stress".to_owned(),
            title: "With rewards made worse".to_owned(),
            note: "What guided was disturbed (noise: Gaussian of that standard deviation added; random: Gaussian numbers \
                   instead; reversed: the best candidate gets the worst's reward); what is shown is the true reward, at \
                   the kept strength. A triangle: the paired difference from the base policy leaves out 0."
                .to_owned(),
            columns: metrics.iter().map(|metric| metric.name().to_owned()).collect(),
            rows,
        })
    }
}

/// -1 where an interval lies below 0, 1 above, 0 around it.
pub(super) fn sign(estimate: &Estimate) -> i8 {
    i8::from(estimate.low > 0.0) - i8::from(estimate.high < 0.0)
}

fn plain(Estimate { mean, low, high }: Estimate, digits: usize) -> Cell {
    let interval = low.is_finite().then_some((low, high));
    Cell { mean, interval, digits, bold: false, differs: 0 }
}
