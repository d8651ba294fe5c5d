//! Shaped rewards beside the rewards of a shard.

use parquet::file::metadata::KeyValue;
use serde_json::{Value, json};
use stackelberg_shaping::{Confidence, Report, Rule, Samples, Shaping};

use super::{Dataset, Row, Shard};
use crate::error::Error;

/// Shaped rewards of a shard's samples under one rule, row by row.
///
/// | column, `-` of the rule's name as `_` | |
/// |---|---|
/// | `shaped_<rule>` | the shaped reward |
/// | `threshold_<rule>` | m\*, the same in all rows of a prompt; for rules with a threshold |
/// | `threshold_<rule>_low`, `_high` | its interval; null where there is none |
///
/// All are optional doubles. The settings are JSON in the metadata under `stackelberg.shaping.<rule>`.
#[derive(Debug, Clone, PartialEq)]
pub struct ShapedColumns {
    /// The rule.
    pub rule: Rule,
    /// All settings that they were made with, by the names of the command line.
    pub settings: Value,
    /// The shaped rewards.
    pub values: Vec<f64>,
    /// The thresholds; `None` for rules without one.
    pub thresholds: Option<Thresholds>,
}

/// The threshold of each row's prompt, in reward units.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Thresholds {
    /// m\*.
    pub values: Vec<f64>,
    /// The low end of its interval.
    pub low: Vec<Option<f64>>,
    /// The high end.
    pub high: Vec<Option<f64>>,
}

impl ShapedColumns {
    /// The columns' names, in order.
    pub fn names(rule: Rule) -> impl Iterator<Item = String> {
        let name = rule.name().replace('-', "_");
        let columns = ["shaped_{}", "threshold_{}", "threshold_{}_low", "threshold_{}_high"];
        let count = if rule.has_threshold() { columns.len() } else { 1 };
        columns.into_iter().take(count).map(move |column| column.replace("{}", &name))
    }

    /// The columns, in the order of their names.
    pub(super) fn values(&self) -> Vec<Vec<Option<f64>>> {
        let all = |values: &[f64]| values.iter().copied().map(Some).collect();
        let mut columns = vec![all(&self.values)];
        if let Some(Thresholds { values, low, high }) = &self.thresholds {
            columns.extend([all(values), low.clone(), high.clone()]);
        }
        columns
    }

    /// Where the settings are in the metadata.
    pub(super) fn key(&self) -> String {
        key(self.rule)
    }

    /// The rule's place among all rules: the order of the columns.
    pub(super) fn place(&self) -> Option<usize> {
        Rule::ALL.iter().position(|rule| *rule == self.rule)
    }

    /// The length of a column that has not one value per row, and the number of rows.
    pub(super) fn differs_from(&self, rows: usize) -> Option<(usize, usize)> {
        let thresholds = self.thresholds.is_some() == self.rule.has_threshold();
        let lengths = self.values().into_iter().map(|values| if thresholds { values.len() } else { 0 });
        lengths.into_iter().find(|&length| length != rows).map(|length| (length, rows))
    }

    /// From the numbers behind each row. What is wrong with them, if something is.
    pub(super) fn read(
        rules: &[Rule],
        beside: &[Vec<Option<f64>>],
        notes: &[KeyValue],
    ) -> Result<Vec<Self>, String> {
        let mut at = 0;
        let mut next = |name: String| -> Result<(String, Vec<Option<f64>>), String> {
            let column: Vec<_> = beside.iter().map(|row| row.get(at).copied().flatten()).collect();
            at += 1;
            match column.iter().flatten().find(|value| !value.is_finite()) {
                Some(value) => Err(format!("{name} has {value}")),
                None => Ok((name, column)),
            }
        };
        let all = |(name, column): (String, Vec<Option<f64>>)| -> Result<Vec<f64>, String> {
            let row = column.iter().position(Option::is_none);
            row.map_or_else(
                || Ok(column.iter().copied().flatten().collect()),
                |row| Err(format!("{name} has nothing in row {row}")),
            )
        };
        let mut shaped = Vec::new();
        for &rule in rules {
            let key = key(rule);
            let note = notes.iter().find(|note| note.key == key).and_then(|note| note.value.as_deref());
            let settings = note.and_then(|note| serde_json::from_str(note).ok());
            let settings = settings.ok_or_else(|| format!("its metadata lack {key}"))?;
            let mut columns =
                Self::names(rule).map(&mut next).collect::<Result<Vec<_>, _>>()?.into_iter();
            let values = columns.next().map_or(Ok(Vec::new()), all)?;
            let thresholds = match (columns.next(), columns.next(), columns.next()) {
                (Some(values), Some((_, low)), Some((_, high))) => {
                    Some(Thresholds { values: all(values)?, low, high })
                }
                _ => None,
            };
            shaped.push(Self { rule, settings, values, thresholds });
        }
        Ok(shaped)
    }
}

fn key(rule: Rule) -> String {
    format!("stackelberg.shaping.{rule}")
}

/// All settings of a shaping, by the names of the command line.
pub(crate) fn shaping_settings(shaping: &Shaping) -> Value {
    let Shaping { rule, strength, bound, alpha, cap, stretch, ref_quantile, budget, exponent_cap } =
        shaping;
    json!({
        "shaping": rule.name(),
        "strength": strength,
        "bound": bound,
        "alpha": alpha,
        "cap": cap,
        "stretch": stretch,
        "ref_quantile": ref_quantile,
        "budget": budget.name(),
        "exponent_cap": exponent_cap,
    })
}

/// Shapes the rewards of shards, prompt by prompt: each prompt's samples count as draws of the base policy.
#[derive(Debug, Clone)]
pub struct Shaper {
    shaping: Shaping,
    kl_budget: Option<f64>,
    confidence: Option<Confidence>,
    settings: Value,
}

impl Shaper {
    /// Shapes under these settings; `level` is asked of the intervals for m\*, see
    /// [`Confidence`]; without one there are none. With
    /// `kl_budget` (nats), the bound is solved for, prompt by prompt.
    ///
    /// # Errors
    /// A setting outside its range; a budget for a rule without a bound, since what would be solved for is
    /// then each prompt's strength, which shaped rewards do not hold.
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

    /// Reads a whole dataset and shapes it, writing nothing: every prompt's name and rewards. `progress`
    /// hears of every shard.
    ///
    /// # Errors
    /// The dataset has no rewards, or a shard is missing or broken; as [`Shaper::shape`].
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

    /// Writes shaped rewards into every shard of a dataset, in place of those under the same rule. What was
    /// stopped half way is finished by doing it again.
    ///
    /// # Errors
    /// As [`Shaper::read`], which is best called before; a file cannot be written.
    pub fn write(&self, dataset: &Dataset, progress: &mut dyn FnMut()) -> Result<(), Error> {
        for shard in dataset.iter() {
            let shard = shard?;
            let columns = self.shape(&shard)?;
            dataset.add_shaped(shard, columns)?;
            progress();
        }
        Ok(())
    }

    /// The shaped rewards of a shard, whose rows all have a reward.
    ///
    /// # Errors
    /// A sample without a reward; rewards that span more than an f64 holds.
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
