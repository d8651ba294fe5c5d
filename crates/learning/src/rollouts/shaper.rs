//! Shapes the rewards of a dataset.

use serde_json::{Map, Value, json};
use stackelberg_decoding::{Options, Settings};
use stackelberg_shaping::{Confidence, Report, Samples, Shaping};

use super::columns::{ShapedColumns, Thresholds};
use super::dataset::Dataset;
use super::row::Row;
use super::shard::Shard;
use crate::error::Error;

/// All settings of a shaping, by their names on the command line.
pub(crate) fn shaping_settings(shaping: &Shaping) -> Value {
    let all = json!(Options::all(&Settings { shaping: *shaping, ..Settings::default() }));
    Options::SHAPING
        .map(|name| (name.to_owned(), all[name].clone()))
        .into_iter()
        .collect::<Map<_, _>>()
        .into()
}

/// Shapes the rewards of shards. The samples of each prompt are treated as independent draws of the base policy.
#[derive(Debug, Clone)]
pub struct Shaper {
    shaping: Shaping,
    kl_budget: Option<f64>,
    confidence: Option<Confidence>,
    settings: Value,
}

impl Shaper {
    /// Shapes with these settings. With `kl_budget` (nats), the bound is solved for each prompt. With `level`,
    /// intervals for m\* of this nominal level are computed, see [`Confidence`].
    ///
    /// # Errors
    /// A setting is out of range, or there is a budget for a rule without a bound: the solution would be a strength per
    /// prompt, which shaped rewards do not record.
    pub fn new(shaping: Shaping, kl_budget: Option<f64>, level: Option<f64>) -> Result<Self, Error> {
        let wrong = |source| Error::ShapingSettings { source };
        shaping.check().map_err(wrong)?;
        if kl_budget.is_some() && !shaping.rule.has_bound() {
            return Err(Error::NoBound { rule: shaping.rule });
        }
        let confidence = level.map(Confidence::new).transpose().map_err(wrong)?;
        let mut settings = shaping_settings(&shaping);
        settings["level"] = json!(level);
        if kl_budget.is_some() {
            (settings["kl_budget"], settings["bound"]) = (json!(kl_budget), Value::Null);
        }
        Ok(Self { shaping, kl_budget, confidence, settings })
    }

    /// Reads and shapes a dataset without writing it. Returns the id and the rewards of each prompt. `progress` is
    /// called after each shard.
    ///
    /// # Errors
    /// The dataset has no rewards, or a shard is missing or corrupt; as [`Shaper::shape`].
    pub fn read(
        &self,
        dataset: &Dataset,
        progress: &mut dyn FnMut(),
    ) -> Result<Vec<(String, Vec<f64>)>, Error> {
        if dataset.manifest().reward.is_none() {
            return Err(no_rewards(dataset.folder().display().to_string()));
        }
        let mut prompts = Vec::new();
        for shard in dataset.iter() {
            let shard = shard?;
            self.shape(&shard)?;
            for rows in shard.prompts() {
                prompts.push((rows[0].prompt_id.clone(), rewards(&shard, rows)?));
            }
            progress();
        }
        Ok(prompts)
    }

    /// Writes shaped rewards into all shards of a dataset and replaces those under the same rule. An interrupted call
    /// can be repeated. Call [`Shaper::read`] first to check the dataset.
    ///
    /// # Errors
    /// As [`Shaper::read`]; a file cannot be written.
    pub fn write(&self, dataset: &Dataset, progress: &mut dyn FnMut()) -> Result<(), Error> {
        for shard in dataset.iter() {
            let shard = shard?;
            let columns = self.shape(&shard)?;
            dataset.add_shaped(shard, columns)?;
            progress();
        }
        Ok(())
    }

    /// The shaped rewards of a shard.
    ///
    /// # Errors
    /// A sample has no reward, or the span of the rewards overflows `f64`.
    pub fn shape(&self, shard: &Shard) -> Result<ShapedColumns, Error> {
        let rule = self.shaping.rule;
        let (mut values, mut thresholds) = (Vec::new(), Thresholds::default());
        for rows in shard.prompts() {
            let rewards = rewards(shard, rows)?;
            let wrong = |source| {
                let (file, prompt) = (shard.file(), rows[0].prompt_id.clone());
                Error::Shaping { file, prompt, source }
            };
            let report = Samples::new(&rewards)
                .and_then(|s| Report::new(&self.shaping, &s, self.kl_budget, self.confidence.as_ref()))
                .map_err(wrong)?;
            values.extend(report.shaped.values);
            if let Some(threshold) = report.shaped.threshold {
                let interval = report.interval;
                let every = rows.iter();
                thresholds.values.extend(every.clone().map(|_| threshold.value));
                thresholds.low.extend(every.clone().map(|_| interval.map(|i| i.low)));
                thresholds.high.extend(every.map(|_| interval.and_then(|i| i.high)));
            }
        }
        let thresholds = rule.has_threshold().then_some(thresholds);
        Ok(ShapedColumns { rule, settings: self.settings.clone(), values, thresholds })
    }
}

/// The rewards of a prompt's samples.
fn rewards(shard: &Shard, rows: &[Row]) -> Result<Vec<f64>, Error> {
    let rewards: Option<Vec<f64>> = rows.iter().map(|row| row.reward).collect();
    rewards.ok_or_else(|| no_rewards(shard.file()))
}

fn no_rewards(file: String) -> Error {
    let problem = "it has no rewards to shape: roll out with a reward into another folder".to_owned();
    Error::Dataset { file, problem }
}
