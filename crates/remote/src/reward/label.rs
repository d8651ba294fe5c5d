//! Labels of reward models: which number of a response is the reward.

use std::collections::BTreeMap;

use serde_json::Value;

/// Names of labels by number, as the answers of `/classify` name them: each answer names the most likely one.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<usize, String>);

impl Names {
    /// Learns from one text's entry.
    pub(super) fn learn(&mut self, row: &Value) {
        let values: Vec<f64> = numbers(&row["probs"]).iter().filter_map(Value::as_f64).collect();
        let most = (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b]));
        // Of two equal values the server may mean either.
        let tied = |most: &usize| values.iter().filter(|value| **value == values[*most]).count() > 1;
        if let (Some(most), Some(name)) = (most.filter(|most| !tied(most)), row["label"].as_str()) {
            self.0.insert(most, name.to_owned());
        }
    }

    /// Labels that have been named.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    fn known(&self) -> String {
        let known = self.0.iter().map(|(number, name)| format!("{name} (#{number})"));
        known.collect::<Vec<_>>().join(", ")
    }
}

/// The only number of a list, or that of the label with this number.
///
/// # Errors
/// There are several and no label, or no such label.
pub(super) fn only(values: &Value, label: Option<&str>) -> Result<Option<f64>, String> {
    match (numbers(values), label) {
        (values, Some(label)) => numbered(values, label),
        ([one], None) => Ok(one.as_f64()),
        ([], None) => Ok(None),
        (several, None) => Err(tells(several.len())),
    }
}

fn tells(labels: usize) -> String {
    format!("tells {labels} labels apart: choose one by its number, behind a '#' (\u{2026}/classify#0)")
}

fn numbers(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The last number in nested lists, or that of the label with this number in the last list.
pub(super) fn last_number(data: &Value, label: Option<&str>) -> Result<Option<f64>, String> {
    let mut last = data;
    while let Some(next) = last.as_array().and_then(|list| list.last()) {
        if let (Some(label), true) = (label, next.is_number()) {
            return numbered(numbers(last), label);
        }
        last = next;
    }
    Ok(last.as_f64())
}

/// The value of the label with this number.
fn numbered(values: &[Value], label: &str) -> Result<Option<f64>, String> {
    let value = label.parse::<usize>().ok().and_then(|number| values.get(number));
    value.map(Value::as_f64).ok_or_else(|| {
        let n = values.len();
        format!("has no label {label}: it tells {n} labels apart, whose numbers begin with 0")
    })
}

/// The logit of a label in `{"label": MOST_LIKELY, "probs": [...]}`.
pub(super) fn label_logit(
    row: &Value,
    label: Option<&str>,
    names: &Names,
) -> Result<Option<f64>, String> {
    let logits = numbers(&row["probs"]);
    let Some(label) = label else {
        return match logits {
            [one] => Ok(one.as_f64()),
            several => Err(tells(several.len())),
        };
    };
    let named = names.0.iter().find(|(_, name)| *name == label);
    if let Some((number, _)) = named {
        return Ok(logits.get(*number).and_then(Value::as_f64));
    }
    if label.parse::<usize>().is_ok() {
        return numbered(logits, label);
    }
    let last = logits.len().saturating_sub(1);
    Err(match names.0.len() {
        0 => format!("names no labels: choose one by its number, 0 to {last}, behind a '#'"),
        n if n < logits.len() => format!(
            "has not named a label '{label}' so far, but {} of {} labels: check the name, or choose by number, \
             0 to {last}, behind a '#'",
            names.known(),
            logits.len()
        ),
        _ => format!("has no label '{label}': it has {}", names.known()),
    })
}

/// The score of a label in `[{"label": NAME, "score": NUMBER}, ...]`.
pub(super) fn label_score(row: &Value, label: Option<&str>) -> Result<Option<f64>, String> {
    let labels = numbers(row);
    let chosen = match (labels, label) {
        ([one], None) => Some(one),
        (several, Some(label)) => several.iter().find(|one| one["label"] == label),
        (_, None) => None,
    };
    chosen.map(|one| one["score"].as_f64()).ok_or_else(|| {
        let names: Vec<&str> = labels.iter().filter_map(|one| one["label"].as_str()).collect();
        format!("knows the labels {}: choose one, behind a '#'", names.join(", "))
    })
}
