//! Prompts from a file, a folder of text files, or standard input (`-`).
//!
//! What is read, plain or gzipped:
//! - a JSON array or JSON lines of objects with `prompt`, `instruction` or `messages` (each `role` and
//!   `content`), and optionally an `id`; a bare string is a prompt too,
//! - MT-bench's questions (`question_id`, `turns`): the first turn is the prompt,
//! - preference pairs in the form of HH-RLHF (`chosen`, `rejected`): the conversation before the answer that was judged,
//! - OpenAI's batch input: `custom_id`, and `messages` or `prompt` in a `body`,
//! - `.txt`: a prompt on each line, as RealToxicityPrompts come; a folder is its `.txt` files by name.

use std::collections::HashMap;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use stackelberg_learning::json::{self, name_of};
use stackelberg_learning::{Conversation, Error};

/// One prompt to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prompt {
    /// The line's own `id`, else its index over all prompts, from 0.
    pub(crate) id: String,
    pub(crate) text: PromptText,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PromptText {
    /// A user's words.
    Text(String),
    /// A conversation: role and content of each message.
    Messages(Vec<(String, String)>),
}

/// All prompts of a file, of a folder's `.txt` files, or of standard input (`-`); at least one, no two
/// of the same id. Errors name file, line and field.
pub(crate) fn read(path: &Path) -> Result<Vec<Prompt>> {
    let mut found = Found::default();
    if path.is_dir() {
        for file in text_files(path)? {
            found.add_file(&file)?;
        }
    } else {
        found.add_file(path)?;
    }
    if found.prompts.is_empty() {
        bail!("{}: no prompts", name_of(path));
    }
    Ok(found.prompts)
}

fn text_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot read {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(cannot)? {
        files.push(entry.with_context(cannot)?.path());
    }
    files.retain(|file| is_text(file));
    if files.is_empty() {
        bail!("{}: a folder without .txt files; name a file", folder.display());
    }
    files.sort();
    Ok(files)
}

fn is_text(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.trim_end_matches(".gz").ends_with(".txt")
}

/// What has been read so far, over all files.
#[derive(Default)]
struct Found {
    prompts: Vec<Prompt>,
    /// Where each id was first used, `FILE:LINE`.
    used: HashMap<String, String>,
}

impl Found {
    fn add_file(&mut self, path: &Path) -> Result<()> {
        if path == Path::new("-") && io::stdin().is_terminal() {
            eprintln!("reading prompts as JSON lines from the terminal; Ctrl-D ends them");
        }
        let (name, said) = (name_of(path), |e: Error| anyhow!("{e}"));
        let text = json::read_text(path).map_err(said)?;
        if is_text(path) {
            for (line, words) in json::filled_lines(&text) {
                self.add(&name, line, None, PromptText::Text(words.to_owned()))?;
            }
            return Ok(());
        }
        for (line, value) in json::values(&name, &text).map_err(said)? {
            self.add_row(&name, line, json::parse(value).map_err(anyhow::Error::msg).and_then(row))?;
        }
        Ok(())
    }

    fn add_row(&mut self, name: &str, line: usize, row: Result<Row>) -> Result<()> {
        let (id, text) = row.and_then(Row::prompt).with_context(|| format!("{name}:{line}"))?;
        self.add(name, line, id, text)
    }

    fn add(&mut self, name: &str, line: usize, id: Option<String>, text: PromptText) -> Result<()> {
        let id = id.unwrap_or_else(|| self.name_for(&text));
        let here = format!("{name}:{line}");
        if let Some(before) = self.used.insert(id.clone(), here) {
            bail!("{name}:{line}: id: '{id}' is that of {before} too: give each prompt its own");
        }
        self.prompts.push(Prompt { id, text });
        Ok(())
    }

    /// The id of a prompt that has none: a hash of its text, so that it does not depend on where in the
    /// file the prompt stands; a repeated prompt gets a number.
    fn name_for(&self, text: &PromptText) -> String {
        let hash = Sha256::digest(format!("{text:?}"));
        let name: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let numbered = (2..).map(|n| format!("{name}-{n}"));
        std::iter::once(name.clone())
            .chain(numbered)
            .find(|id| !self.used.contains_key(id))
            .unwrap_or(name)
    }
}

/// A line or element as it is written.
#[derive(Default, Deserialize)]
struct Object {
    id: Option<Id>,
    question_id: Option<Id>,
    custom_id: Option<Id>,
    body: Option<serde_json::Value>,
    prompt: Option<String>,
    instruction: Option<String>,
    messages: Option<Vec<Message>>,
    turns: Option<Vec<String>>,
    chosen: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: String,
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

/// The row of a value; the error names the field.
fn row(value: serde_json::Value) -> Result<Row> {
    match value {
        serde_json::Value::String(words) => Ok(Row::Bare(words)),
        value @ serde_json::Value::Object(_) => match serde_path_to_error::deserialize(value) {
            Ok(object) => Ok(Row::Object(object)),
            Err(e) => Err(anyhow!("{}: {}", e.path(), e.inner())),
        },
        _ => bail!("neither an object with a prompt nor a string"),
    }
}

impl Row {
    fn prompt(self) -> Result<(Option<String>, PromptText)> {
        let object = match self {
            Row::Bare(words) => return Ok((None, PromptText::Text(filled("the prompt", words)?))),
            Row::Object(object) => *object,
        };
        let id = object.id.or(object.question_id).or(object.custom_id).map(Id::text);
        let has_prompt = object.prompt.is_some() || object.messages.is_some();
        let first = |turns: Vec<String>| turns.into_iter().next().unwrap_or_default();
        let mut texts = [
            ("prompt", object.prompt.map(PromptText::Text)),
            ("instruction", object.instruction.map(PromptText::Text)),
            ("messages", object.messages.map(conversation).transpose()?),
            ("turns", object.turns.map(|turns| PromptText::Text(first(turns)))),
            // With a prompt of its own, a pair's answers are no conversation.
            ("chosen", object.chosen.filter(|_| !has_prompt).as_deref().map(judged).transpose()?),
        ]
        .into_iter()
        .filter_map(|(field, text)| Some((field, text?)));
        let Some((field, text)) = texts.next() else {
            if let Some(body @ serde_json::Value::Object(_)) = object.body {
                let (inner, text) = row(body).and_then(Row::prompt).context("body")?;
                return Ok((id.or(inner), text));
            }
            bail!("no 'prompt', 'instruction', 'messages', 'turns' or 'chosen'");
        };
        if let Some((other, _)) = texts.next() {
            bail!("both '{field}' and '{other}': keep the one to answer");
        }
        let text = match text {
            PromptText::Text(words) => PromptText::Text(filled(field, words)?),
            messages => messages,
        };
        Ok((id, text))
    }
}

fn filled(field: &str, words: String) -> Result<String> {
    if words.trim().is_empty() {
        bail!("{field}: it is empty");
    }
    Ok(words)
}

/// A conversation that was judged, without the answer that it was judged by.
fn judged(text: &str) -> Result<PromptText> {
    let mut messages = Conversation::parse(text).map_err(|e| anyhow!("chosen: {e}"))?.messages;
    messages.pop();
    let message = |message: stackelberg_learning::Message| Message {
        role: message.role.name().to_owned(),
        content: message.content,
    };
    conversation(messages.into_iter().map(message).collect()).context("chosen")
}

/// The messages, none empty but perhaps the system's.
fn conversation(messages: Vec<Message>) -> Result<PromptText> {
    if messages.is_empty() {
        bail!("messages: it is empty");
    }
    for (index, message) in messages.iter().enumerate() {
        if message.role.trim().is_empty() {
            bail!("messages[{index}].role: it is empty");
        }
        if message.role != "system" && message.content.trim().is_empty() {
            bail!("messages[{index}].content: it is empty");
        }
    }
    Ok(PromptText::Messages(messages.into_iter().map(|m| (m.role, m.content)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::Write;

    fn from(name: &str, bytes: &[u8]) -> Result<Vec<Prompt>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join(name);
        fs::write(&path, bytes)?;
        // Only the file's own name in messages.
        let prefix = format!("{}/", folder.path().display());
        read(&path).map_err(|e| anyhow!("{}", format!("{e:#}").replace(&prefix, "")))
    }

    fn said(text: &str) -> String {
        from("p", text.as_bytes()).expect_err(text).to_string()
    }

    fn text(id: &str, words: &str) -> Prompt {
        Prompt { id: id.to_owned(), text: PromptText::Text(words.to_owned()) }
    }

    /// A prompt without an id: named as if it stood alone, wherever it stands.
    fn unnamed(words: &str) -> Prompt {
        let mut alone = from("p.txt", words.as_bytes()).expect("one line");
        assert_eq!((alone.len(), alone[0].id.len()), (1, 12));
        alone.remove(0)
    }

    #[test]
    fn repeated_prompts_are_numbered() -> Result<()> {
        let ids: Vec<String> = from("p.txt", b"a\na\nb\na")?.into_iter().map(|p| p.id).collect();
        let a = unnamed("a").id;
        assert_eq!(ids, [a.clone(), format!("{a}-2"), unnamed("b").id, format!("{a}-3")]);
        Ok(())
    }

    #[test]
    fn json_lines_arrays_and_bare_strings() -> Result<()> {
        let lines =
            "\u{feff}{\"prompt\": \"a\", \"x\": [1]}\r\n\n{\"instruction\": \"b\", \"id\": 7}\n\"c\"";
        let expected = [unnamed("a"), text("7", "b"), unnamed("c")];
        assert_eq!(from("p.jsonl", lines.as_bytes())?, expected);
        let array = " [ {\"prompt\": \"a\"},\n {\"instruction\": \"b\",\n \"id\": 7}\n, \"c\" ]\n";
        assert_eq!(from("p.json", array.as_bytes())?, expected);
        Ok(())
    }

    #[test]
    fn gzip_messages_and_questions() -> Result<()> {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(
            b"{\"id\":\"x\",\"messages\":[{\"role\":\"system\",\"content\":\"\"},\
              {\"role\":\"user\",\"content\":\"hi\"}]}\n\
              {\"question_id\":81,\"category\":\"writing\",\"turns\":[\"one\",\"two\"]}\n",
        )?;
        let pair = |role: &str, content: &str| (role.to_owned(), content.to_owned());
        let messages = PromptText::Messages(vec![pair("system", ""), pair("user", "hi")]);
        let expected = [Prompt { id: "x".into(), text: messages }, text("81", "one")];
        assert_eq!(from("p.jsonl.gz", &gz.finish()?)?, expected);
        let chosen = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: more\n\nAssistant: no";
        let judged = json!({"chosen": chosen, "rejected": "\n\nHuman: hi\n\nAssistant: x"}).to_string();
        let turns = vec![pair("user", "hi"), pair("assistant", "hello"), pair("user", "more")];
        let found = from("p", judged.as_bytes())?;
        assert_eq!(found[0].text, PromptText::Messages(turns));
        let batch = "{\"custom_id\": \"r1\", \"method\": \"POST\", \"url\": \"/v1/completions\", \
                     \"body\": {\"model\": \"m\", \"prompt\": \"one\"}}";
        assert_eq!(from("p", batch.as_bytes())?, [text("r1", "one")]);
        Ok(())
    }

    #[test]
    fn text_lines_and_folders() -> Result<()> {
        assert_eq!(from("p.txt", b"[a\r\n\nb")?, [unnamed("[a"), unnamed("b")]);
        let folder = tempfile::tempdir()?;
        for (name, lines) in [("b.txt", "3"), ("a.txt", "1\n2\n"), ("c.md", "no")] {
            fs::write(folder.path().join(name), lines)?;
        }
        assert_eq!(read(folder.path())?, [unnamed("1"), unnamed("2"), unnamed("3")]);
        Ok(())
    }

    #[test]
    fn errors_name_file_line_and_field() {
        for (content, expected) in [
            ("", "p: no prompts"),
            ("[]", "p: no prompts"),
            ("\n{\"prompt\": \"a\"", "p:2: malformed JSON at column 14: EOF while parsing an object"),
            ("{\"prompt\": 3}", "p:1: prompt: invalid type: integer `3`, expected a string"),
            ("{\"prompt\": \" \"}", "p:1: prompt: it is empty"),
            ("\"\"", "p:1: the prompt: it is empty"),
            ("3", "p:1: neither an object with a prompt nor a string"),
            ("{\"turns\": []}", "p:1: turns: it is empty"),
            ("{\"text\": \"a\"}", "p:1: no 'prompt', 'instruction', 'messages', 'turns' or 'chosen'"),
            (
                "{\"prompt\": \"a\", \"instruction\": \"b\"}",
                "p:1: both 'prompt' and 'instruction': keep the one to answer",
            ),
            ("{\"prompt\": \"a\"} {}", "p:1: more than one JSON value on the line: write one per line"),
            ("{\"messages\": [{\"role\": \"user\"}]}", "p:1: messages[0]: missing field `content`"),
            (
                "{\"messages\": [{\"role\": \"user\", \"content\": \"\"}]}",
                "p:1: messages[0].content: it is empty",
            ),
            ("{\"custom_id\": 1, \"body\": {\"prompt\": \"\"}}", "p:1: body: prompt: it is empty"),
            ("{\"id\": [], \"prompt\": \"a\"}", "p:1: id: expected a string or a whole number"),
            (
                "{\"id\": 1, \"prompt\": \"a\"}\n{\"id\": 1, \"prompt\": \"b\"}",
                "p:2: id: '1' is that of p:1 too: give each prompt its own",
            ),
            ("[\n\"a\",\n{\"prompt\": 3}]", "p:3: prompt: invalid type: integer `3`, expected a string"),
            ("[\"a\"\n\"b\"]", "p:2: expected ',' or ']' after this element"),
            ("[\"a\",\n", "p:2: the array breaks off: its ']' is missing"),
            ("[\"a\"\n", "p:2: the array breaks off: its ']' is missing"),
            ("[\"a\",\n {\"prompt\":\n nan}]", "p:3: malformed JSON: expected ident"),
            ("[\"a\"]\n{}", "p:1: text after the array's ']': keep one array"),
        ] {
            assert_eq!(said(content), expected, "{content}");
        }
        let latin = from("p", b"\"a\"\n\"\xe4\"").expect_err("an error").to_string();
        assert_eq!(latin, "p:2: not UTF-8: save the file as UTF-8");
    }
}
