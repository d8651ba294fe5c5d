//! Rated texts from JSON lines or tab-separated files.

use std::path::Path;

use serde::Deserialize;

use crate::conversation::Conversation;
use crate::error::{Error, Result};
use crate::lines::Lines;
use crate::prompt::{Message, Prompt, Said};

/// A text with its rating.
#[derive(Debug, Clone, PartialEq)]
pub struct Rated {
    /// The text. A text that is not a conversation is a response without a prompt.
    pub conversation: Conversation,
    /// The score, in the unit of the file.
    pub score: f64,
    /// Group of the text: the first human turn or the text itself; in tab-separated files the file's name with the id
    /// up to its last `_` (`12_3` is sentence 3 of review 12).
    pub group: String,
}

#[derive(Deserialize)]
struct Row {
    text: Option<String>,
    prompt: Option<Said>,
    response: Option<String>,
    messages: Option<Vec<Message>>,
    score: f64,
}

/// Reads JSON lines `{"text", "score"}`, `{"prompt", "response", "score"}` or `{"messages", "score"}`, or lines `id<TAB>score<TAB>text` as in
/// VADER's `*_GroundTruth.txt`. The first line decides which of the two. Files are plain or gzipped; `-` is standard
/// input.
///
/// # Errors
/// The file cannot be read or has no texts. A line is not UTF-8 or malformed, a field is missing, a text is empty, or a
/// score is not a finite number. Errors name file, line and field.
pub fn read_rated(path: &Path) -> Result<Vec<Rated>> {
    let mut lines = Lines::open(path)?;
    let mut rated = Vec::new();
    let mut json = None;
    while lines.advance()? {
        let json = *json.get_or_insert(lines.text()?.trim_start().starts_with('{'));
        rated.push(if json { from_json(&lines)? } else { from_tabs(&lines)? });
    }
    if rated.is_empty() {
        return Err(Error::NoRows { file: lines.name().to_owned(), what: "rated texts" });
    }
    Ok(rated)
}

fn from_json(lines: &Lines) -> Result<Rated> {
    let row: Row = lines.json()?;
    let conversation = match (row.text, row.prompt, row.response) {
        (Some(text), None, None) => {
            filled(lines, "text", &text)?;
            Conversation::alone(&text)
        }
        (None, Some(prompt), Some(response)) => {
            if prompt.0.is_empty() {
                filled(lines, "prompt", "")?;
            }
            match prompt.0 {
                Prompt::Text(prompt) => Conversation::of(&prompt, &response),
                Prompt::Messages(mut messages) => {
                    messages.push(Message::new("assistant", response));
                    Conversation::of_messages(messages)
                        .map_err(|problem| lines.wrong(format!("prompt {problem}")))?
                }
            }
        }
        (None, Some(_), None) => return Err(lines.wrong("missing field `response`".to_owned())),
        (None, None, Some(_)) => return Err(lines.wrong("missing field `prompt`".to_owned())),
        (None, None, None) if row.messages.is_some() => {
            Conversation::of_messages(row.messages.unwrap_or_default())
                .map_err(|problem| lines.wrong(format!("messages {problem}")))?
        }
        (None, None, None) => {
            return Err(lines.wrong("missing field `text` (or `prompt` and `response`)".to_owned()));
        }
        (Some(_), _, _) => {
            return Err(
                lines.wrong("both `text` and `prompt` or `response`: give one of them".to_owned())
            );
        }
    };
    let group = conversation.opening().to_owned();
    Ok(Rated { conversation, score: row.score, group })
}

fn from_tabs(lines: &Lines) -> Result<Rated> {
    let mut fields = lines.text()?.splitn(3, '\t');
    let (Some(id), Some(score), Some(text)) = (fields.next(), fields.next(), fields.next()) else {
        return Err(lines.wrong("neither a JSON object nor id<TAB>score<TAB>text".to_owned()));
    };
    filled(lines, "text", text)?;
    let score = score.trim().parse().ok().filter(|s: &f64| s.is_finite()).ok_or_else(|| {
        lines.wrong(format!("score: '{score}' is not a finite number (remove a header line)"))
    })?;
    let file = Path::new(lines.name()).file_name().map_or_else(String::new, |n| n.display().to_string());
    let source = id.rsplit_once('_').map_or(id, |(source, _)| source);
    Ok(Rated { conversation: Conversation::alone(text), score, group: format!("{file}#{source}") })
}

fn filled(lines: &Lines, field: &str, text: &str) -> Result<()> {
    if text.trim().is_empty() {
        return Err(lines.wrong(format!("{field} is empty: there is nothing to score")));
    }
    Ok(())
}
