//! What an operator decides: limits, keys, names.

use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Settings of a server.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Limits on requests.
    pub limits: Limits,
    /// The guidance of requests that have none: the object that requests give as `guidance`.
    pub default_guidance: Option<Value>,
    /// The keys that clients must send one of; without keys, none is needed.
    pub keys: Keys,
    /// Whether requests must be addressed to localhost. Web pages can make browsers send requests to loopback addresses
    /// under names of their own.
    pub loopback: bool,
}

/// Limits on requests. Errors state them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sequences that are decoded at once.
    pub sequences: usize,
    /// Further choices that may wait.
    pub queue: usize,
    /// Bytes of prefilled prompts that are kept for requests with the same beginning.
    pub cache: usize,
    /// Bytes of a request's body.
    pub body: usize,
    /// Choices of a request: prompts times `n`.
    pub choices: usize,
    /// New tokens of a choice.
    pub tokens: usize,
    /// Samples, blocks' continuations or particles of a choice.
    pub samples: usize,
    /// Candidates of a step.
    pub candidates: usize,
    /// Tokens of a block or a segment.
    pub block: usize,
    /// Stop texts and stop tokens.
    pub stops: usize,
    /// Bytes of a stop text.
    pub stop_bytes: usize,
    /// Entries of `logit_bias`.
    pub logit_bias: usize,
    /// Messages of a chat.
    pub messages: usize,
    /// Texts, or pairs, that one request scores; rewards that one request shapes, in thousands.
    pub texts: usize,
    /// Connections at once.
    pub connections: usize,
    /// Time within which the head of a request, and then its body, must have arrived.
    pub arrival: Duration,
    /// Time that running requests have to finish once the server is told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sequences: 16,
            queue: 256,
            cache: 256 << 20,
            body: 8 << 20,
            choices: 128,
            tokens: 1_000_000,
            samples: 64,
            candidates: 256,
            block: 1024,
            stops: 64,
            stop_bytes: 1024,
            logit_bias: 1024,
            messages: 4096,
            texts: 1024,
            connections: 4096,
            arrival: Duration::from_secs(60),
            drain: Duration::from_secs(30),
        }
    }
}

/// API keys, as their SHA-256.
#[derive(Clone, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// These keys. Blank ones, and white space around them, are left out.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        let keys = keys.into_iter().map(str::trim).filter(|key| !key.is_empty());
        Self(keys.map(|key| Sha256::digest(key).into()).collect())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is one of the keys. The time that this takes does not depend on the keys.
    pub(crate) fn has(&self, key: &str) -> bool {
        let hash: [u8; 32] = Sha256::digest(key).into();
        let found = self.0.iter().map(|own| own.ct_eq(&hash));
        found.fold(subtle::Choice::from(0), |any, one| any | one).into()
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::Keys;

    #[test]
    fn keys_are_compared_whole() {
        let keys = Keys::new(["one", " two \n", ""]);
        assert!(keys.has("one") && keys.has("two"));
        for wrong in ["", "on", "one ", "three", "onetwo"] {
            assert!(!keys.has(wrong), "{wrong}");
        }
        assert!(Keys::new([" "]).is_empty());
        assert!(!format!("{keys:?}").contains("one"));
    }
}
