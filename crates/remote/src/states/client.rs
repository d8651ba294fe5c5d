//! The client of the servers that give hidden states.

use std::time::Duration;

use futures_util::future::try_join_all;
use stackelberg_decoding::policy::{End, StateServer};
use stackelberg_engine::{Result, TextProcessor};

use super::discovery::{Facts, difference, discover};
use super::pooling::{Task, body, read};
use crate::key::Key;
use crate::servers::{Background, Connected, Ended, Patience, Server, Servers, connect};

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
        let ask = async |server: &Server, model: &str| discover(server, model, text).await;
        let connected = connect("states", addresses, key.as_ref(), PATIENCE, ask, difference)?;
        let Connected { servers, facts: (facts, _), background } = connected;
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
