//! The charts of reward against cost: one point per setting of the main table, over tokens run and over KL.

use stackelberg_decoding::Method;

use super::charts::axis_label;
use super::degeneration::{Degeneration, degeneration};
use super::paired::Findings;
use crate::compare::mean;
use crate::metrics::Metric;
use crate::report::{Chart, Curve, Point};

/// What a setting costs.
#[derive(Clone, Copy)]
enum Cost {
    /// Tokens run through the policy, per prompt.
    TokensRun,
    /// The bound on the KL from the base policy, the restriction to candidates included, in nats per answer.
    Kl,
}

impl Findings<'_> {
    /// The first held-out reward (the guide's if there is none) against tokens run, and against KL. The settings of
    /// best-of-n are joined by a line. Charts with fewer than two points are left out.
    pub(super) fn cost_charts(&self) -> Vec<Chart> {
        let Some(reward) = self.held_out_first().next() else { return Vec::new() };
        let charts = [Cost::TokensRun, Cost::Kl].map(|cost| self.cost_chart(cost, reward));
        let points = |chart: &Chart| chart.curves.iter().map(|curve| curve.points.len()).sum::<usize>();
        charts.into_iter().filter(|chart| points(chart) > 1).collect()
    }

    fn cost_chart(&self, cost: Cost, reward: &Metric) -> Chart {
        let (name, x) = match cost {
            Cost::TokensRun => ("tokens-run", "tokens run per prompt"),
            Cost::Kl => ("kl", "KL from the base policy with the tail NLL (bound), nats per answer"),
        };
        let mut curves: Vec<Curve> = Vec::new();
        for i in self.kept() {
            let Some(point) = self.cost_point(i, cost, reward) else { continue };
            let series = &self.series[i];
            let (label, group) = match series.method {
                Some(Method::BestOfN) => (Method::BestOfN.name(), series.group.as_str()),
                _ => (series.curve.as_str(), series.group.as_str()),
            };
            match curves.iter_mut().find(|curve| curve.label == label && curve.group == group) {
                Some(curve) => curve.points.push(point),
                None => curves.push(Curve {
                    label: label.to_owned(),
                    group: group.to_owned(),
                    points: vec![point],
                }),
            }
        }
        for curve in &mut curves {
            curve.points.sort_by(|a, b| a.x.total_cmp(&b.x));
        }
        Chart {
            name: format!("{}-of-settings-by-{name}", reward.name())
                .to_lowercase()
                .replace([' ', '/'], "-"),
            title: format!("{} against {x}", reward.name()),
            note: "One point per setting of the main table. The line joins the settings of best-of-n: a setting above it \
                   has more reward than best-of-n at the same cost."
                .to_owned(),
            x: x.to_owned(),
            y: axis_label(reward),
            log_x: matches!(cost, Cost::TokensRun),
            base: self.bootstrap.estimate(self.of(0, reward)),
            curves,
        }
    }

    fn cost_point(&self, i: usize, cost: Cost, reward: &Metric) -> Option<Point> {
        let x = match cost {
            Cost::TokensRun => self.series[i].tokens_run.filter(|tokens| *tokens > 0.0)?,
            Cost::Kl => {
                let tail = mean(self.of(i, &Metric::TailNll));
                // Answers of older versions have no tail NLL if the method has no candidates.
                mean(self.of(i, &Metric::Kl)) + if tail.is_finite() { tail } else { 0.0 }
            }
        };
        let y = self.bootstrap.estimate(self.of(i, reward))?;
        let degenerate = degeneration(&self.text[i]) == Degeneration::Yes;
        x.is_finite().then(|| Point { x, y, label: self.label(i), degenerate })
    }
}
