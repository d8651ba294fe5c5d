//! Reads what an OpenAI-compatible server sends back.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;

/// A reply of the judge.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Reply {
    pub(super) text: String,
    pub(super) finish: Option<String>,
    pub(super) served: Option<String>,
    pub(super) tokens_in: Option<u64>,
    pub(super) tokens_out: Option<u64>,
}

/// The judge's words in a chat completion; `None` if it is none.
pub(super) fn reply(value: &Value) -> Option<Reply> {
    let choice = &value["choices"][0];
    let text = match &choice["message"]["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    };
    let word = |value: &Value| value.as_str().map(str::to_owned);
    let finish = word(&choice["finish_reason"]);
    choice["message"].is_object().then(|| Reply {
        text: if text.is_empty() { word(&choice["message"]["refusal"]).unwrap_or(text) } else { text },
        finish,
        served: word(&value["model"]),
        tokens_in: value["usage"]["prompt_tokens"].as_u64(),
        tokens_out: value["usage"]["completion_tokens"].as_u64(),
    })
}

/// What servers say when it is the texts that they refuse.
pub(super) const OF_TEXTS: [&str; 7] = [
    "context_length",
    "context length",
    "context size",
    "content_filter",
    "content management policy",
    "too long",
    "too large",
];

/// How long a server asks to wait: seconds, or a date.
pub(super) fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    let asked = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match asked.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => httpdate::parse_http_date(asked).ok()?.duration_since(SystemTime::now()).ok(),
    }
}

/// What an error body says, or its beginning.
pub(super) fn said(text: &str) -> String {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let error = &value["error"];
    let message = [&error["message"], error, &value["message"], &value["detail"]].map(Value::as_str);
    match message.into_iter().flatten().next() {
        Some(message) => shortened(message),
        None => shortened(text),
    }
}

/// One line of at most 300 characters.
pub(super) fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(300) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None if line.is_empty() => "nothing".to_owned(),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn waits_are_seconds_or_dates() {
        let asked = |value: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(value).unwrap())]);
            asked_wait(&headers)
        };
        assert_eq!(asked("3"), Some(Duration::from_secs(3)));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let found = asked(&soon).unwrap().as_secs_f64();
        assert!((98.0..=100.0).contains(&found), "{found}");
        for nothing in ["-1", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", "NaN", "1e300"] {
            assert_eq!(asked(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn errors_are_said_in_one_short_line() {
        assert_eq!(said("{\"error\": {\"message\": \"no\\nway\"}}"), "no way");
        assert_eq!(said("{\"detail\": \"Not Found\"}"), "Not Found");
        assert_eq!(said("{\"error\": \"model 'x' not found\"}"), "model 'x' not found");
        assert_eq!(said(""), "nothing");
        assert_eq!(said(&"ä".repeat(400)).chars().count(), 303);
    }

    #[test]
    fn words_come_as_text_or_parts() {
        let words = |message: &str| {
            let text = format!("{{\"choices\": [{{\"message\": {message}}}]}}");
            reply(&serde_json::from_str(&text).unwrap()).map(|reply| reply.text)
        };
        assert_eq!(words("{\"content\": \"8 7\"}").unwrap(), "8 7");
        assert_eq!(words("{\"content\": [{\"type\": \"text\", \"text\": \"8 7\"}]}").unwrap(), "8 7");
        assert_eq!(words("{\"content\": null, \"refusal\": \"I cannot.\"}").unwrap(), "I cannot.");
        assert_eq!(words("{\"content\": null}").unwrap(), "");
        assert_eq!(words("null"), None);
    }
}
