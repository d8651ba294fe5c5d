//! The table of a tuning.

use stackelberg_evaluation::compare::Bootstrap;
use stackelberg_evaluation::metrics::Metric;
use stackelberg_evaluation::report::{Cell, Row, Table};

use super::trial::Trial;

/// One row per setting: the paired gains over the base policy, means of the text's metrics, and the tokens run per answer.
pub(super) fn table(trials: &[Trial], rewards: &[Metric]) -> Table {
    let prompts = trials.first().and_then(|base| base.series.seeds.first()).map_or(0, Vec::len);
    let bootstrap = Bootstrap::new(prompts, 0);
    let text = [Metric::Kl, Metric::LogProb, Metric::Rep4, Metric::Coherence];
    let gains = rewards.iter().map(|reward| format!("{} gain", reward.name()));
    let others = text.iter().map(|metric| metric.name().to_owned());
    let columns = gains.chain(others).chain(["tokens run".to_owned()]);
    let row = |trial: &Trial| {
        let gain = |reward: &Metric| {
            let (own, base) = (trial.series.values(reward), trials[0].series.values(reward));
            let gain = bootstrap.difference(&own, &base)?;
            Some(Cell { differs: gain.sign(), ..Cell::of(gain, 2) })
        };
        let mean = |metric: &Metric| {
            let mean = bootstrap.estimate(&trial.series.values(metric))?.mean;
            Some(Cell { mean, digits: metric.digits().min(2), ..Cell::default() })
        };
        let is_base = std::ptr::eq(trial, &trials[0]);
        let rewards = rewards.iter().map(|reward| gain(reward).filter(|_| !is_base));
        let tokens = trial.tokens_run.map(|mean| Cell { mean, digits: 0, ..Cell::default() });
        let cells = rewards.chain(text.iter().map(mean)).chain([tokens]).collect();
        Row { label: trial.name(), cells, ..Row::default() }
    };
    Table {
        name: "settings".to_owned(),
        title: "Settings".to_owned(),
        columns: columns.collect(),
        rows: trials.iter().map(row).collect(),
        ..Table::default()
    }
}
