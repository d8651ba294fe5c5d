//! What an operator decides: limits, keys, names.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::{Error, Result};
use crate::openai::objects::Fields;

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

/// Limits on requests. Errors state them. The counts that have no options of their own can be read from JSON.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Sequences that are decoded at once.
    #[serde(skip)]
    pub sequences: usize,
    /// Further choices that may wait.
    #[serde(skip)]
    pub queue: usize,
    /// Bytes of prefilled prompts that are kept for requests with the same beginning.
    #[serde(skip)]
    pub cache: usize,
    /// Bytes of a request's body.
    pub body: usize,
    /// Bytes of all bodies that are being read.
    pub bodies: usize,
    /// Choices of a request: prompts times `n`.
    pub choices: usize,
    /// Tokens of a prompt.
    pub prompt: usize,
    /// New tokens of a choice.
    pub tokens: usize,
    /// Log-probabilities of the tokens of prompts, of all choices of a request.
    pub logprobs: usize,
    /// Candidates in the traces, and likeliest tokens with log-probabilities, of all choices of an answer that is not streamed.
    pub entries: usize,
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
    /// Texts, or pairs, that one request scores.
    pub texts: usize,
    /// Rewards that one request shapes.
    pub rewards: usize,
    /// Connections at once.
    pub connections: usize,
    /// Time within which the head of a request, and then its body, must have arrived.
    #[serde(skip)]
    pub arrival: Duration,
    /// Time that running requests have to finish once the server is told to stop.
    #[serde(skip)]
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sequences: 16,
            queue: 256,
            cache: 256 << 20,
            body: 8 << 20,
            bodies: 256 << 20,
            choices: 128,
            prompt: 1_000_000,
            tokens: 1_000_000,
            logprobs: 1_000_000,
            entries: 1_000_000,
            samples: 64,
            candidates: 256,
            block: 1024,
            stops: 64,
            stop_bytes: 1024,
            logit_bias: 1024,
            messages: 4096,
            texts: 1024,
            rewards: 1_000_000,
            connections: 4096,
            arrival: Duration::from_secs(60),
            drain: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// The most that a limit may be.
    const MOST: usize = 1 << 30;

    /// Reads limits from a JSON object.
    ///
    /// # Errors
    /// It is no object of limits.
    pub fn from_json(text: &str) -> Result<Self> {
        let read = serde_json::from_str(text).map(|Fields(limits)| limits);
        read.map_err(|error| Error::Setting(error.to_string()))
    }

    /// Checks the counts.
    ///
    /// # Errors
    /// One is 0 or too large, or a body does not fit the memory of all bodies.
    pub(crate) fn check(&self) -> Result<()> {
        let counts = [
            ("body", self.body),
            ("bodies", self.bodies),
            ("choices", self.choices),
            ("prompt", self.prompt),
            ("tokens", self.tokens),
            ("logprobs", self.logprobs),
            ("entries", self.entries),
            ("samples", self.samples),
            ("candidates", self.candidates),
            ("block", self.block),
            ("stops", self.stops),
            ("stop_bytes", self.stop_bytes),
            ("logit_bias", self.logit_bias),
            ("messages", self.messages),
            ("texts", self.texts),
            ("rewards", self.rewards),
            ("connections", self.connections),
        ];
        for (name, count) in counts {
            if count == 0 || count > Self::MOST {
                let must = format!("it must be between 1 and {}", Self::MOST);
                return Err(Error::Setting(format!("the limit {name} is {count}: {must}")));
            }
        }
        if self.bodies < self.body {
            let (body, bodies) = (self.body, self.bodies);
            let message = format!("the limit bodies is {bodies}: it must be at least body, {body}");
            return Err(Error::Setting(message));
        }
        Ok(())
    }
}

/// API keys, as their SHA-256.
#[derive(Clone, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// These keys. White space around them is left out.
    ///
    /// # Errors
    /// A key is empty, or has characters that no client can send in a header: others than printable ASCII.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let keys = keys.into_iter().map(str::trim).map(|key| match key {
            "" => Err(Error::Setting("the API key is empty".to_owned())),
            _ if !key.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) => {
                Err(Error::Setting("an API key must have printable ASCII characters only".to_owned()))
            }
            key => Ok(Sha256::digest(key).into()),
        });
        keys.collect::<Result<_>>().map(Self)
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

/// The keys of all.
impl FromIterator<Keys> for Keys {
    fn from_iter<I: IntoIterator<Item = Keys>>(all: I) -> Self {
        Self(all.into_iter().flat_map(|Keys(keys)| keys).collect())
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
        let keys = Keys::new(["one", " two \n", "a key"]).unwrap();
        assert!(keys.has("one") && keys.has("two") && keys.has("a key"));
        for wrong in ["", "on", "one ", "three", "onetwo"] {
            assert!(!keys.has(wrong), "{wrong}");
        }
        assert!(Keys::new([]).unwrap().is_empty());
        for wrong in ["", " ", "two\nlines", "ключ"] {
            assert!(Keys::new(["one", wrong]).is_err(), "{wrong}");
        }
        assert!(!format!("{keys:?}").contains("one"));
    }
}
