//! Win rates between methods.

use super::paired::Findings;
use crate::compare::wins;
use crate::metrics::Metric;
use crate::report::Matrix;

impl Findings<'_> {
    /// Wins, ties and losses between all rows of the main table: one matrix per reward, the held-out rewards first.
    pub fn matrices(&self) -> Vec<Matrix> {
        let kept: Vec<usize> = self.kept().collect();
        let labels: Vec<String> = kept.iter().map(|&i| self.series[i].curve.clone()).collect();
        let matrix = |reward: &Metric| {
            let row = |&a: &usize| {
                let cell = |&b: &usize| (a != b).then(|| wins(self.of(a, reward), self.of(b, reward)));
                kept.iter().map(cell).collect()
            };
            Matrix {
                title: format!("Win rates under {}", reward.name()),
                note: "The share of prompts on which the answer of the row has a higher reward (mean over seeds) than \
                       the answer of the column. A tie counts as half a win. p is the p value of the two-sided sign \
                       test."
                    .to_owned(),
                labels: labels.clone(),
                cells: kept.iter().map(row).collect(),
            }
        };
        self.held_out_first().map(matrix).collect()
    }
}
