//! Parses one row of another program's output, as JSON: the prompt and the responses.

use serde_json::Value;
use stackelberg_engine::reward::TextFormat;
use stackelberg_engine::{Message, Prompt};

/// All fields that are read.
pub(super) const FIELDS: &[&str] = &[
    "prompt",
    "instruction",
    "messages",
    "prompt_id",
    "id",
    "custom_id",
    "prompt_token_ids",
    "response",
    "completion",
    "output",
    "text",
    "responses",
    "completions",
    "outputs",
    "choices",
    "reward",
    "score",
    "rewards",
    "scores",
    "tokens",
    "token_ids",
    "finish_reason",
    "settings",
    "error",
];

/// A parsed row.
#[derive(Debug)]
pub(super) struct Line {
    /// Id of the prompt.
    pub id: Option<String>,
    /// The prompt, if the row has it.
    pub prompt: Option<Given>,
    /// The responses, at least one.
    pub answers: Vec<Answer>,
}

/// The prompt of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Given {
    pub prompt: Prompt,
    /// Its tokens, if vLLM reports them.
    pub tokens: Option<Vec<u32>>,
    pub layout: Layout,
}

/// How a prompt was formatted before the model read it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Layout {
    /// The prompt is what a user says, and is not formatted yet.
    None,
    /// The prompt is not formatted yet; the row gives the format and the system message.
    Told(TextFormat, Option<String>),
    /// The prompt is the formatted text that the model read, in this format if it is known.
    Done(Option<TextFormat>),
}

/// A response of a row.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub text: String,
    pub tokens: Option<Vec<u32>>,
    /// The reward, finite.
    pub reward: Option<f64>,
    /// Whether it was cut at a length limit.
    pub cut: bool,
}

/// The problem of a row: the field and how to fix it.
type Wrong = String;

/// Parses a row. Rewards are read only if `rewards` is true.
pub(super) fn line(row: &Value, rewards: bool) -> Result<Line, Wrong> {
    if !row.is_object() {
        return Err("not a JSON object: write one {...} per sample or prompt".to_owned());
    }
    let name = |names: &[&'static str]| find(row, names).map(|(field, v)| id(field, v)).transpose();
    // The `id` of a completion names a request, and several requests can have the same prompt.
    let (named, any) = (name(&["prompt_id", "custom_id"])?, name(&["prompt_id", "custom_id", "id"])?);
    // OpenAI's batch output nests the completion.
    let (inside, of) = match &row["response"] {
        response @ Value::Object(_) if response["body"].is_object() => {
            ("response.body.", &response["body"])
        }
        response @ Value::Object(_) => ("response.", response),
        _ => ("", row),
    };
    let of_rewards = rewards.then_some(row);
    let (answers, requests) = if let Some((field, list)) = find(of, &["choices"]) {
        (all(&format!("{inside}{field}"), list, of_rewards, choice)?, true)
    } else if !inside.is_empty() {
        return Err(format!("{inside}choices: missing; if the request failed, remove the line"));
    } else if let Some((field, list)) = find(row, &["outputs"]) {
        (all(field, list, of_rewards, |path, one| answer(path, one, &["text"]))?, true)
    } else if let Some((field, list)) = find(row, &["responses", "completions"]) {
        let string = |path: &str, one: &Value| {
            let text = text(path, one)?;
            Ok(Answer { text, tokens: None, reward: None, cut: false })
        };
        (all(field, list, of_rewards, string)?, false)
    } else if let Some((field, error)) = find(row, &["error"]).filter(|_| row["response"].is_null()) {
        return Err(format!("{field}: {error}: the request failed; remove the line"));
    } else {
        let written = ["response", "completion", "output"];
        let mut there = written.iter().filter(|field| !row[**field].is_null());
        if let (Some(one), Some(other)) = (there.next(), there.next()) {
            return Err(format!("both '{one}' and '{other}': keep the field with the response"));
        }
        let mut one = answer("", row, &["response", "completion", "output", "text"])?;
        if rewards && let Some((field, value)) = find(row, &["reward", "score"]) {
            one.reward = Some(number(field, value)?);
        }
        (vec![one], false)
    };
    let outputs = row["outputs"].is_array();
    let prompt = prompt(row, outputs)?;
    let id = if requests && prompt.is_some() { named } else { any };
    Ok(Line { id, prompt, answers })
}

/// The first of these fields that is present and not null.
fn find<'a>(of: &'a Value, names: &[&'static str]) -> Option<(&'static str, &'a Value)> {
    names.iter().map(|name| (*name, &of[*name])).find(|(_, value)| !value.is_null())
}

/// The prompt of a row, if it has one.
fn prompt(row: &Value, by_vllm: bool) -> Result<Option<Given>, Wrong> {
    let mut there = ["prompt", "instruction", "messages"].iter().filter(|field| !row[**field].is_null());
    let Some(&field) = there.next() else { return Ok(None) };
    if let Some(other) = there.next() {
        return Err(format!("both '{field}' and '{other}': keep the field with the prompt"));
    }
    let prompt = match &row[field] {
        Value::Array(turns) => Prompt::Messages(
            (0..).zip(turns).map(|(i, turn)| message(field, i, turn)).collect::<Result<_, Wrong>>()?,
        ),
        words => Prompt::Text(text(field, words)?),
    };
    if prompt.is_empty() {
        return Err(format!("{field}: it is empty"));
    }
    // Files of `generate` record how prompts were formatted.
    let told = &row["settings"]["prompt_format"];
    let layout = match (told.as_str().map(str::parse), &prompt) {
        (Some(format), _) => {
            let format = format.map_err(|e| format!("settings.prompt_format: {e}"))?;
            Layout::Told(format, row["settings"]["system"].as_str().map(str::to_owned))
        }
        (None, Prompt::Text(_)) if by_vllm => Layout::Done(None),
        (None, _) => Layout::None,
    };
    let tokens =
        find(row, &["prompt_token_ids"]).map(|(field, list)| tokens(field, list)).transpose()?;
    Ok(Some(Given { prompt, tokens, layout }))
}

fn message(field: &str, i: usize, turn: &Value) -> Result<Message, Wrong> {
    let part = |part: &str| text(&format!("{field}[{i}].{part}"), &turn[part]);
    if turn["content"].is_array() {
        return serde_json::from_value(turn.clone()).map_err(|e| format!("{field}[{i}].content: {e}"));
    }
    Ok(Message { role: part("role")?, content: part("content")? })
}

/// The responses of a list with their rewards. Rewards are fields of the list's elements, a list of the row, or, for a
/// single response, a field of the row.
fn all(
    field: &str,
    list: &Value,
    rewards: Option<&Value>,
    read: impl Fn(&str, &Value) -> Result<Answer, Wrong>,
) -> Result<Vec<Answer>, Wrong> {
    let list = elements(field, list)?;
    if list.is_empty() {
        return Err(format!("{field}: it is empty; remove the line"));
    }
    let path = |i: usize| format!("{field}[{i}]");
    let mut answers: Vec<Answer> =
        list.iter().enumerate().map(|(i, one)| read(&path(i), one)).collect::<Result<_, _>>()?;
    let Some(row) = rewards else { return Ok(answers) };
    let of_row = find(row, &["rewards", "scores"]);
    let listed =
        of_row.map(|(field, list)| Ok::<_, Wrong>((field, elements(field, list)?))).transpose()?;
    if let Some((of, listed)) = listed.filter(|(_, listed)| listed.len() != list.len()) {
        return Err(format!("{of}: {} numbers for {} responses in {field}", listed.len(), list.len()));
    }
    for (i, (one, answer)) in list.iter().zip(&mut answers).enumerate() {
        let own = if one.is_object() { find(one, &["reward", "score"]) } else { None };
        let found = match (own, listed) {
            (Some((name, value)), _) => Some((format!("{}.{name}", path(i)), value)),
            (None, Some((name, listed))) => Some((format!("{name}[{i}]"), &listed[i])),
            (None, None) if list.len() == 1 => {
                find(row, &["reward", "score"]).map(|(name, value)| (name.to_owned(), value))
            }
            (None, None) => None,
        };
        let found = found.filter(|(_, value)| !value.is_null());
        answer.reward = found.map(|(path, value)| number(&path, value)).transpose()?;
    }
    Ok(answers)
}

/// One of OpenAI's choices. A message without content, such as a tool call, is an empty response.
fn choice(path: &str, one: &Value) -> Result<Answer, Wrong> {
    let message = &one["message"];
    if !message.is_object() {
        return answer(path, one, &["text"]);
    }
    let said = match &message["content"] {
        Value::Null => String::new(),
        content => text(&format!("{path}.message.content"), content)?,
    };
    Ok(Answer { text: said, ..about(path, one)? })
}

/// The response in an object.
fn answer(path: &str, one: &Value, names: &[&'static str]) -> Result<Answer, Wrong> {
    let inner = |field: &str| below(path, field);
    match find(one, names) {
        Some((field, said)) => Ok(Answer { text: text(&inner(field), said)?, ..about(path, one)? }),
        None => Err(format!("{}: missing{}", inner(names[0]), others(&names[1..]))),
    }
}

fn others(names: &[&str]) -> String {
    if names.is_empty() { String::new() } else { format!(" (or {})", names.join(", ")) }
}

/// The metadata of a response in an object, without its text.
fn about(path: &str, one: &Value) -> Result<Answer, Wrong> {
    // Some formats have the number of tokens in this field.
    let list = find(one, &["tokens", "token_ids"]).filter(|(_, list)| list.is_array());
    let inner = |field: &str| below(path, field);
    let tokens = list.map(|(field, list)| tokens(&inner(field), list)).transpose()?;
    Ok(Answer { text: String::new(), tokens, reward: None, cut: is_cut(&one["finish_reason"]) })
}

/// Whether a finish reason is a length limit. All others, also unknown or missing ones, count as complete.
fn is_cut(reason: &Value) -> bool {
    let reason = reason.as_str().or(reason["type"].as_str()).unwrap_or_default();
    let cut = ["length", "max_tokens", "max_new_tokens", "max_length", "abort"];
    cut.iter().any(|cut| reason.eq_ignore_ascii_case(cut))
}

fn id(field: &str, value: &Value) -> Result<String, Wrong> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) if !number.is_f64() => Ok(number.to_string()),
        other => Err(format!("{field}: {}, expected a string or an integer", kind(other))),
    }
}

fn text(field: &str, value: &Value) -> Result<String, Wrong> {
    let found = value.as_str().map(str::to_owned);
    found.ok_or_else(|| format!("{field}: {}, expected a string", kind(value)))
}

fn elements<'a>(field: &str, value: &'a Value) -> Result<&'a [Value], Wrong> {
    let found = value.as_array().map(Vec::as_slice);
    found.ok_or_else(|| format!("{field}: {}, expected a list", kind(value)))
}

fn tokens(field: &str, list: &Value) -> Result<Vec<u32>, Wrong> {
    let token = |(i, value): (usize, &Value)| {
        let token = value.as_u64().and_then(|token| u32::try_from(token).ok());
        token.ok_or_else(|| format!("{field}[{i}]: {}, expected a token id", kind(value)))
    };
    elements(field, list)?.iter().enumerate().map(token).collect()
}

/// A finite number. Other numbers of Parquet columns are represented as strings.
fn number(field: &str, value: &Value) -> Result<f64, Wrong> {
    match (value.as_f64(), value) {
        (Some(number), _) => Ok(number),
        (None, Value::String(text)) if text.parse().is_ok_and(|number: f64| !number.is_finite()) => {
            Err(format!("{field}: {text}, expected a finite number"))
        }
        (None, other) => Err(format!("{field}: {}, expected a number", kind(other))),
    }
}

/// A description of a value for messages.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// The path of a nested field.
fn below(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}
