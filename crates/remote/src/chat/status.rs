//! What the status of an error response means: a temporary failure, a refusal of one request, or of all.

use std::time::Duration;

use super::error::{Error, Failure, Hint, Kind};
use crate::message::said;
use crate::retry::{Attempt, LONGEST_ASKED};

/// Servers say one of these when they refuse the texts of a request.
const OF_TEXTS: [&str; 7] = [
    "context_length",
    "context length",
    "context size",
    "content_filter",
    "content management policy",
    "too long",
    "too large",
];

/// Judges an error response by its status and body; `asked` is the wait that the server asks for.
pub(super) fn judge<T>(
    url: &str,
    status: u16,
    body: &str,
    asked: Option<Duration>,
) -> Attempt<T, Failure> {
    let lower = body.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let refused = |hint| Failure::Fatal(refusal(url, status, said(body), hint));
    match status {
        429 if has(&["insufficient_quota"]) => Attempt::Never(refused(Some(Hint::Quota))),
        429 | 503 if asked.is_some_and(|asked| asked > LONGEST_ASKED) => {
            Attempt::Never(refused(Some(Hint::Later)))
        }
        429 => Attempt::Again(refused(None), asked),
        408 | 409 | 425 | 500.. => Attempt::Again(failed(Kind::Server, status, body), asked),
        400 | 413 | 422 if has(&OF_TEXTS) => Attempt::Never(failed(Kind::Refused, status, body)),
        400 if has(&["max_completion_tokens"]) => Attempt::Never(refused(Some(Hint::TokensField))),
        400 if has(&["temperature"]) => Attempt::Never(refused(Some(Hint::Temperature))),
        401 | 403 => Attempt::Never(refused(Some(Hint::Key))),
        404 => Attempt::Never(refused(Some(Hint::Address))),
        _ => Attempt::Never(refused(None)),
    }
}

pub(super) fn refusal(url: &str, status: u16, said: String, hint: Option<Hint>) -> Error {
    Error::Refused { url: url.to_owned(), status, said, hint }
}

fn failed(kind: Kind, status: u16, body: &str) -> Failure {
    Failure::Request { kind, problem: format!("status {status}: {}", said(body)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_temporary_or_final() {
        let judged = |status: u16, body: &str, asked: Option<u64>| match judge::<()>(
            "u",
            status,
            body,
            asked.map(Duration::from_secs),
        ) {
            Attempt::Done(()) => unreachable!(),
            Attempt::Again(failure, _) => ("again", failure.to_string()),
            Attempt::Never(failure @ Failure::Fatal(_)) => ("never", failure.to_string()),
            Attempt::Never(failure) => ("this one", failure.to_string()),
        };
        for status in [408, 409, 425, 429, 500, 502, 503, 529] {
            assert_eq!(judged(status, "", Some(600)).0, "again", "{status}");
        }
        for status in [400, 401, 402, 403, 404, 405, 413, 418, 422] {
            assert_eq!(judged(status, "", None).0, "never", "{status}");
        }
        assert_eq!(judged(413, "too large", None), ("this one", "status 413: too large".to_owned()));
        let (how, error) = judged(503, "", Some(601));
        assert!(how == "never" && error.contains("more than ten minutes"), "{error}");
        let (how, error) = judged(400, "use max_completion_tokens", None);
        assert!(how == "never" && error.ends_with("the most tokens max_completion_tokens"), "{error}");
    }
}
