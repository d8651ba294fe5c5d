//! Chat completions, as servers send them.

use serde_json::Value;

/// A reply of the model.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Completion {
    /// The text of the first choice, or the model's refusal where there is no text.
    pub text: String,
    /// The server's `finish_reason`: `stop`, `length`, `content_filter`, ...
    pub finish: Option<String>,
    /// The model that the server used, by its own account.
    pub served: Option<String>,
    /// Tokens of the prompt, as the server counted them.
    pub tokens_in: Option<u64>,
    /// Tokens of the reply, as the server counted them.
    pub tokens_out: Option<u64>,
}

impl Completion {
    /// Reads a response body; `None` if it is no chat completion.
    pub(super) fn parse(value: &Value) -> Option<Self> {
        let choice = &value["choices"][0];
        let text = match &choice["message"]["content"] {
            Value::String(text) => text.clone(),
            Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
            _ => String::new(),
        };
        let word = |value: &Value| value.as_str().map(str::to_owned);
        let finish = word(&choice["finish_reason"]);
        choice["message"].is_object().then(|| Self {
            text: if text.is_empty() {
                word(&choice["message"]["refusal"]).unwrap_or(text)
            } else {
                text
            },
            finish,
            served: word(&value["model"]),
            tokens_in: value["usage"]["prompt_tokens"].as_u64(),
            tokens_out: value["usage"]["completion_tokens"].as_u64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_as_text_or_parts() {
        let words = |message: &str| {
            let text = format!("{{\"choices\": [{{\"message\": {message}}}]}}");
            Completion::parse(&serde_json::from_str(&text).unwrap()).map(|reply| reply.text)
        };
        assert_eq!(words("{\"content\": \"8 7\"}").unwrap(), "8 7");
        assert_eq!(words("{\"content\": [{\"type\": \"text\", \"text\": \"8 7\"}]}").unwrap(), "8 7");
        assert_eq!(words("{\"content\": null, \"refusal\": \"I cannot.\"}").unwrap(), "I cannot.");
        assert_eq!(words("{\"content\": null}").unwrap(), "");
        assert_eq!(words("null"), None);
    }
}
