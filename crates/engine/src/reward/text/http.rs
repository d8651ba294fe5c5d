//! A reward that a server gives: vLLM's or text-embeddings-inference's (TEI's).
//!
//! | path | protocol | what is read |
//! |---|---|---|
//! | `/classify` | vLLM | the probability of a label |
//! | `/score` | vLLM | the score of prompt and answer |
//! | `/pooling` | vLLM | the last number: a reward model's |
//! | `/predict` | TEI | the raw score of a label |
//! | `/rerank` | TEI | the raw score of prompt and answer |

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::blocking::Client;
use reqwest::redirect::Policy;
use serde_json::{Value, json};

use super::{Exchange, RewardFormat, TextScorer};
use crate::chat::Prompt;
use crate::error::{Error, Result};

/// A server that scores texts. `#LABEL` behind the address chooses a label, `?model=NAME` names the model to
/// a server that has several. A key in the environment variable `REWARD_API_KEY` is sent along.
pub struct HttpReward {
    client: Client,
    url: String,
    protocol: Protocol,
    model: Option<String>,
    label: Option<String>,
    key: Option<String>,
    retries: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Classify,
    Score,
    Pooling,
    Predict,
    Rerank,
}

const PATHS: [(&str, Protocol); 5] = [
    ("/classify", Protocol::Classify),
    ("/score", Protocol::Score),
    ("/pooling", Protocol::Pooling),
    ("/predict", Protocol::Predict),
    ("/rerank", Protocol::Rerank),
];

/// Texts to a request.
const AT_ONCE: usize = 32;

impl HttpReward {
    /// A server by its address, which is not asked yet.
    ///
    /// # Errors
    /// The address ends with no path that is known.
    pub fn new(address: &str, timeout: Duration) -> Result<Self> {
        let (rest, label) = match address.split_once('#') {
            Some((rest, label)) => (rest, Some(label.to_owned())),
            None => (address, None),
        };
        let (url, model) = match rest.split_once("?model=") {
            Some((url, model)) => (url, Some(model.to_owned())),
            None => (rest, None),
        };
        let url = url.trim_end_matches('/').to_owned();
        let Some((_, protocol)) = PATHS.into_iter().find(|(path, _)| url.ends_with(path)) else {
            let known = PATHS.map(|(path, _)| path).join(", ");
            return Err(Error::Scorer(format!("{address}: the address must end with one of {known}")));
        };
        let fails = |e: &dyn std::fmt::Display| Error::Scorer(format!("{address}: {e}"));
        let builder = stackelberg_http::builder(&url, timeout).map_err(|e| fails(&e))?;
        let client = builder.redirect(Policy::default()).build().map_err(|e| fails(&e))?;
        let key = std::env::var("REWARD_API_KEY").ok().filter(|key| !key.is_empty());
        Ok(Self { client, url, protocol, model, label, key, retries: 4 })
    }

    /// Sends a request, again after a while where the server is busy or fails.
    fn send(&self, body: &Value) -> Result<Value> {
        let mut wait = Duration::from_millis(250);
        let mut left = self.retries;
        loop {
            let mut request = self.client.post(&self.url).header("content-type", "application/json");
            if let Some(key) = &self.key {
                request = request.bearer_auth(key);
            }
            let sent = request.body(body.to_string()).send();
            let said = match sent {
                Ok(response) => {
                    let status = response.status();
                    let text = response.text();
                    match (status.is_success(), text) {
                        (true, Ok(text)) => {
                            return serde_json::from_str(&text).map_err(|_| self.odd(&text, "JSON"));
                        }
                        (_, text) => {
                            let text: String = text.unwrap_or_default().chars().take(200).collect();
                            let said = format!("{status}: {}", text.trim());
                            if !(status.is_server_error()
                                || status == StatusCode::TOO_MANY_REQUESTS
                                || status.is_success())
                            {
                                return Err(self.fails(said));
                            }
                            said
                        }
                    }
                }
                Err(error) if error.is_timeout() => "no answer in time".to_owned(),
                Err(error) => {
                    let mut source: &dyn std::error::Error = &error;
                    while let Some(deeper) = source.source() {
                        source = deeper;
                    }
                    source.to_string()
                }
            };
            if left == 0 {
                return Err(self.fails(format!("{said}, after {} tries", self.retries + 1)));
            }
            left -= 1;
            std::thread::sleep(wait);
            wait *= 2;
        }
    }

    fn ask(&self, exchanges: &[Exchange<'_>], format: RewardFormat) -> Result<Vec<f64>> {
        let texts = || exchanges.iter().map(|exchange| format.lay_out(*exchange));
        let n = exchanges.len();
        let mut body = match self.protocol {
            Protocol::Classify | Protocol::Pooling => json!({"input": texts().collect::<Vec<_>>()}),
            Protocol::Score => json!({
                "text_1": exchanges.iter().map(asked).collect::<Vec<_>>(),
                "text_2": exchanges.iter().map(|exchange| exchange.answer).collect::<Vec<_>>(),
            }),
            Protocol::Predict => {
                json!({"inputs": texts().map(|text| [text]).collect::<Vec<_>>(), "raw_scores": true, "truncate": true})
            }
            Protocol::Rerank => json!({
                "query": asked(&exchanges[0]), "raw_scores": true, "truncate": true,
                "texts": exchanges.iter().map(|exchange| exchange.answer).collect::<Vec<_>>(),
            }),
        };
        if let Some(model) = &self.model {
            body["model"] = json!(model);
        }
        let said = self.send(&body)?;
        let rows = match self.protocol {
            Protocol::Classify | Protocol::Score | Protocol::Pooling => &said["data"],
            Protocol::Predict | Protocol::Rerank => &said,
        };
        let rows = rows.as_array().filter(|rows| rows.len() == n);
        let rows = rows.ok_or_else(|| self.odd(&said.to_string(), &format!("a list of {n} scores")))?;
        let mut rewards = vec![f64::NAN; n];
        for (i, row) in rows.iter().enumerate() {
            let at = row["index"].as_u64().map_or(i, |index| index as usize);
            let reward = self.reward(row)?.filter(|x| x.is_finite());
            let reward = reward.ok_or_else(|| self.odd(&row.to_string(), "a finite score"))?;
            *rewards
                .get_mut(at)
                .ok_or_else(|| self.odd(&row.to_string(), &format!("an index below {n}")))? = reward;
        }
        match rewards.iter().position(|reward| reward.is_nan()) {
            Some(i) => Err(self.fails(format!("gave no score to text {i} of {n}"))),
            None => Ok(rewards),
        }
    }

    /// The reward in one text's part of the answer.
    fn reward(&self, row: &Value) -> Result<Option<f64>> {
        match self.protocol {
            Protocol::Score | Protocol::Rerank => Ok(row["score"].as_f64()),
            Protocol::Pooling => {
                let mut last = &row["data"];
                while let Some(list) = last.as_array() {
                    last = list.last().unwrap_or(&Value::Null);
                }
                Ok(last.as_f64())
            }
            Protocol::Classify => {
                let probabilities = row["probs"].as_array().map_or(&[][..], Vec::as_slice);
                let named = row["label"].as_str();
                match (probabilities, &self.label) {
                    ([one], _) => Ok(one.as_f64()),
                    (several, Some(label)) => match label.parse::<usize>() {
                        Ok(number) => Ok(several.get(number).and_then(Value::as_f64)),
                        // The answer names only the likeliest label: of two the other has the rest.
                        Err(_) if several.len() == 2 && named.is_some() => {
                            let most = several.iter().filter_map(Value::as_f64).fold(f64::NAN, f64::max);
                            Ok(Some(if named == Some(label) { most } else { 1.0 - most }))
                        }
                        Err(_) => {
                            Err(self
                                .fails("names no labels: choose one by number, behind a '#'".to_owned()))
                        }
                    },
                    (several, None) => Err(self.fails(format!(
                        "tells {} labels apart: choose one by its number, behind a '#' (…/classify#0)",
                        several.len()
                    ))),
                }
            }
            Protocol::Predict => {
                let labels = row.as_array().map_or(&[][..], Vec::as_slice);
                let chosen = match (labels, &self.label) {
                    ([one], _) => Some(one),
                    (several, Some(label)) => several.iter().find(|one| one["label"] == label.as_str()),
                    (_, None) => None,
                };
                chosen.map(|one| one["score"].as_f64()).ok_or_else(|| {
                    let names: Vec<&str> =
                        labels.iter().filter_map(|one| one["label"].as_str()).collect();
                    self.fails(format!(
                        "knows the labels {}: choose one, behind a '#'",
                        names.join(", ")
                    ))
                })
            }
        }
    }

    fn odd(&self, said: &str, expected: &str) -> Error {
        let said: String = said.chars().take(120).collect();
        self.fails(format!("answered '{said}' where {expected} is expected"))
    }

    fn fails(&self, what: String) -> Error {
        Error::Scorer(format!("{}: {what}", self.url))
    }
}

impl TextScorer for HttpReward {
    fn score(&self, exchanges: &[Exchange<'_>], format: RewardFormat) -> Result<Vec<f64>> {
        let mut rewards = Vec::with_capacity(exchanges.len());
        let mut rest = exchanges;
        while let [first, ..] = rest {
            // A query has one prompt.
            let alike = |exchange: &&Exchange<'_>| {
                self.protocol != Protocol::Rerank || exchange.prompt == first.prompt
            };
            let n = rest.iter().take(AT_ONCE).take_while(alike).count();
            rewards.extend(self.ask(&rest[..n], format)?);
            rest = &rest[n..];
        }
        Ok(rewards)
    }

    fn usual_format(&self) -> RewardFormat {
        RewardFormat::Hh
    }
}

/// What was asked, as one text.
fn asked(exchange: &Exchange<'_>) -> String {
    match exchange.prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Messages(_) => exchange.prompt.raw(None),
    }
}
