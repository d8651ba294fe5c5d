//! Reads prompts from a file, a folder of text files, or standard input (`-`).
//!
//! Supported formats, plain or gzipped:
//! - a JSON array or JSON lines of objects with `prompt`, `instruction` or `messages` (each with `role` and `content`, a
//!   text or a list of text parts), and optionally `id`; or of plain strings; `prompt` may be messages too,
//! - MT-bench questions (`question_id`, `turns`): the first turn is the prompt,
//! - HH-RLHF preference pairs (`chosen`, `rejected`): the prompt is the conversation before the response,
//! - OpenAI batch input: `custom_id`, and `messages` or `prompt` in a `body`,
//! - `.txt` files with one prompt per line, as RealToxicityPrompts; a folder of `.txt` files is read in the order of
//!   their names.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::conversation::Conversation;
use crate::error::{Error, Result};
use crate::json;
use crate::name::name_of;
use crate::prompt::{Message, Prompt, Said};

/// A value, or the problem of a field without its place.
type Problem<T> = std::result::Result<T, String>;

/// Reads all prompts of a file, of a folder's `.txt` files, or of standard input (`-`), with their ids: at least one
/// prompt, with distinct ids. A prompt without an id gets [`Prompt::name`] as id, and a number if it is repeated.
///
/// # Errors
/// The file cannot be read or has no prompts, an id occurs twice, or a line is malformed. Errors name file, line and
/// field.
pub fn read(path: &Path) -> Result<Vec<(String, Prompt)>> {
    let mut found = Found::default();
    if path.is_dir() {
        for file in text_files(path)? {
            found.add_file(&file)?;
        }
    } else {
        found.add_file(path)?;
    }
    found.all(&name_of(path))
}

/// Like [`read`], from JSON in memory; `name` is the file's name in errors.
///
/// # Errors
/// As [`read`].
pub fn parse(name: &str, text: &str) -> Result<Vec<(String, Prompt)>> {
    let mut found = Found::default();
    found.add_json(name, text)?;
    found.all(name)
}

fn text_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot = |source| Error::read(folder, source);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot)? {
        files.push(entry.map_err(cannot)?.path());
    }
    files.retain(|file| is_text(file));
    if files.is_empty() {
        return Err(Error::file(folder, "a folder without .txt files; name a file"));
    }
    files.sort();
    Ok(files)
}

fn is_text(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.trim_end_matches(".gz").ends_with(".txt")
}

/// All prompts read so far, over all files.
#[derive(Default)]
struct Found {
    prompts: Vec<(String, Prompt)>,
    /// The place of each id, as `FILE:LINE`.
    used: HashMap<String, String>,
}

impl Found {
    fn add_file(&mut self, path: &Path) -> Result<()> {
        let name = name_of(path);
        let text = json::read_text(path)?;
        if is_text(path) {
            for (line, words) in json::filled_lines(&text) {
                self.add(&name, line, None, Prompt::Text(words.to_owned()))?;
            }
            return Ok(());
        }
        self.add_json(&name, &text)
    }

    fn add_json(&mut self, name: &str, text: &str) -> Result<()> {
        for (line, value) in json::values(name, text)? {
            let found = json::parse(value).and_then(row).and_then(Row::prompt);
            let (id, prompt) = found.map_err(|problem| Error::line(name, line, problem))?;
            self.add(name, line, id, prompt)?;
        }
        Ok(())
    }

    /// All prompts: at least one.
    fn all(self, name: &str) -> Result<Vec<(String, Prompt)>> {
        match self.prompts.is_empty() {
            true => Err(Error::File { file: name.to_owned(), problem: "no prompts".to_owned() }),
            false => Ok(self.prompts),
        }
    }

    fn add(&mut self, name: &str, line: usize, id: Option<String>, prompt: Prompt) -> Result<()> {
        let id = id.unwrap_or_else(|| self.name_for(&prompt));
        if let Some(before) = self.used.insert(id.clone(), format!("{name}:{line}")) {
            let problem = format!("id: '{id}' is that of {before} too: give each prompt its own");
            return Err(Error::line(name, line, problem));
        }
        self.prompts.push((id, prompt));
        Ok(())
    }

    /// The id of a prompt without one; repeated prompts are numbered.
    fn name_for(&self, prompt: &Prompt) -> String {
        let name = prompt.name();
        let numbered = (2..).map(|n| format!("{name}-{n}"));
        std::iter::once(name.clone())
            .chain(numbered)
            .find(|id| !self.used.contains_key(id))
            .unwrap_or(name)
    }
}

/// A line or array element of a file.
#[derive(Default, Deserialize)]
struct Object {
    id: Option<Id>,
    question_id: Option<Id>,
    custom_id: Option<Id>,
    body: Option<Value>,
    prompt: Option<Said>,
    instruction: Option<String>,
    messages: Option<Vec<Message>>,
    turns: Option<Vec<String>>,
    chosen: Option<Said>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string or a whole number")]
enum Id {
    Text(String),
    Number(i64),
}

impl Id {
    fn text(self) -> String {
        match self {
            Id::Text(text) => text,
            Id::Number(number) => number.to_string(),
        }
    }
}

enum Row {
    Bare(String),
    Object(Box<Object>),
}

/// Parses a JSON value; the error names the field.
fn row(value: Value) -> Problem<Row> {
    match value {
        Value::String(words) => Ok(Row::Bare(words)),
        value @ Value::Object(_) => match serde_path_to_error::deserialize(value) {
            Ok(object) => Ok(Row::Object(object)),
            Err(e) => Err(format!("{}: {}", e.path(), e.inner())),
        },
        _ => Err("neither an object with a prompt nor a string".to_owned()),
    }
}

impl Row {
    fn prompt(self) -> Problem<(Option<String>, Prompt)> {
        let object = match self {
            Self::Bare(words) => return Ok((None, Prompt::Text(filled("the prompt", words)?))),
            Self::Object(object) => *object,
        };
        let id = object.id.or(object.question_id).or(object.custom_id).map(Id::text);
        let prompt = |said: Said| match said.0 {
            Prompt::Messages(messages) => {
                conversation(messages).map_err(|problem| problem.replacen("messages", "prompt", 1))
            }
            text => Ok(text),
        };
        let has_prompt = object.prompt.is_some() || object.messages.is_some();
        let first = |turns: Vec<String>| turns.into_iter().next().unwrap_or_default();
        let mut texts = [
            ("prompt", object.prompt.map(prompt).transpose()?),
            ("instruction", object.instruction.map(Prompt::Text)),
            ("messages", object.messages.map(conversation).transpose()?),
            ("turns", object.turns.map(|turns| Prompt::Text(first(turns)))),
            // A pair with a separate prompt has responses instead of conversations.
            ("chosen", object.chosen.filter(|_| !has_prompt).map(judged).transpose()?),
        ]
        .into_iter()
        .filter_map(|(field, text)| Some((field, text?)));
        let Some((field, text)) = texts.next() else {
            if let Some(body @ Value::Object(_)) = object.body {
                let inner = row(body).and_then(Self::prompt);
                let (inner, text) = inner.map_err(|problem| format!("body: {problem}"))?;
                return Ok((id.or(inner), text));
            }
            return Err("no 'prompt', 'instruction', 'messages', 'turns' or 'chosen'".to_owned());
        };
        if let Some((other, _)) = texts.next() {
            return Err(format!("both '{field}' and '{other}': keep the one to answer"));
        }
        let text = match text {
            Prompt::Text(words) => Prompt::Text(filled(field, words)?),
            messages => messages,
        };
        Ok((id, text))
    }
}

fn filled(field: &str, words: String) -> Problem<String> {
    if words.trim().is_empty() { Err(format!("{field}: it is empty")) } else { Ok(words) }
}

/// A judged conversation without its response.
fn judged(said: Said) -> Problem<Prompt> {
    let whole = match said.0 {
        Prompt::Text(text) => Conversation::parse(&text),
        Prompt::Messages(messages) => Conversation::of_messages(messages),
    };
    let Prompt::Messages(messages) = whole.map_err(|e| format!("chosen: {e}"))?.prompt() else {
        return Err("chosen: not a conversation".to_owned());
    };
    conversation(messages).map_err(|problem| format!("chosen: {problem}"))
}

/// Checks messages: only system messages may be empty.
fn conversation(messages: Vec<Message>) -> Problem<Prompt> {
    if messages.is_empty() {
        return Err("messages: it is empty".to_owned());
    }
    for (index, message) in messages.iter().enumerate() {
        if message.role.trim().is_empty() {
            return Err(format!("messages[{index}].role: it is empty"));
        }
        if message.role != "system" && message.content.trim().is_empty() {
            return Err(format!("messages[{index}].content: it is empty"));
        }
    }
    Ok(Prompt::Messages(messages))
}
