//! A judged text, both raw and as messages for a chat template.

use std::collections::HashMap;

use crate::prompt::{Message, Prompt};

/// The role of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    User,
    Assistant,
}

impl Role {
    /// `user` or `assistant`, the names of chat templates.
    fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }

    /// How HH-RLHF marks the beginning of a turn.
    fn marker(self) -> &'static str {
        match self {
            Self::User => "Human:",
            Self::Assistant => "Assistant:",
        }
    }
}

/// A judged text: a prompt and a response. The last message is the response, of role `assistant`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// The complete text, as a model reads it without a chat template.
    pub raw: String,
    /// The same text as messages. Adjacent turns of one role are joined, since chat templates require alternation.
    pub messages: Vec<Message>,
}

impl Conversation {
    /// The conversation without the response.
    pub fn prompt(&self) -> Prompt {
        let before = self.messages.len().saturating_sub(1);
        Prompt::Messages(self.messages[..before].to_vec())
    }

    /// The response: the last turn.
    pub fn response(&self) -> &str {
        self.messages.last().map_or("", |m| &m.content)
    }

    /// The first human turn, or the response if there is none.
    pub fn opening(&self) -> &str {
        let human = self.messages.iter().find(|m| m.role == Role::User.name());
        human.map_or_else(|| self.response(), |m| &m.content)
    }

    /// Parses the HH-RLHF layout, `\n\nHuman: ...\n\nAssistant: ...` with any number of turns. [`Conversation::raw`]
    /// is the text itself.
    ///
    /// # Errors
    /// The text does not begin with a human turn, or does not end with an assistant turn.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(messages) = turns(text) else {
            return Err("does not begin with \"\\n\\nHuman: \": write conversations as \
                        \"\\n\\nHuman: ...\\n\\nAssistant: ...\", or give the prompt in a field of its own");
        };
        if messages.last().is_none_or(|m| m.role != Role::Assistant.name()) {
            return Err(
                "ends with a Human turn: the last turn must be the Assistant's, since it is the judged response",
            );
        }
        Ok(Self { raw: text.to_owned(), messages })
    }

    /// Joins a prompt and a response. A prompt in the HH-RLHF layout is continued in that layout. To any other prompt
    /// the response is appended, with a space in between unless there is white space.
    pub(crate) fn of(prompt: &str, response: &str) -> Self {
        let mut raw = prompt.to_owned();
        let mut messages = match turns(prompt) {
            Some(mut messages) => {
                if messages.last().is_some_and(|m| m.role == Role::User.name() || !m.content.is_empty())
                {
                    raw = format!("{}\n\n{}", prompt.trim_end(), Role::Assistant.marker());
                } else {
                    messages.pop();
                }
                messages
            }
            None => vec![Message::new(Role::User.name(), prompt.trim())],
        };
        if !raw.ends_with(char::is_whitespace) && !response.starts_with(char::is_whitespace) {
            raw.push(' ');
        }
        raw.push_str(response);
        push(&mut messages, Role::Assistant, response);
        Self { raw, messages }
    }

    /// A conversation of messages, the last of which is the response. [`Conversation::raw`] has the layout of HH-RLHF.
    ///
    /// # Errors
    /// There are no messages, or the last is not the assistant's.
    pub fn of_messages(messages: Vec<Message>) -> Result<Self, &'static str> {
        let mut joined: Vec<Message> = Vec::new();
        for message in messages {
            match joined.last_mut() {
                Some(last) if last.role == message.role => {
                    last.content = format!("{}\n\n{}", last.content, message.content);
                }
                _ => joined.push(message),
            }
        }
        let messages = joined;
        let Some(response) = messages.last().filter(|last| last.role == Role::Assistant.name()) else {
            return Err("does not end with a message of the assistant, which is the judged response");
        };
        let before = messages[..messages.len() - 1].to_vec();
        let raw = match before.is_empty() {
            true => response.content.clone(),
            false => format!("{} {}", Prompt::Messages(before).raw(None), response.content.trim_start()),
        };
        Ok(Self { raw, messages })
    }

    /// The messages of a prompt that is a text: of the layout of HH-RLHF, or one of the user.
    pub(crate) fn asked(prompt: &Prompt) -> Vec<Message> {
        match prompt {
            Prompt::Messages(messages) => messages.clone(),
            Prompt::Text(text) => {
                let mut turns =
                    turns(text).unwrap_or_else(|| vec![Message::new(Role::User.name(), text.trim())]);
                // "Assistant:" at the end is where the response begins.
                turns.pop_if(|last| last.role == Role::Assistant.name() && last.content.is_empty());
                turns
            }
        }
    }

    /// A text without a separate prompt: a conversation if it is in the HH-RLHF layout, otherwise a response without a
    /// prompt.
    pub(crate) fn alone(text: &str) -> Self {
        Self::parse(text).unwrap_or_else(|_| {
            let mut messages = Vec::new();
            push(&mut messages, Role::Assistant, text);
            Self { raw: text.to_owned(), messages }
        })
    }
}

/// Whether a text is in the HH-RLHF layout.
pub(crate) fn is_conversation(text: &str) -> bool {
    text.trim_start().starts_with(Role::User.marker())
}

fn turns(text: &str) -> Option<Vec<Message>> {
    let mut rest = text.trim_start().strip_prefix(Role::User.marker())?;
    let mut role = Role::User;
    let mut messages = Vec::new();
    loop {
        let next = [Role::User, Role::Assistant]
            .into_iter()
            .filter_map(|role| Some((rest.find(&format!("\n\n{}", role.marker()))?, role)))
            .min_by_key(|(at, _)| *at);
        let Some((at, following)) = next else {
            push(&mut messages, role, rest);
            return Some(messages);
        };
        push(&mut messages, role, &rest[..at]);
        rest = &rest[at + 2 + following.marker().len()..];
        role = following;
    }
}

fn push(messages: &mut Vec<Message>, role: Role, content: &str) {
    let content = content.trim();
    match messages.last_mut() {
        Some(last) if last.role == role.name() => {
            last.content = format!("{}\n\n{content}", last.content).trim().to_owned();
        }
        _ => messages.push(Message::new(role.name(), content)),
    }
}

/// Numbers group names from 0 in order of first appearance, one number per name given. Names of several files must be
/// passed in one call.
pub fn group_ids<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<u64> {
    let mut known = HashMap::new();
    let number = |name| {
        let next = known.len() as u64;
        *known.entry(name).or_insert(next)
    };
    names.into_iter().map(number).collect()
}
