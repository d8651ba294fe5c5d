//! The client of the servers that run a policy.

use std::sync::Arc;

use stackelberg_decoding::policy::{Answered, Call, InFlight, PolicyServer};
use stackelberg_engine::{Error, Result, TextProcessor};
use tokio::runtime::{Builder, Runtime};

use super::discovery::{Facts, discover};
use super::servers::Servers;
use crate::address;
use crate::key::Key;

/// A policy that runs on one server or on several that are alike, as `http://HOST:PORT/v1#NAME`; more addresses follow commas.
/// Without `#NAME` the server's only model is asked.
///
/// Prompts are sent as token ids. What a server can do is found out once: its version, its model's context and its limit of
/// log-probabilities. Calls go to the least busy server. One that fails is left out for a while; a call that failed for a
/// temporary reason is sent again, also to another server.
pub struct PolicyClient {
    servers: Arc<Servers>,
    facts: Facts,
    runtime: Option<Runtime>,
}

/// Threads that serve connections.
const THREADS: usize = 2;

impl PolicyClient {
    /// Connects, and finds out what the servers can do. `text` is the model's text side here.
    ///
    /// # Errors
    /// An address is malformed; a server does not answer, has no such model, gives no token ids or no log-probabilities at
    /// temperature 1; the servers differ; their tokenizer is not `text`'s.
    pub fn connect(addresses: &str, key: Option<Key>, text: &TextProcessor) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("policy")
            .enable_all()
            .build();
        let runtime =
            runtime.map_err(|error| Error::Scorer(format!("cannot start threads: {error}")))?;
        let mut servers = Servers::new(addresses, key.as_ref()).map_err(Error::Scorer)?;
        let facts = runtime.block_on(discover(&mut servers, text)).map_err(Error::Scorer)?;
        Ok(Self { servers: Arc::new(servers), facts, runtime: Some(runtime) })
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
        let Some(runtime) = &self.runtime else { return InFlight::new(|| ()) };
        let servers = self.servers.clone();
        let task = runtime.spawn(async move { answer(servers.find(&call).await) });
        let handle = task.abort_handle();
        InFlight::new(move || handle.abort())
    }
}

/// Calls that are under way are dropped without waiting for them.
impl Drop for PolicyClient {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
