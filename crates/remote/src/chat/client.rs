//! Sends chat requests.

use std::time::Duration;

use serde_json::{Value, json};
use stackelberg_engine::Message;

use super::completion::Completion;
use super::endpoint::{Endpoint, Settings};
use super::error::{Error, Failure, Hint, Kind};
use super::status;
use crate::connection::{Broken, Connection};
use crate::message::shortened;
use crate::retry::{Attempt, Ended, Retry};

/// A client of one model at one endpoint. It may be used from many threads: a `Retry-After` holds for all of them.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    retry: Retry,
    endpoint: Endpoint,
    settings: Settings,
}

/// Bytes of a response that are read at most.
const LONGEST_ANSWER: u64 = 4 << 20;

impl Client {
    /// Prepares a client; nothing is sent.
    ///
    /// # Errors
    /// The address is invalid or holds credentials; the key cannot be a header; an extra field is one that the
    /// client sets itself.
    pub fn new(endpoint: Endpoint, settings: Settings) -> Result<Self, Error> {
        let url = endpoint.url()?;
        let own = [
            "model",
            "messages",
            "temperature",
            "seed",
            endpoint.max_tokens_field.as_str(),
            "stream",
            "n",
        ];
        if let Some(field) = settings.extra.keys().find(|field| own.contains(&field.as_str())) {
            let problem = format!("the field '{field}' is not for it to set");
            return Err(Error::Setting { name: "more of the request", problem });
        }
        let connection = Connection::new(url, endpoint.key.as_ref(), endpoint.timeout, LONGEST_ANSWER)
            .map_err(|setup| Error::Setting { name: setup.name, problem: setup.problem })?;
        let retry = Retry::new(endpoint.retries, endpoint.first_wait);
        Ok(Self { connection, retry, endpoint, settings })
    }

    /// The address that requests go to.
    pub fn url(&self) -> &str {
        self.connection.shown()
    }

    /// Sends the messages and returns the model's reply. A request that fails for a temporary reason is sent again,
    /// up to [`Endpoint::retries`] times. Each request adds one to `requests`. Waits end when `stop` returns true.
    ///
    /// # Errors
    /// This request fails, all requests would fail, or `stop` returned true.
    pub fn complete(
        &self,
        messages: &[Message],
        requests: &mut u64,
        stop: &dyn Fn() -> bool,
    ) -> Result<Completion, Failure> {
        let body = self.body(messages).to_string();
        let sent = self.retry.run(stop, || {
            *requests += 1;
            self.send(&body)
        });
        sent.map_err(|ended| match ended {
            Ended::Failed(failure) => failure,
            Ended::Stopped => Failure::Stopped,
        })
    }

    fn body(&self, messages: &[Message]) -> Value {
        let message = |message: &Message| json!({"role": message.role, "content": message.content});
        let mut body = json!({
            "model": self.settings.model,
            "messages": messages.iter().map(message).collect::<Vec<_>>(),
            self.endpoint.max_tokens_field.as_str(): self.endpoint.max_tokens,
        });
        if let Some(temperature) = self.settings.temperature {
            body["temperature"] = json!(temperature);
        }
        if let Some(seed) = self.settings.seed {
            body["seed"] = json!(seed);
        }
        for (field, value) in &self.settings.extra {
            body[field.as_str()] = value.clone();
        }
        body
    }

    /// Sends a request once.
    fn send(&self, body: &str) -> Attempt<Completion, Failure> {
        let answer = match self.connection.post(body) {
            Ok(answer) => answer,
            Err(broken) => return self.broken(broken),
        };
        let (status, wait, text) = (answer.status.as_u16(), answer.wait, answer.text);
        if let Some(to) = answer.redirect {
            let said = format!("it says to go to {to}");
            let refused = status::refusal(self.url(), status, said, Some(Hint::Redirect));
            return Attempt::Never(refused.into());
        }
        if status != 200 {
            return status::judge(self.url(), status, &text, wait);
        }
        let hidden = || self.connection.without_secrets(text.clone());
        let strange =
            || again(Kind::Body, format!("no chat completion: {}", shortened(&hidden())), wait);
        match serde_json::from_str::<Value>(&text) {
            Ok(value) if value["choices"].is_array() => {
                Completion::parse(&value).map_or_else(strange, Attempt::Done)
            }
            // Some servers pass on the failure of another server under status 200.
            Ok(value) if value["error"].is_object() => {
                let code = value["error"]["code"].as_u64().and_then(|code| u16::try_from(code).ok());
                status::judge(self.url(), code.unwrap_or(500), &hidden(), wait)
            }
            _ => strange(),
        }
    }

    fn broken(&self, broken: Broken) -> Attempt<Completion, Failure> {
        match broken {
            Broken::Connect { problem, hopeless } => {
                let unreachable = Error::Unreachable { url: self.url().to_owned(), problem }.into();
                match self.connection.has_answered() && !hopeless {
                    true => Attempt::Again(unreachable, None),
                    false => Attempt::Never(unreachable),
                }
            }
            Broken::TimeOut(problem) => again(Kind::TimeOut, problem, None),
            Broken::Cut(problem) => again(Kind::Cut, problem, None),
        }
    }
}

fn again(kind: Kind, problem: String, wait: Option<Duration>) -> Attempt<Completion, Failure> {
    Attempt::Again(Failure::Request { kind, problem }, wait)
}
