//! The client of the servers that give hidden states.

use std::time::Duration;

use futures_util::future::try_join_all;
use stackelberg_decoding::policy::{End, StateServer};
use stackelberg_engine::{Error, Result, TextProcessor};
use stackelberg_http::redacted;

use super::discovery::{Facts, discover};
use super::pooling::{Task, body, read};
use crate::address;
use crate::key::Key;
use crate::servers::{Background, Ended, Patience, Server, Servers};

/// Hidden states after the final norm, from a vLLM that serves the policy's model with `--runner pooling --convert embed`, or
/// from `stackelberg serve`. With `--pooler-config.task token_embed` they are those of all tokens, otherwise those of last
/// tokens alone. The address is `http://HOST:PORT/v1#NAME`; more addresses follow commas, and are replicas.
///
/// A call that failed for a temporary reason, and one whose response is malformed, is sent again, also to another server.
pub struct StatesClient {
    servers: Servers,
    facts: Facts,
    background: Background,
}

/// The longest time of a call.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Responses are large: few are read at once. A model that is broken on a text is so again.
const PATIENCE: Patience =
    Patience { failures: 9, malformed: 3, first_wait: Duration::from_millis(100), at_once: 32 };

impl StatesClient {
    /// Connects, and finds out what the servers give. `text` is the policy's text side here.
    ///
    /// # Errors
    /// An address is malformed; a server does not answer, has no such model or gives no hidden states; the states are
    /// normalised, or depend on what follows; the servers differ; their tokenizer is not `text`'s.
    pub fn connect(addresses: &str, key: Option<Key>, text: &TextProcessor) -> Result<Self> {
        let background = Background::new("states")
            .map_err(|error| Error::Scorer(format!("cannot start threads: {error}")))?;
        let (addresses, model) = addresses.split_once('#').unwrap_or((addresses, ""));
        let server = |address: &str| {
            Server::new(address.trim_end_matches('/'), redacted(address), key.as_ref(), TIMEOUT)
        };
        let all = address::several(addresses).map(server).collect::<std::result::Result<Vec<_>, _>>();
        let servers = Servers::new(all.map_err(Error::Scorer)?, PATIENCE);
        let facts = background.wait(discover(servers.all(), model, text)).map_err(Error::Scorer)?;
        Ok(Self { servers, facts, background })
    }

    async fn one(&self, end: &End) -> std::result::Result<Vec<f32>, Ended> {
        let Facts { model, task, width, .. } = &self.facts;
        let tokens = end.tokens.len();
        let read = |response: &_| read(response, *task, tokens, Some(*width));
        let mut states = self.servers.ask("../pooling", &body(model, *task, &end.tokens), read).await?;
        states.drain(..states.len().saturating_sub(end.rows * width));
        Ok(states)
    }
}

impl StateServer for StatesClient {
    fn width(&self) -> usize {
        self.facts.width
    }

    fn context(&self) -> usize {
        self.facts.context
    }

    fn gives_all(&self) -> bool {
        self.facts.task == Task::All
    }

    fn identity(&self) -> String {
        self.facts.to_string()
    }

    fn states(&self, ends: &[End]) -> std::result::Result<Vec<Vec<f32>>, String> {
        let all = try_join_all(ends.iter().map(|end| self.one(end)));
        self.background.wait(all).map_err(|ended| ended.problem)
    }
}
