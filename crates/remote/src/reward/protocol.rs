//! The protocols of reward servers: how texts are sent, and where the rewards are in the response.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use stackelberg_engine::Prompt;
use stackelberg_engine::reward::{Exchange, RewardFormat};
use strum::IntoEnumIterator;

/// A protocol, which the end of the address names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumIter, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub(super) enum Protocol {
    /// vLLM: the logit of a label.
    Classify,
    /// vLLM: the score of a pair of texts, prompt and answer.
    Score,
    /// vLLM: the last number that a reward model gives.
    Pooling,
    /// text-embeddings-inference: the raw score of a label.
    Predict,
    /// text-embeddings-inference: the raw scores of several answers to one prompt.
    Rerank,
}

impl Protocol {
    /// The protocol of an address that ends with its path.
    pub(super) fn of(address: &str) -> Option<Self> {
        Self::iter().find(|protocol| address.ends_with(&protocol.path()))
    }

    /// All paths, for messages.
    pub(super) fn paths() -> String {
        Self::iter().map(Self::path).collect::<Vec<_>>().join(", ")
    }

    fn path(self) -> String {
        format!("/{}", <&str>::from(self))
    }

    /// Whether all texts of a request must have the same prompt.
    fn has_one_prompt(self) -> bool {
        self == Self::Rerank
    }

    /// Whether all texts of a request must begin alike, with a special token or without.
    fn tells_special(self) -> bool {
        matches!(self, Self::Classify | Self::Pooling)
    }

    /// Whether two texts may be sent in one request.
    pub(super) fn goes_with(self, a: &Exchange<'_>, b: &Exchange<'_>, format: RewardFormat) -> bool {
        let special = |exchange: &Exchange<'_>| begins_special(&format.lay_out(*exchange));
        (!self.has_one_prompt() || a.prompt == b.prompt)
            && (!self.tells_special() || special(a) == special(b))
    }

    /// The request for these texts; there is at least one.
    pub(super) fn request(self, exchanges: &[Exchange<'_>], format: RewardFormat) -> Value {
        let texts = || exchanges.iter().map(|exchange| format.lay_out(*exchange));
        let answers = || exchanges.iter().map(|exchange| exchange.answer).collect::<Vec<_>>();
        match self {
            // Without `use_activation` the server applies a sigmoid or softmax, which saturates.
            Self::Classify | Self::Pooling => {
                let mut body = json!({"input": texts().collect::<Vec<_>>(), "use_activation": false});
                // The text of a chat template has its beginning-of-text token, which would be added again.
                if texts().next().is_some_and(|text| begins_special(&text)) {
                    body["add_special_tokens"] = json!(false);
                }
                body
            }
            Self::Score => json!({
                "text_1": exchanges.iter().map(prompt_text).collect::<Vec<_>>(),
                "text_2": answers(), "use_activation": false,
            }),
            // Texts that are too long lose their start: the answer is at their end.
            Self::Predict => json!({
                "inputs": texts().map(|text| [text]).collect::<Vec<_>>(),
                "raw_scores": true, "truncate": true, "truncation_direction": "Left",
            }),
            Self::Rerank => json!({
                "query": prompt_text(&exchanges[0]), "texts": answers(),
                "raw_scores": true, "truncate": true, "truncation_direction": "Left",
            }),
        }
    }

    /// The entries of a response, one per text.
    pub(super) fn rows(self, response: &Value) -> Option<&Vec<Value>> {
        match self {
            Self::Classify | Self::Score | Self::Pooling => response["data"].as_array(),
            Self::Predict | Self::Rerank => response.as_array(),
        }
    }

    /// Checks a label, as far as that is possible before the server has answered.
    ///
    /// # Errors
    /// The protocol has no labels, or no names of labels.
    pub(super) fn check_label(self, label: &str) -> Result<(), String> {
        match self {
            Self::Score | Self::Rerank => {
                Err(format!("{} has no labels: leave out '#{label}'", self.path()))
            }
            Self::Pooling if label.parse::<usize>().is_err() => {
                Err(format!("/pooling names no labels: give the number of one instead of '#{label}'"))
            }
            Self::Pooling | Self::Classify | Self::Predict => Ok(()),
        }
    }

    /// The reward in one text's entry; `None` if there is no number where one should be. `names` are the labels that the
    /// server's answers have named.
    ///
    /// # Errors
    /// The reward has several labels, and `label` chooses none of them.
    pub(super) fn reward(
        self,
        row: &Value,
        label: Option<&str>,
        names: &Names,
    ) -> Result<Option<f64>, String> {
        match self {
            Self::Score | Self::Rerank => Ok(row["score"].as_f64()),
            Self::Pooling => last_number(&row["data"], label),
            Self::Classify => label_logit(row, label, names),
            Self::Predict => label_score(row, label),
        }
    }
}

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

    fn known(&self) -> String {
        let known = self.0.iter().map(|(number, name)| format!("{name} (#{number})"));
        known.collect::<Vec<_>>().join(", ")
    }
}

fn numbers(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The last number in nested lists, or that of the label with this number in the last list.
fn last_number(data: &Value, label: Option<&str>) -> Result<Option<f64>, String> {
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
fn label_logit(row: &Value, label: Option<&str>, names: &Names) -> Result<Option<f64>, String> {
    let logits = numbers(&row["probs"]);
    let Some(label) = label else {
        return match logits {
            [one] => Ok(one.as_f64()),
            several => Err(format!(
                "tells {} labels apart: choose one by its number, behind a '#' (…/classify#0)",
                several.len()
            )),
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
            "has not named a label '{label}' so far, but {} of {} labels: check the name, or choose by number,              0 to {last}, behind a '#'",
            names.known(),
            logits.len()
        ),
        _ => format!("has no label '{label}': it has {}", names.known()),
    })
}

/// The score of a label in `[{"label": NAME, "score": NUMBER}, ...]`.
fn label_score(row: &Value, label: Option<&str>) -> Result<Option<f64>, String> {
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

/// Whether a text begins with a special token, as the text of a chat template does.
fn begins_special(text: &str) -> bool {
    const BEGINNINGS: [&str; 6] = ["<s>", "<bos>", "[CLS]", "[BOS]", "<\u{ff5c}", "[gMASK]"];
    let pipes = text.strip_prefix("<|").and_then(|rest| rest.split_once("|>"));
    let is_name = |name: &str| !name.is_empty() && !name.contains(char::is_whitespace);
    pipes.is_some_and(|(name, _)| is_name(name))
        || BEGINNINGS.iter().any(|known| text.starts_with(known))
}

/// The prompt as one text.
fn prompt_text(exchange: &Exchange<'_>) -> String {
    match exchange.prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Messages(_) => exchange.prompt.raw(None),
    }
}
