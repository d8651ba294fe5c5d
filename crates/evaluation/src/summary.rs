//! Summaries of runs: the means of each, and paired comparisons of two.

use serde::Serialize;

use crate::compare::{Bootstrap, wins};
use crate::estimate::{Estimate, Wins};
use crate::metrics::{Measured, Metric};
use crate::report::{Cell, Row, Table};

/// The means of one run's answers.
#[derive(Debug, Clone, Serialize)]
pub struct Means<'a> {
    /// The run's name.
    pub run: &'a str,
    /// The number of answers.
    pub answers: usize,
    /// The means of the metrics that every answer has.
    pub metrics: Vec<Mean<'a>>,
}

/// The mean of a metric, or of a difference in it.
#[derive(Debug, Clone, Serialize)]
pub struct Mean<'a> {
    /// The metric's name.
    pub metric: &'a str,
    /// The mean with its interval.
    #[serde(flatten)]
    pub estimate: Estimate,
}

/// The differences of one run from another, paired by prompt.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison<'a> {
    /// The run's name.
    pub run: &'a str,
    /// The name of the run that is subtracted.
    pub with: &'a str,
    /// The mean differences.
    pub differences: Vec<Mean<'a>>,
    /// How often the run has the higher reward.
    pub wins: Vec<RewardWins<'a>>,
}

/// How often one run has a higher reward than another.
#[derive(Debug, Clone, Serialize)]
pub struct RewardWins<'a> {
    /// The reward's name.
    pub reward: &'a str,
    /// The counts.
    #[serde(flatten)]
    pub wins: Wins,
}

impl<'a> Means<'a> {
    /// The means of a run's answers. Metrics that an answer lacks are left out. `seed` is that of the bootstrap.
    pub fn of(run: &'a str, answers: &[Measured], metrics: &'a [Metric], seed: u64) -> Self {
        let bootstrap = Bootstrap::new(answers.len(), seed);
        let mean = |metric: &'a Metric| {
            let values: Vec<f64> = answers.iter().map(|answer| metric.of(answer)).collect();
            Some(Mean { metric: metric.name(), estimate: bootstrap.estimate(&values)? })
        };
        Self { run, answers: answers.len(), metrics: metrics.iter().filter_map(mean).collect() }
    }
}

impl<'a> Comparison<'a> {
    /// Compares a run with the first one: names, and the answers to the same prompts in the same order. `seed` is that of
    /// the bootstrap.
    ///
    /// # Panics
    /// The numbers of answers differ.
    pub fn of(
        (run, answers): (&'a str, &[&Measured]),
        (with, firsts): (&'a str, &[Measured]),
        metrics: &'a [Metric],
        seed: u64,
    ) -> Self {
        let bootstrap = Bootstrap::new(firsts.len(), seed);
        let values = |metric: &Metric| -> (Vec<f64>, Vec<f64>) {
            answers.iter().zip(firsts).map(|(a, b)| (metric.of(a), metric.of(b))).unzip()
        };
        let difference = |metric: &'a Metric| {
            let (ours, theirs) = values(metric);
            Some(Mean { metric: metric.name(), estimate: bootstrap.difference(&ours, &theirs)? })
        };
        let won = |metric: &'a Metric| {
            let (ours, theirs) = values(metric);
            RewardWins { reward: metric.name(), wins: wins(&ours, &theirs) }
        };
        let rewards = metrics.iter().filter(|metric| matches!(metric, Metric::Reward(_)));
        Self {
            run,
            with,
            differences: metrics.iter().filter_map(difference).collect(),
            wins: rewards.map(won).collect(),
        }
    }
}

/// Rows of means as a table, with the columns that any row has.
pub fn table<'a, 'm: 'a>(
    name: &str,
    rows: impl Iterator<Item = (String, &'a Vec<Mean<'m>>)> + Clone,
    metrics: &[Metric],
) -> Table {
    let known = |metric: &&Metric| {
        rows.clone().any(|(_, means)| means.iter().any(|mean| mean.metric == metric.name()))
    };
    let columns: Vec<&Metric> = metrics.iter().filter(known).collect();
    let row = |(label, means): (String, &'a Vec<Mean<'m>>)| {
        let cell = |metric: &&Metric| {
            let mean = means.iter().find(|mean| mean.metric == metric.name())?;
            Some(Cell::of(mean.estimate, metric.digits()))
        };
        Row { label, cells: columns.iter().map(cell).collect(), ..Row::default() }
    };
    Table {
        name: name.to_owned(),
        columns: columns.iter().map(|metric| metric.name().to_owned()).collect(),
        rows: rows.clone().map(row).collect(),
        ..Table::default()
    }
}
