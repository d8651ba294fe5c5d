//! One row of another program's output, as JSON: which prompt it is about, and the answers in it.

use serde_json::Value;
use stackelberg_engine::reward::TextFormat;
use stackelberg_engine::{Message, Prompt};

/// All fields that are looked at.
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

/// A row.
#[derive(Debug)]
pub(super) struct Line {
    /// The prompt's name.
    pub id: Option<String>,
    /// The prompt, where the row has it.
    pub prompt: Option<Given>,
    /// At least one.
    pub answers: Vec<Answer>,
}

/// A prompt as a row has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Given {
    pub prompt: Prompt,
    /// Its tokens, where vLLM tells them.
    pub tokens: Option<Vec<u32>>,
    pub layout: Layout,
}

/// What was done to a prompt before the model read it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Layout {
    /// It is what a user says, and is still to be laid out.
    None,
    /// The same, and the row says how: with this system message.
    Told(TextFormat, Option<String>),
    /// It is the text that the model read; which layout that is, where it is known.
    Done(Option<TextFormat>),
}

/// An answer as a row has it.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub text: String,
    pub tokens: Option<Vec<u32>>,
    /// Finite, where it is there.
    pub reward: Option<f64>,
    /// Whether it was cut for its length.
    pub cut: bool,
}

/// What is wrong with a row: the field and what to do.
type Wrong = String;

/// Reads a row; `rewards` says whether its rewards matter.
pub(super) fn line(row: &Value, rewards: bool) -> Result<Line, Wrong> {
    if !row.is_object() {
        return Err("not a JSON object: write one {...} per sample or prompt".to_owned());
    }
    let name = |names: &[&'static str]| find(row, names).map(|(field, v)| id(field, v)).transpose();
    // A completion's own id names a request, of which a prompt may have many.
    let (named, any) = (name(&["prompt_id", "custom_id"])?, name(&["prompt_id", "custom_id", "id"])?);
    // In OpenAI's batch output the completion is inside.
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
        return Err(format!("{inside}choices: missing: a request that failed? take the line out"));
    } else if let Some((field, list)) = find(row, &["outputs"]) {
        (all(field, list, of_rewards, |path, one| answer(path, one, &["text"]))?, true)
    } else if let Some((field, list)) = find(row, &["responses", "completions"]) {
        let string = |path: &str, one: &Value| {
            let text = text(path, one)?;
            Ok(Answer { text, tokens: None, reward: None, cut: false })
        };
        (all(field, list, of_rewards, string)?, false)
    } else if let Some((field, error)) = find(row, &["error"]).filter(|_| row["response"].is_null()) {
        return Err(format!("{field}: {error}: the request failed: take the line out"));
    } else {
        let written = ["response", "completion", "output"];
        let mut there = written.iter().filter(|field| !row[**field].is_null());
        if let (Some(one), Some(other)) = (there.next(), there.next()) {
            return Err(format!("both '{one}' and '{other}': keep the one that is the response"));
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

/// The first of these fields that is there and not null.
fn find<'a>(of: &'a Value, names: &[&'static str]) -> Option<(&'static str, &'a Value)> {
    names.iter().map(|name| (*name, &of[*name])).find(|(_, value)| !value.is_null())
}

/// The prompt of a row, if it has one.
fn prompt(row: &Value, by_vllm: bool) -> Result<Option<Given>, Wrong> {
    let mut there = ["prompt", "instruction", "messages"].iter().filter(|field| !row[**field].is_null());
    let Some(&field) = there.next() else { return Ok(None) };
    if let Some(other) = there.next() {
        return Err(format!("both '{field}' and '{other}': keep the one that was answered"));
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
    // What `generate` writes says how its prompts were laid out.
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
    Ok(Message { role: part("role")?, content: part("content")? })
}

/// The answers of a list, with their rewards: each one's own, or those that the row lists, or its only one.
fn all(
    field: &str,
    list: &Value,
    rewards: Option<&Value>,
    read: impl Fn(&str, &Value) -> Result<Answer, Wrong>,
) -> Result<Vec<Answer>, Wrong> {
    let list = elements(field, list)?;
    if list.is_empty() {
        return Err(format!("{field}: it is empty: take the line out"));
    }
    let path = |i: usize| format!("{field}[{i}]");
    let mut answers: Vec<Answer> =
        list.iter().enumerate().map(|(i, one)| read(&path(i), one)).collect::<Result<_, _>>()?;
    let Some(row) = rewards else { return Ok(answers) };
    let of_row = find(row, &["rewards", "scores"]);
    let listed =
        of_row.map(|(field, list)| Ok::<_, Wrong>((field, elements(field, list)?))).transpose()?;
    if let Some((of, listed)) = listed.filter(|(_, listed)| listed.len() != list.len()) {
        return Err(format!("{of}: {} numbers for {} answers in {field}", listed.len(), list.len()));
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

/// One of OpenAI's choices. A message without content, as one that calls a tool, is empty.
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

/// The answer in an object.
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

/// What an object says of its answer, less the text.
fn about(path: &str, one: &Value) -> Result<Answer, Wrong> {
    // A count of tokens is none of them.
    let list = find(one, &["tokens", "token_ids"]).filter(|(_, list)| list.is_array());
    let inner = |field: &str| below(path, field);
    let tokens = list.map(|(field, list)| tokens(&inner(field), list)).transpose()?;
    Ok(Answer { text: String::new(), tokens, reward: None, cut: is_cut(&one["finish_reason"]) })
}

/// Whether a reason to end is that there was no room for more. All else ended by itself, also what is
/// unknown or not said.
fn is_cut(reason: &Value) -> bool {
    let reason = reason.as_str().or(reason["type"].as_str()).unwrap_or_default();
    let cut = ["length", "max_tokens", "max_new_tokens", "max_length", "abort"];
    cut.iter().any(|cut| reason.eq_ignore_ascii_case(cut))
}

fn id(field: &str, value: &Value) -> Result<String, Wrong> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) if !number.is_f64() => Ok(number.to_string()),
        other => Err(format!("{field}: {}, where a text or a whole number is expected", kind(other))),
    }
}

fn text(field: &str, value: &Value) -> Result<String, Wrong> {
    let found = value.as_str().map(str::to_owned);
    found.ok_or_else(|| format!("{field}: {}, where a text is expected", kind(value)))
}

fn elements<'a>(field: &str, value: &'a Value) -> Result<&'a [Value], Wrong> {
    let found = value.as_array().map(Vec::as_slice);
    found.ok_or_else(|| format!("{field}: {}, where a list is expected", kind(value)))
}

fn tokens(field: &str, list: &Value) -> Result<Vec<u32>, Wrong> {
    let token = |(i, value): (usize, &Value)| {
        let token = value.as_u64().and_then(|token| u32::try_from(token).ok());
        token.ok_or_else(|| format!("{field}[{i}]: {}, where a token's number is expected", kind(value)))
    };
    elements(field, list)?.iter().enumerate().map(token).collect()
}

/// A finite number. Columns of tables may hold others, which come as texts.
fn number(field: &str, value: &Value) -> Result<f64, Wrong> {
    match (value.as_f64(), value) {
        (Some(number), _) => Ok(number),
        (None, Value::String(text)) if text.parse().is_ok_and(|number: f64| !number.is_finite()) => {
            Err(format!("{field}: it is {text}, where a finite number is expected"))
        }
        (None, other) => Err(format!("{field}: {}, where a number is expected", kind(other))),
    }
}

/// A value, for messages.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(_) => "a text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// The name of a field inside another.
fn below(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}
