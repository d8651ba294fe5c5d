//! What servers say in the bodies of responses, for messages.

use serde_json::Value;

/// The error message of a response body, or the beginning of the body, as one line of at most 300 characters.
/// An empty body gives "nothing".
pub(crate) fn said(body: &str) -> String {
    let value: Value = serde_json::from_str(body).unwrap_or_default();
    let error = &value["error"];
    let message = [&error["message"], error, &value["message"], &value["detail"]].map(Value::as_str);
    match message.into_iter().flatten().next() {
        Some(message) => shortened(message),
        None => shortened(body),
    }
}

/// One line of at most 300 characters.
pub(crate) fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(300) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None if line.is_empty() => "nothing".to_owned(),
        None => line,
    }
}

/// What a response says, up to 120 characters, and what it should be.
pub(crate) fn unexpected(said: &str, expected: &str) -> String {
    let said: String = said.chars().take(120).collect();
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("answered '{line}' where {expected} is expected")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_said_in_one_short_line() {
        assert_eq!(said("{\"error\": {\"message\": \"no\\nway\"}}"), "no way");
        assert_eq!(said("{\"detail\": \"Not Found\"}"), "Not Found");
        assert_eq!(said("{\"error\": \"model 'x' not found\"}"), "model 'x' not found");
        assert_eq!(said(""), "nothing");
        assert_eq!(said(&"ä".repeat(400)).chars().count(), 303);
    }
}
