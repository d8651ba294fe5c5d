//! The client of the servers that run a policy.

use std::sync::Arc;
use std::time::Duration;

use stackelberg_decoding::policy::{Answered, Call, InFlight, PolicyServer};
use stackelberg_engine::{Result, TextProcessor};

use super::discovery::{Facts, difference, discover};
use super::request::body;
use super::response::found;
use crate::address;
use crate::key::Key;
use crate::served::Served;
use crate::servers::{Background, Connected, Patience, Server, Servers, connect};

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
        let ask = async |server: &Server, model: &str| discover(server, model, text).await;
        let connected = connect("policy", addresses, key.as_ref(), PATIENCE, ask, difference)?;
        let Connected { servers, facts, background } = connected;
        Ok(Self { servers: Arc::new(servers), facts: Arc::new(facts), background })
    }

    /// What the first server says that it serves: a folder there, a file, or a name on the hub.
    ///
    /// # Errors
    /// An address is malformed; a server does not answer or has no such model.
    pub fn root(addresses: &str, key: Option<Key>) -> Result<String> {
        let (all, model) = address::split_name(addresses);
        let first = address::several(all).next().unwrap_or_default();
        let ask = async |server: &Server, model: &str| Ok(Served::find(server, model).await?.root);
        let connected =
            connect("policy", &format!("{first}#{model}"), key.as_ref(), PATIENCE, ask, |_, _| None)?;
        Ok(connected.facts)
    }

    /// Whether a name is the address of a server: it begins with `http://` or `https://`, in any case.
    pub fn is_address(name: &str) -> bool {
        address::is_http(name)
    }

    /// Whether an address is that of an OpenAI-compatible API and not of a reward: its path ends with `/v1`.
    pub fn is_api(name: &str) -> bool {
        let first = address::several(address::split_name(name).0).next().unwrap_or_default();
        let url = address::parse(first);
        url.is_ok_and(|url| url.path().trim_end_matches('/').ends_with("/v1"))
    }
}

impl PolicyServer for PolicyClient {
    fn context(&self) -> usize {
        self.facts.context
    }

    fn most_log_probs(&self) -> usize {
        self.facts.most_log_probs
    }

    fn most_continuations(&self) -> usize {
        self.facts.continuations
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
