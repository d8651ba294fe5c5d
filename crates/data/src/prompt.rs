//! Prompts: one text, or a conversation.

use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text. It may be read from a list of parts, `[{"type": "text", "text": "..."}]`.
    #[serde(deserialize_with = "content")]
    pub content: String,
}

impl Message {
    /// A turn with this role and text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A prompt. Its JSON form is a string, or a list of messages with `role` and `content`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a text, or messages with role and content")]
pub enum Prompt {
    /// One text: a question, or a text to continue.
    Text(String),
    /// A conversation, to which the assistant replies next.
    Messages(Vec<Message>),
}

impl Prompt {
    /// Whether the prompt has only white space.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.trim().is_empty(),
            Self::Messages(messages) => messages.iter().all(|m| m.content.trim().is_empty()),
        }
    }

    /// Formats the prompt without a chat template: a text unchanged, a conversation in the HH-RLHF layout
    /// (`\n\nHuman: ...`, `\n\nAssistant: ...`). `system` is put before it.
    pub fn raw(&self, system: Option<&str>) -> String {
        let mut raw = system.map_or_else(String::new, |system| format!("{system}\n\n"));
        match self {
            Self::Text(text) => raw.push_str(text),
            Self::Messages(messages) => {
                for Message { role, content } in messages {
                    match role.as_str() {
                        "assistant" => raw.push_str(&format!("\n\nAssistant: {content}")),
                        "system" => raw.push_str(&format!("{content}\n\n")),
                        _ => raw.push_str(&format!("\n\nHuman: {content}")),
                    }
                }
                raw.push_str("\n\nAssistant:");
            }
        }
        raw
    }

    /// The prompt as messages for a chat template. A text becomes a user message; `system` becomes the first message.
    pub fn messages(&self, system: Option<&str>) -> Vec<Message> {
        let mut messages: Vec<Message> =
            system.map(|text| Message::new("system", text)).into_iter().collect();
        match self {
            Self::Text(text) => messages.push(Message::new("user", text)),
            Self::Messages(turns) => messages.extend_from_slice(turns),
        }
        messages
    }

    /// A name derived from the prompt's content: 12 hexadecimal digits.
    pub fn name(&self) -> String {
        let text = match self {
            Self::Text(text) => format!("Text({text:?})"),
            Self::Messages(turns) => {
                let turns: Vec<_> = turns.iter().map(|turn| (&turn.role, &turn.content)).collect();
                format!("Messages({turns:?})")
            }
        };
        crate::hash::short(text)
    }

    /// The prompt for display: the text, or several messages with their roles.
    pub fn readable(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Messages(turns) if turns.len() == 1 => turns[0].content.clone(),
            Self::Messages(turns) => {
                let turn = |turn: &Message| format!("{}: {}", turn.role, turn.content);
                turns.iter().map(turn).collect::<Vec<_>>().join("\n\n")
            }
        }
    }
}

/// A content: a string, or a list of parts that are texts.
fn content<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    struct Part {
        #[serde(rename = "type")]
        kind: Option<String>,
        text: Option<String>,
    }
    struct Content;
    impl<'de> Visitor<'de> for Content {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_string<E: de::Error>(self, text: String) -> Result<String, E> {
            Ok(text)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<String, A::Error> {
            let mut all = String::new();
            while let Some(Part { kind, text }) = parts.next_element()? {
                let kind = kind.unwrap_or_else(|| "text".to_owned());
                let text = text.filter(|_| kind == "text");
                let wrong =
                    || de::Error::custom(format!("a part of type '{kind}': only text can be read"));
                all.push_str(&text.ok_or_else(wrong)?);
            }
            Ok(all)
        }
    }
    from.deserialize_any(Content)
}

/// A field with a text or messages. Unlike those of [`Prompt`], its errors name what is wrong within messages.
#[derive(Debug, Clone)]
pub(crate) struct Said(pub(crate) Prompt);

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Said;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Said, E> {
                Ok(Said(Prompt::Text(text.to_owned())))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Said, E> {
                Ok(Said(Prompt::Text(text)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, messages: A) -> Result<Said, A::Error> {
                let messages = SeqAccessDeserializer::new(messages);
                Ok(Said(Prompt::Messages(Vec::deserialize(messages)?)))
            }
        }
        from.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_a_string_or_messages() -> Result<(), serde_json::Error> {
        let turns = Prompt::Messages(vec![Message::new("user", "hi")]);
        for (prompt, json) in
            [(Prompt::Text("hi".to_owned()), r#""hi""#), (turns, r#"[{"role":"user","content":"hi"}]"#)]
        {
            assert_eq!(serde_json::to_string(&prompt)?, json);
            assert_eq!(serde_json::from_str::<Prompt>(json)?, prompt);
        }
        let parts =
            r#"[{"role":"user","content":[{"type":"text","text":"h"},{"type":"text","text":"i"}]}]"#;
        assert_eq!(
            serde_json::from_str::<Prompt>(parts)?,
            Prompt::Messages(vec![Message::new("user", "hi")])
        );
        let image = r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}"#;
        let error = serde_json::from_str::<Message>(image).expect_err("an image is no text").to_string();
        assert!(error.starts_with("a part of type 'image_url': only text can be read"), "{error}");
        let error = serde_json::from_str::<Prompt>("3").expect_err("a number is no prompt");
        assert_eq!(error.to_string(), "expected a text, or messages with role and content");
        Ok(())
    }
}
