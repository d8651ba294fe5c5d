//! The client of the servers that run a policy.

use std::sync::Arc;
use std::time::Duration;

use stackelberg_decoding::policy::{Answered, Call, InFlight, PolicyServer};
use stackelberg_engine::{Error, Result, TextProcessor};
use stackelberg_http::redacted;

use super::discovery::{Facts, discover};
use super::request::body;
use super::response::found;
use crate::address;
use crate::key::Key;
use crate::servers::{Background, Patience, Server, Servers};

/// A policy that runs on one server or on several that are alike, as `http://HOST:PORT/v1#NAME`; more addresses follow commas.
/// Without `#NAME` the server's only model is asked.
///
/// Prompts are sent as token ids. What a server can do is found out once: its version, its model's context and its limit of
/// log-probabilities. Calls go to the least busy server. One that fails is left out for a while; a call that failed for a
/// temporary reason is sent again, also to another server.
pub struct PolicyClient {
    servers: Arc<Servers>,
    facts: Arc<Facts>,
    background: Background,
}

/// The longest time of a call.
const TIMEOUT: Duration = Duration::from_secs(600);
/// A wrong answer may be that of one broken server: it is asked for again, as after any failure.
const PATIENCE: Patience =
    Patience { failures: 9, malformed: 9, first_wait: Duration::from_millis(100), at_once: 512 };

impl PolicyClient {
    /// Connects, and finds out what the servers can do. `text` is the model's text side here.
    ///
    /// # Errors
    /// An address is malformed; a server does not answer, has no such model, gives no token ids or no log-probabilities at
    /// temperature 1; the servers differ; their tokenizer is not `text`'s.
    pub fn connect(addresses: &str, key: Option<Key>, text: &TextProcessor) -> Result<Self> {
        let background = Background::new("policy")
            .map_err(|error| Error::Scorer(format!("cannot start threads: {error}")))?;
        let (addresses, model) = addresses.split_once('#').unwrap_or((addresses, ""));
        let server = |address: &str| {
            Server::new(address.trim_end_matches('/'), redacted(address), key.as_ref(), TIMEOUT)
        };
        let all = address::several(addresses).map(server).collect::<std::result::Result<Vec<_>, _>>();
        let servers = Servers::new(all.map_err(Error::Scorer)?, PATIENCE);
        let facts = background.wait(discover(servers.all(), model, text)).map_err(Error::Scorer)?;
        Ok(Self { servers: Arc::new(servers), facts: Arc::new(facts), background })
    }

    /// Whether a name is the address of a server: it begins with `http://` or `https://`, in any case.
    pub fn is_address(name: &str) -> bool {
        address::is_http(name)
    }
}

impl PolicyServer for PolicyClient {
    fn context(&self) -> usize {
        self.facts.context
    }

    fn most_log_probs(&self) -> usize {
        self.facts.most_log_probs
    }

    fn model(&self) -> &str {
        &self.facts.model
    }

    fn identity(&self) -> String {
        self.facts.to_string()
    }

    fn ask(&self, call: Call, answer: Answered) -> InFlight {
        let (servers, facts) = (self.servers.clone(), self.facts.clone());
        let handle = self.background.begin(async move {
            let body = body(facts.dialect, &facts.model, &call);
            let asked = servers.ask("completions", &body, |response| found(response, &call)).await;
            answer(asked.map_err(|ended| ended.problem));
        });
        InFlight::new(move || handle.abort())
    }
}
