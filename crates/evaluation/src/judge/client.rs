//! Sends rating forms to a judge.

use stackelberg_engine::Message;
use stackelberg_remote::chat::{self, Completion, Endpoint, Failure, Settings};

use super::error::Error;
use super::identity::Identity;

/// A judge at a chat endpoint. It may be used from many threads.
#[derive(Debug)]
pub struct Client {
    chat: chat::Client,
    identity: Identity,
}

impl Client {
    /// Prepares a client; nothing is sent.
    ///
    /// # Errors
    /// As [`chat::Client::new`].
    pub fn new(endpoint: Endpoint, identity: Identity) -> Result<Self, Error> {
        let settings = Settings {
            model: identity.model.clone(),
            temperature: identity.temperature,
            seed: identity.seed,
            extra: identity.extra.clone(),
        };
        Ok(Self { chat: chat::Client::new(endpoint, settings)?, identity })
    }

    /// The judge's identity.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The address that calls go to.
    pub fn url(&self) -> &str {
        self.chat.url()
    }

    /// Sends a form; see [`chat::Client::complete`].
    pub(super) fn ask(
        &self,
        form: &str,
        requests: &mut u64,
        stop: &dyn Fn() -> bool,
    ) -> Result<Completion, Failure> {
        self.chat.complete(&[Message::new("user", form)], requests, stop)
    }
}
