//! Shaped rewards of a shard as Parquet columns.

use parquet::file::metadata::KeyValue;
use serde_json::Value;
use stackelberg_shaping::Rule;

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
