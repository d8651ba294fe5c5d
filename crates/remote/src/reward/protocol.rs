//! The protocols of reward servers: how texts are sent, and where the rewards are in the response.

use serde_json::{Value, json};
use stackelberg_engine::Prompt;
use stackelberg_engine::reward::{Exchange, RewardFormat};
use strum::IntoEnumIterator;

/// A protocol, which the end of the address names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumIter, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub(super) enum Protocol {
    /// vLLM: the probability of a label.
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
    pub(super) fn has_one_prompt(self) -> bool {
        self == Self::Rerank
    }

    /// The request for these texts; there is at least one.
    pub(super) fn request(self, exchanges: &[Exchange<'_>], format: RewardFormat) -> Value {
        let texts = || exchanges.iter().map(|exchange| format.lay_out(*exchange));
        let answers = || exchanges.iter().map(|exchange| exchange.answer).collect::<Vec<_>>();
        match self {
            Self::Classify | Self::Pooling => json!({"input": texts().collect::<Vec<_>>()}),
            Self::Score => json!({
                "text_1": exchanges.iter().map(prompt_text).collect::<Vec<_>>(),
                "text_2": answers(),
            }),
            Self::Predict => json!({
                "inputs": texts().map(|text| [text]).collect::<Vec<_>>(),
                "raw_scores": true, "truncate": true,
            }),
            Self::Rerank => json!({
                "query": prompt_text(&exchanges[0]), "texts": answers(),
                "raw_scores": true, "truncate": true,
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

    /// The reward in one text's entry; `None` if there is no number where one should be.
    ///
    /// # Errors
    /// The reward has several labels, and `label` chooses none of them.
    pub(super) fn reward(self, row: &Value, label: Option<&str>) -> Result<Option<f64>, String> {
        match self {
            Self::Score | Self::Rerank => Ok(row["score"].as_f64()),
            Self::Pooling => {
                let mut last = &row["data"];
                while let Some(list) = last.as_array() {
                    last = list.last().unwrap_or(&Value::Null);
                }
                Ok(last.as_f64())
            }
            Self::Classify => probability(row, label),
            Self::Predict => label_score(row, label),
        }
    }
}

/// The probability of a label in `{"label": MOST_LIKELY, "probs": [...]}`.
fn probability(row: &Value, label: Option<&str>) -> Result<Option<f64>, String> {
    let probabilities = row["probs"].as_array().map_or(&[][..], Vec::as_slice);
    let (several, label) = match (probabilities, label) {
        ([one], _) => return Ok(one.as_f64()),
        (several, Some(label)) => (several, label),
        (several, None) => {
            let n = several.len();
            return Err(format!(
                "tells {n} labels apart: choose one by its number, behind a '#' (…/classify#0)"
            ));
        }
    };
    if let Ok(number) = label.parse::<usize>() {
        return Ok(several.get(number).and_then(Value::as_f64));
    }
    // The response names only the most likely label: of two labels, the other one has the rest.
    match row["label"].as_str() {
        Some(named) if several.len() == 2 => {
            let most = several.iter().filter_map(Value::as_f64).fold(f64::NAN, f64::max);
            Ok(Some(if named == label { most } else { 1.0 - most }))
        }
        _ => Err("names no labels: choose one by number, behind a '#'".to_owned()),
    }
}

/// The score of a label in `[{"label": NAME, "score": NUMBER}, ...]`.
fn label_score(row: &Value, label: Option<&str>) -> Result<Option<f64>, String> {
    let labels = row.as_array().map_or(&[][..], Vec::as_slice);
    let chosen = match (labels, label) {
        ([one], _) => Some(one),
        (several, Some(label)) => several.iter().find(|one| one["label"] == label),
        (_, None) => None,
    };
    chosen.map(|one| one["score"].as_f64()).ok_or_else(|| {
        let names: Vec<&str> = labels.iter().filter_map(|one| one["label"].as_str()).collect();
        format!("knows the labels {}: choose one, behind a '#'", names.join(", "))
    })
}

/// The prompt as one text.
fn prompt_text(exchange: &Exchange<'_>) -> String {
    match exchange.prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Messages(_) => exchange.prompt.raw(None),
    }
}
