//! Preference pairs from JSON lines.

use std::path::Path;

use serde::Deserialize;

use crate::conversation::{Conversation, is_conversation};
use crate::error::{Error, Result};
use crate::lines::Lines;

/// Two answers to one prompt, of which people preferred one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The preferred one.
    pub chosen: Conversation,
    /// The other.
    pub rejected: Conversation,
    /// The first human turn of `chosen`: pairs that share it belong to one group.
    pub group: String,
}

#[derive(Deserialize)]
struct Row {
    prompt: Option<String>,
    chosen: String,
    rejected: String,
}

/// Reads JSON lines `{"chosen", "rejected"}` in the form of HH-RLHF (`\n\nHuman: ...\n\nAssistant: ...`)
/// or `{"prompt", "chosen", "rejected"}`; other fields are passed over. Plain or gzipped, `-` for
/// standard input.
///
/// With a prompt, an answer that is itself a whole conversation is taken as such; any other continues
/// the prompt.
///
/// # Errors
/// A file that cannot be read or holds no pair; a line that is not UTF-8, no JSON object, lacks a field,
/// or whose text is no conversation ending in an Assistant turn: with file, line and field.
pub fn read_pairs(path: &Path) -> Result<Vec<Pair>> {
    let mut lines = Lines::open(path)?;
    let mut pairs = Vec::new();
    while lines.advance()? {
        let row: Row = lines.json()?;
        let conversation = |field: &str, text: &str| match &row.prompt {
            Some(prompt) if !is_conversation(text) => Ok(Conversation::of(prompt, text)),
            _ => Conversation::parse(text).map_err(|problem| lines.wrong(format!("{field} {problem}"))),
        };
        if row.prompt.as_deref().is_some_and(|p| p.trim().is_empty()) {
            return Err(lines.wrong("prompt is empty: leave the field out or fill it".to_owned()));
        }
        let chosen = conversation("chosen", &row.chosen)?;
        let rejected = conversation("rejected", &row.rejected)?;
        let group = chosen.opening().to_owned();
        pairs.push(Pair { chosen, rejected, group });
    }
    if pairs.is_empty() {
        return Err(Error::NoRows { file: lines.name().to_owned(), what: "pairs" });
    }
    Ok(pairs)
}
