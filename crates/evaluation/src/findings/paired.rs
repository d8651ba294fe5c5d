//! The answers of an experiment, paired by prompt.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::degeneration::{Limits, Relative};
use super::series::Series;
use crate::compare::{Bootstrap, Sweep};
use crate::metrics::Metric;

/// KL levels at which curves are compared, in nats per answer.
const LEVELS: [f64; 9] = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// The answers of an experiment, ready to be compared.
pub struct Findings<'a> {
    pub(super) series: &'a [Series],
    /// The rewards, the guide's first.
    pub(super) rewards: Vec<Metric>,
    pub(super) bootstrap: Bootstrap,
    /// The diversity and coherence of each series relative to the base policy's; nothing for the base policy.
    pub(super) text: Vec<Vec<Relative>>,
    /// The values of each series by metric, one per prompt.
    values: Vec<BTreeMap<Metric, Vec<f64>>>,
}

impl<'a> Findings<'a> {
    /// Compares series over the same prompts. The first series is the base policy's. `rewards` are the names of the
    /// rewards, the guide's first. `limits` decide which text is degenerate.
    pub fn new(series: &'a [Series], rewards: &[String], limits: &Limits) -> Self {
        let rewards: Vec<Metric> = rewards.iter().cloned().map(Metric::Reward).collect();
        let metrics: Vec<Metric> = rewards.iter().cloned().chain(Metric::TEXT).collect();
        let of = |series: &Series| metrics.iter().map(|m| (m.clone(), series.values(m))).collect();
        let prompts = series.first().and_then(|base| base.seeds.first()).map_or(0, Vec::len);
        let bootstrap = Bootstrap::new(prompts, 0);
        let relative = |(i, one): (usize, &Series)| match series.first() {
            Some(base) if i > 0 => limits.compare(&bootstrap, one, base),
            _ => Vec::new(),
        };
        let text = series.iter().enumerate().map(relative).collect();
        Self { series, rewards, bootstrap, text, values: series.iter().map(of).collect() }
    }

    /// The number of prompts.
    pub(super) fn prompts(&self) -> usize {
        self.of(0, &Metric::Diversity).len()
    }

    /// The values of a series, one per prompt.
    pub(super) fn of(&self, series: usize, metric: &Metric) -> &[f64] {
        self.values[series].get(metric).map_or(&[], Vec::as_slice)
    }

    /// The held-out rewards, then the guide's.
    pub(super) fn held_out_first(&self) -> impl Iterator<Item = &Metric> {
        self.rewards.iter().skip(1).chain(self.rewards.first())
    }

    /// The series in the main table.
    pub(super) fn kept(&self) -> impl Iterator<Item = usize> {
        (0..self.series.len()).filter(|&i| self.series[i].kept && self.series[i].perturbation.is_none())
    }

    /// The series of a group in the main table, and among them the vanilla shaping's.
    pub(super) fn kept_of(&self, group: &str) -> (Vec<usize>, Option<usize>) {
        let kept: Vec<usize> = self.kept().filter(|&i| self.series[i].group == group).collect();
        let vanilla = kept.iter().copied().find(|&i| self.series[i].vanilla);
        (kept, vanilla)
    }

    /// The curves of a group, the vanilla shaping's first: the name of each, and its series by rising knob.
    pub(super) fn curves(&self, group: &str) -> Vec<(String, Vec<usize>)> {
        let mut curves: Vec<(String, Vec<usize>)> = Vec::new();
        for (i, series) in self.series.iter().enumerate() {
            if series.group != group || series.knob.is_none() || series.perturbation.is_some() {
                continue;
            }
            match curves.iter_mut().find(|(name, _)| *name == series.curve) {
                Some((_, points)) => points.push(i),
                None => curves.push((series.curve.clone(), vec![i])),
            }
        }
        curves.sort_by_key(|(_, points)| !self.series[points[0]].vanilla);
        for (_, points) in &mut curves {
            let knob = |i: usize| self.series[i].knob;
            points.sort_by(|&a, &b| knob(a).partial_cmp(&knob(b)).unwrap_or(Ordering::Equal));
        }
        curves
    }

    /// The groups with guidance, in order of appearance.
    pub(super) fn guided(&self) -> Vec<String> {
        let mut groups: Vec<String> = Vec::new();
        for series in self.series.iter().filter(|series| series.knob.is_some()) {
            if !groups.contains(&series.group) {
                groups.push(series.group.clone());
            }
        }
        groups
    }

    /// The curve of `y` over `x` through these series.
    pub(super) fn sweep(&self, points: &[usize], x: &Metric, y: &Metric) -> Sweep<'_> {
        Sweep { points: points.iter().map(|&i| (self.of(i, x), self.of(i, y))).collect() }
    }

    /// The KL levels that at least two curves of a group reach, the vanilla shaping's among them.
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
}
