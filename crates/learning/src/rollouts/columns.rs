//! Shaped rewards of a shard as Parquet columns.

use parquet::file::metadata::KeyValue;
use serde_json::Value;
use stackelberg_shaping::Rule;

/// Shaped rewards of a shard's samples under one rule, with one value per row.
///
/// | column (`-` in the rule's name becomes `_`) | content |
/// |---|---|
/// | `shaped_<rule>` | the shaped reward |
/// | `threshold_<rule>` | m\*, equal in all rows of a prompt; only for rules with a threshold |
/// | `threshold_<rule>_low`, `threshold_<rule>_high` | ends of its confidence interval; null if there is none |
///
/// All columns are optional doubles. The settings are JSON in the file's metadata, under `stackelberg.shaping.<rule>`.
#[derive(Debug, Clone, PartialEq)]
pub struct ShapedColumns {
    /// The rule.
    pub rule: Rule,
    /// All settings of the shaping, by their names on the command line.
    pub settings: Value,
    /// The shaped rewards.
    pub values: Vec<f64>,
    /// The thresholds; `None` for rules without a threshold.
    pub thresholds: Option<Thresholds>,
}

/// The threshold of each row's prompt with its confidence interval, in reward units.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Thresholds {
    /// m\*.
    pub values: Vec<f64>,
    /// Low end of the interval.
    pub low: Vec<Option<f64>>,
    /// High end of the interval.
    pub high: Vec<Option<f64>>,
}

impl ShapedColumns {
    /// Names of the columns of a rule, in order.
    pub fn names(rule: Rule) -> impl Iterator<Item = String> {
        let name = rule.name().replace('-', "_");
        let columns = ["shaped_{}", "threshold_{}", "threshold_{}_low", "threshold_{}_high"];
        let count = if rule.has_threshold() { columns.len() } else { 1 };
        columns.into_iter().take(count).map(move |column| column.replace("{}", &name))
    }

    /// The columns, in the order of [`ShapedColumns::names`].
    pub fn values(&self) -> Vec<Vec<Option<f64>>> {
        let all = |values: &[f64]| values.iter().copied().map(Some).collect();
        let mut columns = vec![all(&self.values)];
        if let Some(Thresholds { values, low, high }) = &self.thresholds {
            columns.extend([all(values), low.clone(), high.clone()]);
        }
        columns
    }

    /// Metadata key of the settings.
    pub(super) fn key(&self) -> String {
        key(self.rule)
    }

    /// Index of the rule in [`Rule::ALL`], which orders the columns.
    pub(super) fn place(&self) -> Option<usize> {
        Rule::ALL.iter().position(|rule| *rule == self.rule)
    }

    /// The length of a column that does not have one value per row, with the number of rows; `None` if all columns fit.
    pub(super) fn differs_from(&self, rows: usize) -> Option<(usize, usize)> {
        let thresholds = self.thresholds.is_some() == self.rule.has_threshold();
        let lengths = self.values().into_iter().map(|values| if thresholds { values.len() } else { 0 });
        lengths.into_iter().find(|&length| length != rows).map(|length| (length, rows))
    }

    /// Collects the columns of these rules from the extra numbers of each row. The error describes the problem.
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
                |row| Err(format!("{name} is null in row {row}")),
            )
        };
        let mut shaped = Vec::new();
        for &rule in rules {
            let key = key(rule);
            let note = notes.iter().find(|note| note.key == key).and_then(|note| note.value.as_deref());
            let settings = note.and_then(|note| serde_json::from_str(note).ok());
            let settings = settings.ok_or_else(|| format!("its metadata has no {key}"))?;
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
