//! The protocols of reward servers: how texts are sent, and where the rewards are in the response.

use serde_json::{Value, json};
use stackelberg_engine::Prompt;
use stackelberg_engine::reward::{Exchange, RewardFormat};

use super::label::{Names, label_logit, label_score, last_number, only};

/// A protocol. The end of the address names one, or two that have the same path: then the server shows which one it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// vLLM `/classify`: the logit of a label.
    Classify,
    /// vLLM `/score`: the score of a pair of texts, prompt and answer.
    Score,
    /// vLLM `/pooling`: the last number that a reward model gives.
    Pooling,
    /// vLLM and SGLang `/v1/rerank`: the scores of several answers to one prompt.
    Documents,
    /// text-embeddings-inference `/predict`: the raw score of a label.
    Predict,
    /// text-embeddings-inference `/rerank`: the raw scores of several answers to one prompt.
    Rerank,
    /// SGLang `/classify`: the numbers that a reward model gives.
    Embedding,
    /// SGLang `/v1/score`: the logits of a classifier.
    Items,
}

/// The ends of addresses with their protocols, in the order in which they are tried.
const PATHS: [(&str, &[Protocol]); 9] = [
    ("classify", &[Protocol::Classify, Protocol::Embedding]),
    ("score", &[Protocol::Score, Protocol::Items]),
    ("pooling", &[Protocol::Pooling]),
    ("predict", &[Protocol::Predict]),
    ("rerank", &[Protocol::Rerank, Protocol::Documents]),
    ("v1/classify", &[Protocol::Classify]),
    ("v1/score", &[Protocol::Score, Protocol::Items]),
    ("v1/rerank", &[Protocol::Documents]),
    ("v2/rerank", &[Protocol::Documents]),
];

/// The path at the end of an address, and its protocols in the order in which they are tried.
pub(super) fn of_path(address: &str) -> Option<(&'static str, &'static [Protocol])> {
    let ends =
        |(end, _): &&(&str, _)| address.strip_suffix(*end).is_some_and(|start| start.ends_with('/'));
    PATHS.iter().filter(ends).max_by_key(|(end, _)| end.len()).copied()
}

/// The ends of addresses, for messages.
pub(super) fn paths() -> String {
    PATHS.map(|(end, _)| format!("/{end}")).join(", ")
}

impl Protocol {
    /// Whose protocol it is, for messages.
    pub(super) fn whose(self) -> &'static str {
        match self {
            Self::Classify | Self::Score | Self::Pooling | Self::Documents => "vLLM",
            Self::Predict | Self::Rerank => "text-embeddings-inference",
            Self::Embedding | Self::Items => "SGLang",
        }
    }

    /// Whether all texts of a request must have the same prompt.
    fn has_one_prompt(self) -> bool {
        matches!(self, Self::Rerank | Self::Documents | Self::Items)
    }

    /// Whether all texts of a request must begin alike, with a special token or without.
    fn tells_special(self) -> bool {
        matches!(self, Self::Classify | Self::Pooling)
    }

    /// Whether a request can ask for a sigmoid or softmax as well as for raw numbers.
    pub(super) fn has_activation(self) -> bool {
        !matches!(self, Self::Embedding | Self::Items)
    }

    /// Whether the entries of a response come in another order than the texts, so that each needs its index.
    fn is_sorted(self) -> bool {
        matches!(self, Self::Rerank | Self::Documents)
    }

    /// The formats of texts that it can send. Servers that take messages lay them out in their model's chat template.
    pub(super) fn formats(self) -> &'static [RewardFormat] {
        use RewardFormat::{Answer, Chat, Closed, Hh, Raw};
        match self {
            Self::Classify | Self::Pooling => &[Raw, Hh, Chat, Closed, Answer],
            _ => &[Raw, Hh, Answer],
        }
    }

    /// Whether two texts may be sent in one request.
    pub(super) fn goes_with(self, a: &Exchange<'_>, b: &Exchange<'_>, format: RewardFormat) -> bool {
        // A request has the messages of one conversation.
        if matches!(format, RewardFormat::Chat | RewardFormat::Closed) {
            return false;
        }
        let special = |exchange: &Exchange<'_>| begins_special(&format.lay_out(*exchange));
        (!self.has_one_prompt() || a.prompt == b.prompt)
            && (!self.tells_special() || special(a) == special(b))
    }

    /// The request for these texts; there is at least one. `raw` numbers are asked for, or else those behind the server's
    /// sigmoid or softmax.
    pub(super) fn request(self, exchanges: &[Exchange<'_>], format: RewardFormat, raw: bool) -> Value {
        let texts = || exchanges.iter().map(|exchange| format.lay_out(*exchange)).collect::<Vec<_>>();
        let answers = || exchanges.iter().map(|exchange| exchange.answer).collect::<Vec<_>>();
        match self {
            // Without `use_activation` the server applies a sigmoid or softmax, which saturates.
            Self::Classify | Self::Pooling
                if matches!(format, RewardFormat::Chat | RewardFormat::Closed) =>
            {
                json!({
                    "messages": messages(&exchanges[0]), "add_generation_prompt": false,
                    "continue_final_message": format == RewardFormat::Chat, "use_activation": !raw,
                })
            }
            Self::Classify | Self::Pooling => {
                let texts = texts();
                // The text of a chat template has its beginning-of-text token, which would be added again.
                let special = texts.first().is_some_and(|text| begins_special(text));
                let mut body = json!({"input": texts, "use_activation": !raw});
                if special {
                    body["add_special_tokens"] = json!(false);
                }
                body
            }
            Self::Score => json!({
                "text_1": exchanges.iter().map(prompt_text).collect::<Vec<_>>(),
                "text_2": answers(), "use_activation": !raw,
            }),
            Self::Documents => json!({
                "query": prompt_text(&exchanges[0]), "documents": answers(), "use_activation": !raw,
            }),
            // Texts that are too long lose their start: the answer is at their end.
            Self::Predict => json!({
                "inputs": texts().into_iter().map(|text| [text]).collect::<Vec<_>>(),
                "raw_scores": raw, "truncate": true, "truncation_direction": "Left",
            }),
            Self::Rerank => json!({
                "query": prompt_text(&exchanges[0]), "texts": answers(),
                "raw_scores": raw, "truncate": true, "truncation_direction": "Left",
            }),
            Self::Embedding => json!({"text": texts()}),
            // The server joins the query and each item.
            Self::Items => {
                let texts = texts();
                let same = common(&texts);
                let items: Vec<&str> = texts.iter().map(|text| &text[same..]).collect();
                json!({"query": texts[0][..same], "items": items, "apply_softmax": !raw})
            }
        }
    }

    /// The entries of a response with the numbers of their texts, of which there are `n`.
    ///
    /// # Errors
    /// What is expected instead of what.
    pub(super) fn rows(self, response: &Value, n: usize) -> Result<Vec<&Value>, Unexpected> {
        let list = match self {
            Self::Classify | Self::Score | Self::Pooling => response["data"].as_array(),
            Self::Predict | Self::Rerank | Self::Embedding => response.as_array(),
            // vLLM has an object around them, SGLang has not.
            Self::Documents => response["results"].as_array().or(response.as_array()),
            Self::Items => response["scores"].as_array(),
        };
        let list = list.filter(|list| list.len() == n);
        let list = list.ok_or_else(|| Unexpected::new(response, format!("a list of {n} scores")))?;
        let mut rows = vec![None; n];
        for (i, row) in list.iter().enumerate() {
            let at = match &row["index"] {
                Value::Null if !self.is_sorted() => Some(i),
                index => index.as_u64().and_then(|index| usize::try_from(index).ok()),
            };
            let place = at.and_then(|at| rows.get_mut(at)).filter(|place| place.is_none());
            let wrong = || Unexpected::new(row, format!("an index below {n}, each once,"));
            *place.ok_or_else(wrong)? = Some(row);
        }
        Ok(rows.into_iter().flatten().collect())
    }

    /// Checks a label, as far as that is possible before the server has answered.
    ///
    /// # Errors
    /// The protocol has no labels, or no names of labels.
    pub(super) fn check_label(self, path: &str, label: &str) -> Result<(), String> {
        match self {
            Self::Score | Self::Rerank | Self::Documents | Self::Items => {
                Err(format!("/{path} has no labels: leave out '#{label}'"))
            }
            Self::Pooling if label.parse::<usize>().is_err() => {
                Err(format!("/pooling names no labels: give the number of one instead of '#{label}'"))
            }
            Self::Pooling | Self::Classify | Self::Predict | Self::Embedding => Ok(()),
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
            Self::Documents => Ok(row["relevance_score"].as_f64().or(row["score"].as_f64())),
            Self::Pooling => last_number(&row["data"], label),
            Self::Classify => label_logit(row, label, names),
            Self::Predict => label_score(row, label),
            Self::Embedding => only(&row["embedding"], label),
            Self::Items => only(row, None),
        }
    }

    /// The numbers of all labels in one text's entry.
    pub(super) fn numbers(self, row: &Value) -> Vec<f64> {
        let list = match self {
            Self::Score | Self::Rerank | Self::Documents => return self.number(row),
            Self::Pooling => {
                return last_number(&row["data"], None).ok().flatten().into_iter().collect();
            }
            Self::Classify => &row["probs"],
            Self::Embedding => &row["embedding"],
            Self::Predict | Self::Items => row,
        };
        let numbers = list.as_array().into_iter().flatten();
        numbers.filter_map(|one| one.as_f64().or(one["score"].as_f64())).collect()
    }

    fn number(self, row: &Value) -> Vec<f64> {
        self.reward(row, None, &Names::default()).ok().flatten().into_iter().collect()
    }
}

/// What a server said, and what is expected in its place.
#[derive(Debug)]
pub(super) struct Unexpected {
    pub(super) said: String,
    pub(super) expected: String,
}

impl Unexpected {
    pub(super) fn new(said: &Value, expected: String) -> Self {
        Self { said: said.to_string(), expected }
    }
}

/// The length of the text that all texts begin with, so that something is left of each.
fn common(texts: &[String]) -> usize {
    let first = &texts[0];
    let shared = |text: &String| first.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
    let shortest = texts.iter().map(String::len).min().unwrap_or(0);
    let most = texts.iter().map(shared).min().unwrap_or(0).min(shortest.saturating_sub(1));
    (0..=most).rev().find(|&at| texts.iter().all(|text| text.is_char_boundary(at))).unwrap_or(0)
}

/// Whether a text begins with a special token, as the text of a chat template does.
fn begins_special(text: &str) -> bool {
    const BEGINNINGS: [&str; 6] = ["<s>", "<bos>", "[CLS]", "[BOS]", "<\u{ff5c}", "[gMASK]"];
    let pipes = text.strip_prefix("<|").and_then(|rest| rest.split_once("|>"));
    let is_name = |name: &str| !name.is_empty() && !name.contains(char::is_whitespace);
    pipes.is_some_and(|(name, _)| is_name(name))
        || BEGINNINGS.iter().any(|known| text.starts_with(known))
}

/// The conversation, whose last message is the answer.
fn messages(Exchange { prompt, answer }: &Exchange<'_>) -> Vec<Value> {
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let mut all = match prompt {
        Prompt::Text(text) => vec![message("user", text)],
        Prompt::Messages(all) => all.iter().map(|one| message(&one.role, &one.content)).collect(),
    };
    all.push(message("assistant", answer));
    all
}

/// The prompt as one text.
fn prompt_text(exchange: &Exchange<'_>) -> String {
    match exchange.prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Messages(_) => exchange.prompt.raw(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What vLLM 0.32 answered, and what SGLang's documentation shows.
    fn recorded(name: &str) -> Value {
        let lines = include_str!("recorded.jsonl").lines();
        let all = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.into_iter().find(|one| one["name"] == name).unwrap()["response"].clone()
    }

    fn rewards(protocol: Protocol, response: &Value, n: usize) -> Result<Vec<f64>, String> {
        let rows = protocol.rows(response, n).map_err(|odd| odd.expected)?;
        let reward = |row: &&Value| -> Result<f64, String> {
            protocol.reward(row, None, &Names::default())?.ok_or_else(|| "no number".to_owned())
        };
        let found: Result<Vec<f64>, String> = rows.iter().map(reward).collect();
        let numbers: Vec<f64> = rows.iter().flat_map(|row| protocol.numbers(row)).collect();
        assert!(found.is_err() || found.as_ref() == Ok(&numbers), "{found:?} {numbers:?}");
        found
    }

    #[test]
    fn recorded_answers_are_read() {
        for (name, protocol, expected) in [
            ("classify_no_activation", Protocol::Classify, vec![-0.7951135039329529, 1.813770055770874]),
            (
                "score_queries_documents_noact",
                Protocol::Score,
                vec![1.6274207830429077, 1.0027565956115723],
            ),
            ("pooling_token_ids_batch", Protocol::Pooling, vec![2.1524171829223633, 1.2579418420791626]),
            // A reward at every prefix: that of the whole text is the last.
            (
                "pooling_token_classify_batch",
                Protocol::Pooling,
                vec![-0.7951135039329529, 1.2579418420791626],
            ),
            // Sorted by score: the third text comes second.
            (
                "v1_rerank",
                Protocol::Documents,
                vec![0.8358160257339478, 0.7316002249717712, 0.749423623085022],
            ),
            ("sglang_v1_rerank", Protocol::Documents, vec![-8.19, 5.26]),
            ("sglang_classify", Protocol::Embedding, vec![-24.25, 1.0703125]),
            ("sglang_v1_score", Protocol::Items, vec![0.5, -1.25]),
        ] {
            assert_eq!(rewards(protocol, &recorded(name), expected.len()), Ok(expected), "{name}");
        }
        let one = rewards(Protocol::Documents, &recorded("v1_rerank_noact"), 3).unwrap_err();
        assert_eq!(one, "a list of 3 scores", "the server left one out");
    }

    #[test]
    fn entries_in_the_wrong_order_or_number_are_refused() {
        let row = |index: Value| json!({"index": index, "relevance_score": 1.0, "score": 1.0});
        let rows =
            |indices: [Value; 2]| json!({"results": indices.clone().map(row), "data": indices.map(row)});
        for protocol in [Protocol::Documents, Protocol::Score] {
            let found = |indices| rewards(protocol, &rows(indices), 2);
            assert_eq!(found([json!(1), json!(0)]), Ok(vec![1.0, 1.0]));
            for odd in [json!(0), json!(2), json!(-1), json!("1"), json!(0.5)] {
                assert!(
                    found([json!(0), odd.clone()]).unwrap_err().starts_with("an index below 2"),
                    "{odd}"
                );
            }
        }
        // Entries that are sorted by score need an index; others come in order.
        let none = [Value::Null, Value::Null];
        assert!(rewards(Protocol::Documents, &rows(none.clone()), 2).is_err());
        assert!(rewards(Protocol::Score, &rows(none), 2).is_ok());
        for (protocol, odd) in [
            (Protocol::Documents, json!({"results": [{"index": 0, "relevance_score": "1.0"}]})),
            (Protocol::Classify, json!({"data": [{"probs": [null]}]})),
            (Protocol::Pooling, json!({"data": [{"data": []}]})),
            (Protocol::Embedding, json!([{"embedding": ["NaN"]}])),
            (Protocol::Items, json!({"scores": [[]]})),
            (Protocol::Items, json!({"scores": "none"})),
            (Protocol::Rerank, json!([{"index": 0}])),
        ] {
            assert!(rewards(protocol, &odd, 1).is_err(), "{odd}");
        }
        let two = rewards(Protocol::Embedding, &json!([{"embedding": [1.0, 2.0]}]), 1).unwrap_err();
        assert!(two.contains("tells 2 labels apart"), "{two}");
    }

    #[test]
    fn paths_name_protocols() {
        let first = |address: &str| of_path(address).map(|(end, all)| (end, all[0], all.len()));
        assert_eq!(first("http://h/v1/rerank"), Some(("v1/rerank", Protocol::Documents, 1)));
        assert_eq!(first("http://h/rerank"), Some(("rerank", Protocol::Rerank, 2)));
        assert_eq!(first("http://h/a/score"), Some(("score", Protocol::Score, 2)));
        assert_eq!(first("http://h/underscore"), None);
        assert_eq!(first("http://h/"), None);
    }

    #[test]
    fn texts_are_split_where_all_are_alike() {
        let split = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
            common(&texts)
        };
        assert_eq!(split(&["Human: a", "Human: b"]), 7);
        // Something is left of each.
        assert_eq!(split(&["same", "same"]), 3);
        assert_eq!(split(&["", "x"]), 0);
        // Not within a character: both begin with the same byte.
        assert_eq!(split(&["x\u{e9}", "x\u{e8}"]), 1);
    }
}
