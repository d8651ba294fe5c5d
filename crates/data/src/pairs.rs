//! Preference pairs from JSON lines.

use std::path::Path;

use serde::Deserialize;

use crate::conversation::{Conversation, is_conversation};
use crate::error::{Error, Result};
use crate::lines::Lines;
use crate::prompt::{Message, Prompt, Said};

/// Two responses to one prompt, of which people preferred one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The preferred response.
    pub chosen: Conversation,
    /// The other response.
    pub rejected: Conversation,
    /// The first human turn of `chosen`. Pairs with the same first turn belong to one group.
    pub group: String,
}

#[derive(Deserialize)]
struct Row {
    prompt: Option<Said>,
    chosen: Said,
    rejected: Said,
}

/// The conversation of a response, which continues the prompt or has it in itself.
fn conversation(
    prompt: Option<&Prompt>,
    response: &Prompt,
) -> std::result::Result<Conversation, &'static str> {
    match (prompt, response) {
        (Some(Prompt::Text(prompt)), Prompt::Text(text)) if !is_conversation(text) => {
            Ok(Conversation::of(prompt, text))
        }
        (_, Prompt::Text(text)) if is_conversation(text) => Conversation::parse(text),
        (Some(prompt), Prompt::Text(text)) => {
            let response = Message::new("assistant", text);
            Conversation::of_messages([Conversation::asked(prompt), vec![response]].concat())
        }
        (None, Prompt::Text(text)) => Conversation::parse(text),
        (prompt, Prompt::Messages(messages)) => {
            let asked = prompt.map(Conversation::asked).unwrap_or_default();
            let whole = if messages.starts_with(&asked) {
                messages.clone()
            } else {
                [&asked[..], messages].concat()
            };
            Conversation::of_messages(whole)
        }
    }
}

/// Reads JSON lines `{"chosen", "rejected"}` in the HH-RLHF layout (`\n\nHuman: ...\n\nAssistant: ...`) or
/// `{"prompt", "chosen", "rejected"}`, plain or gzipped; `-` is standard input. Other fields are ignored. Each field may
/// be a list of messages with `role` and `content` instead of a text, as in the conversational data sets of TRL.
///
/// With a prompt, a response in the HH-RLHF layout is read as a complete conversation; any other response continues the
/// prompt.
///
/// # Errors
/// The file cannot be read or has no pairs. A line is not UTF-8 or not a JSON object, a field is missing, or a text
/// is not a conversation that ends with an assistant turn. Errors name file, line and field.
pub fn read_pairs(path: &Path) -> Result<Vec<Pair>> {
    let mut lines = Lines::open(path)?;
    let mut pairs = Vec::new();
    while lines.advance()? {
        let row: Row = lines.json()?;
        let prompt = row.prompt.as_ref().map(|said| &said.0);
        let conversation = |field: &str, said: &Said| {
            conversation(prompt, &said.0).map_err(|problem| lines.wrong(format!("{field} {problem}")))
        };
        if prompt.is_some_and(Prompt::is_empty) {
            return Err(lines.wrong("prompt is empty: remove the field or fill it".to_owned()));
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
