//! The charts of a report.

use super::degeneration::{Degeneration, degeneration};
use super::paired::Findings;
use super::series::Knob;
use crate::compare::mean;
use crate::metrics::Metric;
use crate::report::{Chart, Curve, Point};

/// The horizontal axis of a chart.
enum Axis<'m> {
    Strength,
    KlBudget,
    Metric(&'m Metric),
}

impl Findings<'_> {
    /// Reward, diversity and coherence over strength and over KL, held-out reward over guided reward, and the reward of
    /// each setting over its cost. Charts without curves are left out.
    pub fn charts(&self) -> Vec<Chart> {
        let mut charts = Vec::new();
        let Some(guide) = self.rewards.first() else { return charts };
        let kl = Axis::Metric(&Metric::Kl);
        for reward in &self.rewards {
            let note = "A policy that chooses among whole answers gains the most reward at a given KL with the vanilla \
                        shaping, under the guide's own reward (Gibbs variational principle). Guidance step by step \
                        need not.";
            charts.push(self.chart(&Axis::Strength, reward, ""));
            charts.push(self.chart(&Axis::KlBudget, reward, ""));
            charts.push(self.chart(&kl, reward, note));
        }
        for held_out in &self.rewards[1..] {
            let note = "Over-optimisation: where a curve falls, more reward of the guide lowers the held-out reward.";
            charts.push(self.chart(&Axis::Metric(guide), held_out, note));
        }
        for metric in [Metric::Diversity, Metric::Coherence, Metric::LogProb] {
            charts.push(self.chart(&Axis::Strength, &metric, ""));
            charts.push(self.chart(&Axis::KlBudget, &metric, ""));
            charts.push(self.chart(&kl, &metric, ""));
        }
        charts.retain(|chart| !chart.curves.is_empty());
        charts.extend(self.cost_charts());
        charts
    }

    /// `y` over `x`, one curve per shaping. Points without a value are left out.
    fn chart(&self, x: &Axis<'_>, y: &Metric, note: &str) -> Chart {
        let (x_name, x_label) = match x {
            Axis::Strength => ("strength", "strength λ".to_owned()),
            Axis::KlBudget => ("kl-budget", "KL budget, nats per step".to_owned()),
            Axis::Metric(metric) => (metric.name(), axis_label(metric)),
        };
        let groups = self.guided();
        let curve = |group: &String, (label, points): (String, Vec<usize>)| Curve {
            label,
            group: group.clone(),
            points: points.into_iter().filter_map(|i| self.point(i, x, y)).collect(),
        };
        let curves =
            groups.iter().flat_map(|group| self.curves(group).into_iter().map(move |c| curve(group, c)));
        Chart {
            name: format!("{}-by-{x_name}", y.name()).to_lowercase().replace([' ', '/'], "-"),
            title: format!("{} against {}", y.name(), x_label),
            note: note.to_owned(),
            x: x_label,
            y: axis_label(y),
            log_x: !matches!(x, Axis::Metric(_)),
            base: self.bootstrap.estimate(self.of(0, y)),
            curves: curves.filter(|curve: &Curve| curve.points.len() > 1).collect(),
        }
    }

    fn point(&self, i: usize, x: &Axis<'_>, y: &Metric) -> Option<Point> {
        let knob = self.series[i].knob?;
        let x = match (x, knob) {
            (Axis::Strength, Knob::Strength(value)) | (Axis::KlBudget, Knob::KlBudget(value)) => value,
            (Axis::Metric(metric), _) => mean(self.of(i, metric)),
            _ => return None,
        };
        let y = self.bootstrap.estimate(self.of(i, y))?;
        let label = knob.to_string();
        let degenerate = degeneration(&self.text[i]) == Degeneration::Yes;
        x.is_finite().then_some(Point { x, y, label, degenerate })
    }
}

pub(super) fn axis_label(metric: &Metric) -> String {
    match metric {
        Metric::Kl => "KL from the base policy, nats per answer".to_owned(),
        Metric::LogProb => "base log-probability per token, nats".to_owned(),
        Metric::Reward(name) => format!("reward {name}"),
        other => other.name().to_owned(),
    }
}
