//! Messages of a chat.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use stackelberg_engine::Message;
use utoipa::ToSchema;

use super::objects;
use crate::error::ApiError;

/// A message of a chat.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "some fields are accepted and not used")]
pub(crate) struct ChatMessage {
    /// `system`, `user`, `assistant`, or what else the chat template knows.
    role: String,
    /// A text, or a list of parts of type `text`.
    content: Option<Content>,
    /// Must be `text` or `message`: some clients send it.
    r#type: Option<String>,
    /// Accepted and not used.
    name: Option<String>,
    /// Must be null or empty: there are no tools.
    #[schema(value_type = Option<Vec<Object>>)]
    tool_calls: Option<Value>,
    /// Must be null: there are no tools.
    tool_call_id: Option<String>,
    /// Must be null: there are no functions.
    #[schema(value_type = Option<Object>)]
    function_call: Option<Value>,
    /// Accepted and not used: answers have this field.
    refusal: Option<String>,
    /// Must be null.
    #[schema(value_type = Option<Object>)]
    audio: Option<Value>,
    /// Accepted and not used.
    #[schema(value_type = Option<Vec<Object>>)]
    annotations: Option<IgnoredAny>,
    /// Accepted and not used.
    reasoning: Option<String>,
    /// Accepted and not used.
    reasoning_content: Option<String>,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text or a list of parts")]
pub(crate) enum Content {
    /// A text.
    Text(String),
    /// Parts, which are put together.
    Parts(#[serde(deserialize_with = "objects::all")] Vec<Part>),
}

/// A part of a content.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct Part {
    /// Must be `text`.
    r#type: String,
    text: Option<String>,
}

impl ChatMessage {
    /// The message for the chat template; `at` is its place for errors.
    fn message(self, at: usize) -> Result<Message, ApiError> {
        let field = |name: &str| format!("messages[{at}].{name}");
        let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        for (name, given) in [
            ("type", self.r#type.as_deref().is_some_and(|of| !matches!(of, "text" | "message"))),
            ("tool_calls", self.tool_calls.as_ref().is_some_and(|calls| !empty(calls))),
            ("tool_call_id", self.tool_call_id.is_some()),
            ("function_call", self.function_call.is_some()),
            ("audio", self.audio.is_some()),
        ] {
            if given {
                let field = field(name);
                return Err(ApiError::unsupported(
                    &field,
                    format!("{field} is not supported: leave it out"),
                ));
            }
        }
        let content = match self.content {
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => {
                let mut all = String::new();
                for (number, Part { r#type, text }) in parts.into_iter().enumerate() {
                    let Some(text) = text.filter(|_| r#type == "text") else {
                        let field = field(&format!("content[{number}]"));
                        let message =
                            format!("{field}: a part of type {type:?} is not supported: only text is");
                        return Err(ApiError::unsupported(field, message));
                    };
                    all.push_str(&text);
                }
                all
            }
            None => {
                let field = field("content");
                return Err(ApiError::invalid(&field, format!("{field} is missing")));
            }
        };
        Ok(Message::new(self.role, content))
    }
}

/// All messages for the chat template.
pub(crate) fn messages(list: Vec<ChatMessage>, most: usize) -> Result<Vec<Message>, ApiError> {
    if list.is_empty() || list.len() > most {
        let message = format!("messages has {} messages: it must have between 1 and {most}", list.len());
        return Err(ApiError::invalid("messages", message));
    }
    list.into_iter().enumerate().map(|(at, message)| message.message(at)).collect()
}
