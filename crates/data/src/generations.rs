//! Files of responses: those of `stackelberg generate`, of the paper's reference code and of AlpacaEval.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::json;
use crate::name::name_of;
use crate::prompt::{Message, Prompt};
use crate::renamed::to_current;

/// One response to one prompt: a line of `stackelberg generate --out`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Response {
    /// The line's own id, else [`Prompt::name`].
    pub id: String,
    /// The prompt.
    pub prompt: Prompt,
    /// The response.
    #[serde(rename = "response")]
    pub text: String,
    /// All other fields.
    #[serde(flatten)]
    pub record: Record,
}

/// Metadata of a response in files of `stackelberg generate`; empty in files of other projects.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Record {
    /// The name of the decoding method, such as `base` or `args`.
    pub method: Option<String>,
    /// All settings, as JSON.
    pub settings: Option<Value>,
    /// Number of tokens of the response.
    pub tokens: Option<usize>,
    /// Why generation ended: `stop` or `length`.
    pub finish_reason: Option<String>,
    /// Reward of the response under the guiding reward.
    pub reward: Option<f64>,
    /// If the guiding reward is a combination: each component by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rewards: BTreeMap<String, f64>,
    /// Mean log-probability per token under the base policy at temperature 1, in nats.
    pub mean_log_prob: Option<f64>,
    /// Duration of generation in seconds.
    pub elapsed: Option<f64>,
    /// The random seed.
    pub seed: Option<u64>,
    /// Hash of the guiding reward.
    pub reward_hash: Option<String>,
    /// Hash of the guiding value head.
    pub value_hash: Option<String>,
    /// Hash of the chat templates that laid out the texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_hash: Option<String>,
    /// Number of steps in which the chosen token differs from the base policy's choice.
    pub steered: Option<usize>,
    /// Number of steps in which rewards or values were computed.
    pub reward_calls: Option<usize>,
    /// Number of steps in which they were skipped because they could not change the choice.
    pub skipped: Option<usize>,
    /// KL from the base policy over the candidates, summed over steps, in nats.
    pub kl: Option<f64>,
    /// `-ln` of the base policy's mass on the candidates, summed over the guided steps, in nats. Older files name it
    /// `outside`.
    pub tail_nll: Option<f64>,
    /// Upper bound on the KL from the base policy, in nats; its mean over responses is the bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_bound: Option<f64>,
    /// Tokens run through the policy, including candidates and continuations that were not chosen, without the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_run: Option<usize>,
    /// Tokens scored by the reward or the value head in order to guide or to choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_scored: Option<usize>,
    /// Tokens that stopping early saved: the samples that were not drawn times the mean length of those that were, or what
    /// dropped samples were short of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_saved: Option<usize>,
    /// The expected gain of the samples that were not drawn, or of as many as were dropped, in reward units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward_lost: Option<f64>,
    /// Warnings about degenerate text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Name of the generating model (AlpacaEval).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator: Option<String>,
}

/// The responses of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Name of the file in messages and tables.
    pub name: String,
    /// The responses in the order of the file: at least one, with distinct ids.
    pub responses: Vec<Response>,
    /// Whether all lines have an id.
    pub has_ids: bool,
}

/// A line of a file.
#[derive(Deserialize)]
struct Line {
    id: Option<Value>,
    prompt: Option<Value>,
    instruction: Option<Value>,
    messages: Option<Value>,
    response: Option<String>,
    result: Option<String>,
    output: Option<String>,
}

/// Settings under the names that they have now, if there are any.
fn settings(settings: &Value) -> Option<Value> {
    let mut settings = Some(settings).filter(|settings| settings.is_object())?.clone();
    to_current(&mut settings);
    Some(settings)
}

impl Record {
    /// Reads the metadata of a line. Fields of an unexpected type belong to another project's format and are ignored.
    pub fn of(line: &Value) -> Self {
        let text = |field: &str| line[field].as_str().map(str::to_owned);
        let number = |field: &str| line[field].as_f64();
        let count = |field: &str| line[field].as_u64().and_then(|count| usize::try_from(count).ok());
        let rewards = line["rewards"].as_object().into_iter().flatten();
        let warnings = line["warnings"].as_array().into_iter().flatten();
        Self {
            method: text("method"),
            settings: settings(&line["settings"]),
            tokens: count("tokens"),
            finish_reason: text("finish_reason"),
            reward: number("reward"),
            rewards: rewards.filter_map(|(name, x)| Some((name.clone(), x.as_f64()?))).collect(),
            mean_log_prob: number("mean_log_prob"),
            elapsed: number("elapsed").filter(|seconds| *seconds > 0.0),
            seed: line["seed"].as_u64(),
            reward_hash: text("reward_hash"),
            value_hash: text("value_hash"),
            template_hash: text("template_hash"),
            steered: count("steered"),
            reward_calls: count("reward_calls"),
            skipped: count("skipped"),
            kl: number("kl"),
            kl_bound: number("kl_bound"),
            tokens_run: count("tokens_run"),
            tokens_scored: count("tokens_scored"),
            tokens_saved: count("tokens_saved"),
            reward_lost: number("reward_lost"),
            tail_nll: number("tail_nll").or_else(|| number("outside")),
            warnings: warnings.filter_map(|warning| warning.as_str().map(str::to_owned)).collect(),
            generator: text("generator"),
        }
    }
}

/// Reads responses from a JSON array or JSON lines, plain or gzipped; `-` is standard input. An object has `prompt`
/// (a text, or messages with `role` and `content`) or `instruction`, and `response`, `result` or `output`; or `messages`,
/// the last of which is the response unless there is one.
///
/// # Errors
/// The file cannot be read or has no responses, an id occurs twice, or a line is malformed. Errors name line and field.
pub fn read(path: &Path) -> Result<Run> {
    parse(&name_of(path), &json::read_text(path)?)
}

/// Like [`read`], from memory; `name` is the file's name in errors.
///
/// # Errors
/// As [`read`].
pub fn parse(name: &str, text: &str) -> Result<Run> {
    let name = name.to_owned();
    let (mut responses, mut has_ids) = (Vec::new(), true);
    let mut used: HashMap<String, usize> = HashMap::new();
    for (line, value) in json::values(&name, text)? {
        let wrong = |problem| Error::line(&name, line, problem);
        let value = json::parse(value).map_err(wrong)?;
        let (own_id, mut response) = response(value).map_err(wrong)?;
        has_ids &= own_id;
        if !own_id {
            let alone = response.id.clone();
            let mut number = 1;
            while used.contains_key(&response.id) {
                number += 1;
                response.id = format!("{alone}-{number}");
            }
        }
        if let Some(before) = used.insert(response.id.clone(), line) {
            let id = &response.id;
            return Err(wrong(format!(
                "id: '{id}' is that of line {before} too: give one file one answer to each prompt"
            )));
        }
        responses.push(response);
    }
    if responses.is_empty() {
        return Err(Error::File { file: name, problem: "no answers".to_owned() });
    }
    Ok(Run { name, responses, has_ids })
}

/// The response in a JSON value, and whether the value has an id.
fn response(value: Value) -> std::result::Result<(bool, Response), String> {
    if !value.is_object() {
        return Err("not an object with a prompt and a response".to_owned());
    }
    let record = Record::of(&value);
    let line: Line = serde_json::from_value(value.clone()).map_err(|e| diagnosis(&value, &e))?;
    let id = match line.id {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) => Some(id),
        Some(Value::Number(id)) => Some(id.to_string()),
        Some(_) => return Err("id: expected a string or a number".to_owned()),
    };
    let mut texts: Vec<String> =
        [line.response, line.result, line.output].into_iter().flatten().collect();
    let prompt = match (line.prompt, line.instruction) {
        (Some(_), Some(_)) => return Err("both 'prompt' and 'instruction': keep one".to_owned()),
        (Some(prompt), None) => read_prompt("prompt", prompt)?,
        (None, Some(prompt)) => read_prompt("instruction", prompt)?,
        (None, None) => match line.messages.filter(|messages| !messages.is_null()) {
            Some(messages) => {
                let messages: Vec<Message> = serde_path_to_error::deserialize(messages)
                    .map_err(|e| format!("messages{}: {}", e.path(), e.inner()))?;
                let (prompt, response) = split_messages(messages, texts.is_empty())?;
                texts.extend(response);
                prompt
            }
            None => return Err("no 'prompt' or 'instruction', and no 'messages'".to_owned()),
        },
    };
    let mut texts = texts.into_iter();
    let text = texts.next().ok_or("no 'response', 'result' or 'output'")?;
    if texts.next().is_some() {
        return Err("more than one of 'response', 'result' and 'output': keep one".to_owned());
    }
    let own_id = id.is_some();
    let id = id.unwrap_or_else(|| prompt.name());
    Ok((own_id, Response { id, prompt, text, record }))
}

/// The prompt of a conversation, and with `answered` its response: the last message, of the assistant.
///
/// # Errors
/// There is no prompt, or no response where one is due.
pub fn split_messages(
    mut messages: Vec<Message>,
    answered: bool,
) -> std::result::Result<(Prompt, Option<String>), String> {
    let last = if answered { messages.pop() } else { None };
    if answered && last.as_ref().is_none_or(|last| last.role != "assistant") {
        return Err(
            "messages: the last one must be the assistant's, since it is the response".to_owned()
        );
    }
    if messages.is_empty() {
        return Err("messages: there is no prompt".to_owned());
    }
    Ok((Prompt::Messages(messages), last.map(|last| last.content)))
}

/// An error message for the first invalid field of a line.
fn diagnosis(value: &Value, error: &serde_json::Error) -> String {
    let texts = ["response", "result", "output"];
    let wrong = texts.iter().find(|&&field| !(value[field].is_null() || value[field].is_string()));
    match wrong {
        Some(field) => format!("{field}: expected a string"),
        None => error.to_string(),
    }
}

fn read_prompt(field: &str, value: Value) -> std::result::Result<Prompt, String> {
    serde_json::from_value(value).map_err(|e| format!("{field}: {e}"))
}

/// Pairs two runs by prompt: for each response of `first`, in order, the index of its partner in `second`. Prompts are
/// matched by id if both files have ids and these agree, otherwise by text.
///
/// # Errors
/// A prompt occurs in only one run, or an id stands for different prompts. The error names the first few.
pub fn pair(first: &Run, second: &Run) -> Result<Vec<usize>> {
    if !(first.has_ids && second.has_ids) {
        return pair_by(false, first, second);
    }
    // Files of different sources may number the same prompts differently.
    pair_by(true, first, second).or_else(|error| pair_by(false, first, second).map_err(|_| error))
}

fn pair_by(by_id: bool, first: &Run, second: &Run) -> Result<Vec<usize>> {
    let keys = |run: &Run| -> Vec<String> {
        match by_id {
            true => run.responses.iter().map(|r| r.id.clone()).collect(),
            false => {
                let mut seen: HashMap<String, usize> = HashMap::new();
                let mut key = |r: &Response| {
                    let text = format!("{:?}", r.prompt);
                    let count = seen.entry(text.clone()).or_default();
                    *count += 1;
                    format!("{text}{count}")
                };
                run.responses.iter().map(&mut key).collect()
            }
        }
    };
    let (ours, theirs) = (keys(first), keys(second));
    let places: HashMap<&String, usize> = theirs.iter().zip(0..).collect();
    let unpaired =
        |problem| Error::Unpaired { first: first.name.clone(), second: second.name.clone(), problem };
    let of_ours: HashMap<&String, usize> = ours.iter().zip(0..).collect();
    let lonely = |keys: &[String], others: &HashMap<&String, usize>, run: &Run| -> Vec<String> {
        let alone = keys.iter().zip(&run.responses).filter(|(key, _)| !others.contains_key(key));
        alone.map(|(_, response)| format!("'{}'", response.id)).collect()
    };
    for (keys, others, run) in [(&ours, &places, first), (&theirs, &of_ours, second)] {
        let alone = lonely(keys, others, run);
        if !alone.is_empty() {
            let few = alone.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
            let more = if alone.len() > 5 { ", ..." } else { "" };
            let are = if alone.len() == 1 { "is" } else { "are" };
            return Err(unpaired(format!(
                "{} of {} {are} in {} alone: {few}{more}",
                alone.len(),
                crate::words::count(run.responses.len(), "prompt"),
                run.name
            )));
        }
    }
    let partners: Vec<usize> = ours.iter().map(|key| places[key]).collect();
    for (response, &partner) in first.responses.iter().zip(&partners) {
        if response.prompt != second.responses[partner].prompt {
            let id = &response.id;
            return Err(unpaired(format!("prompt '{id}' has another text in each")));
        }
    }
    Ok(partners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_end_with_the_response() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let lines = r#"{"id": 1, "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, {"role": "assistant", "content": "ho"}]}
{"id": 2, "messages": [{"role": "user", "content": "hi"}], "response": "ho"}"#;
        let run = parse("f", lines)?;
        for response in &run.responses {
            assert_eq!(response.prompt, Prompt::Messages(vec![Message::new("user", "hi")]));
            assert_eq!(response.text, "ho");
        }
        let error = |line: &str| parse("f", line).expect_err("no response").to_string();
        let open = r#"{"messages": [{"role": "user", "content": "hi"}]}"#;
        assert_eq!(
            error(open),
            "f:1: messages: the last one must be the assistant's, since it is the response"
        );
        let error = error(r#"{"messages": [{"role": "user"}], "response": "x"}"#);
        assert_eq!(error, "f:1: messages[0]: missing field `content`");
        Ok(())
    }

    #[test]
    fn a_written_line_is_read_back_field_by_field() -> std::result::Result<(), Box<dyn std::error::Error>>
    {
        let written = Response {
            id: "7".to_owned(),
            prompt: Prompt::Messages(vec![Message::new("user", "hi")]),
            text: "ho".to_owned(),
            record: Record {
                method: Some("args".to_owned()),
                settings: Some(serde_json::json!({"bound": 8.0, "stop": ["x"]})),
                tokens: Some(3),
                finish_reason: Some("stop".to_owned()),
                reward: Some(0.1 + 0.2),
                rewards: BTreeMap::from([("a".to_owned(), -1.5), ("b".to_owned(), 2.0)]),
                mean_log_prob: Some(-0.75),
                elapsed: Some(0.25),
                seed: Some(u64::MAX),
                reward_hash: Some("12ab".to_owned()),
                value_hash: Some("34cd".to_owned()),
                template_hash: Some("56ef".to_owned()),
                steered: Some(1),
                reward_calls: Some(2),
                skipped: Some(4),
                kl: Some(1.5),
                tail_nll: Some(0.5),
                kl_bound: Some(2.0),
                tokens_run: Some(30),
                tokens_scored: Some(20),
                tokens_saved: Some(12),
                reward_lost: Some(0.25),
                warnings: vec!["token 3: no choice left".to_owned()],
                generator: Some("us".to_owned()),
            },
        };
        let line = serde_json::to_string(&written)?;
        let read = parse("f", &line)?;
        assert!(read.has_ids);
        assert_eq!(read.responses, [written]);
        // The field's old name is still read.
        let old = parse("f", &line.replace("tail_nll", "outside"))?;
        assert_eq!(old.responses, read.responses);
        Ok(())
    }
}
