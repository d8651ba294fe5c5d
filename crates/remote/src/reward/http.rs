//! A reward model on an HTTP server.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use stackelberg_engine::reward::{Exchange, RewardFormat, TextScorer};
use stackelberg_engine::{Error, Result};
use stackelberg_http::redacted;

use super::protocol::{Names, Protocol};
use crate::address::{self, split_model};
use crate::connection::{Answer, Broken, Connection};
use crate::key::Key;
use crate::message::said;
use crate::retry::{Attempt, Ended, Retry, is_temporary};

/// A reward model on a server of vLLM or text-embeddings-inference (TEI). The end of the address says how the server
/// is asked and which number of its response is the reward:
///
/// | path | server | reward |
/// |---|---|---|
/// | `/classify` | vLLM | the logit of a label |
/// | `/score` | vLLM | the score of prompt and answer |
/// | `/pooling` | vLLM | the last number that a reward model gives |
/// | `/predict` | TEI | the raw score of a label |
/// | `/rerank` | TEI | the raw score of prompt and answer |
///
/// Rewards are raw: servers are asked to apply no sigmoid and no softmax. Text that begins with a special token, as that
/// of a chat template does, gets none added.
///
/// `?model=NAME` behind the path names the model, for a server that has several; the rest of a query is sent as it is.
/// `#LABEL` at the end chooses a label by name or number. Answers of `/classify` name the most likely label only, so a
/// name must be among those that its answers have shown. An address may hold a user and a password
/// (`http://user:password@host/score`) or a key (`?api_key=KEY`); messages do not show them.
pub struct HttpReward {
    connection: Connection,
    retry: Retry,
    protocol: Protocol,
    model: Option<String>,
    label: Option<String>,
    /// Labels that the server's answers have named.
    names: Mutex<Names>,
}

/// Texts per request.
const AT_ONCE: usize = 32;
const REPEATS: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Bytes of a response that are read at most.
const LONGEST_ANSWER: u64 = 64 << 20;

impl HttpReward {
    /// Prepares a client; the server is not asked yet. `timeout` is the longest wait for one response.
    ///
    /// # Errors
    /// The address is invalid or does not end with a known path; the key cannot be an HTTP header.
    pub fn new(address: &str, key: Option<Key>, timeout: Duration) -> Result<Self> {
        let fails = |problem: &str| Error::Scorer(format!("{}: {problem}", redacted(address)));
        let (rest, label) = match address.split_once('#') {
            Some((rest, label)) => (rest, Some(label.to_owned())),
            None => (address, None),
        };
        let (url, model) = split_model(rest);
        let protocol = Protocol::of(url.split_once('?').map_or(&url[..], |(path, _)| path))
            .ok_or_else(|| fails(&format!("the address must end with one of {}", Protocol::paths())))?;
        if let Some(label) = &label {
            protocol.check_label(label).map_err(|problem| fails(&problem))?;
        }
        let url = address::parse(&url).map_err(|problem| fails(&problem))?;
        let connection = Connection::new(url, key.as_ref(), timeout, LONGEST_ANSWER)
            .map_err(|setup| fails(&format!("{}: {}", setup.name, setup.problem)))?;
        let (retry, names) = (Retry::new(REPEATS, FIRST_WAIT), Mutex::default());
        Ok(Self { connection, retry, protocol, model, label, names })
    }

    /// Whether a name is the address of a server: it begins with `http://` or `https://`, in any case.
    pub fn is_address(name: &str) -> bool {
        address::is_http(name)
    }

    /// Sends a request until it succeeds, fails for good, or has failed too often.
    fn send(&self, body: &Value) -> Result<Value> {
        let body = body.to_string();
        self.retry.run(&|| false, || self.send_once(&body)).map_err(|ended| match ended {
            Ended::Failed(problem, 1) => self.fails(problem),
            Ended::Failed(problem, tries) => self.fails(format!("{problem}, after {tries} tries")),
            Ended::Stopped => self.fails("stopped"),
        })
    }

    fn send_once(&self, body: &str) -> Attempt<Value, String> {
        match self.connection.post(body) {
            Ok(Answer { status, text, .. }) if status.is_success() => {
                match serde_json::from_str(&text) {
                    Ok(value) => Attempt::Done(value),
                    Err(_) => Attempt::Never(unexpected(&text, "JSON")),
                }
            }
            Ok(Answer { status, redirect: Some(to), .. }) => {
                Attempt::Never(format!("{status}: it says to go to {to}: give that address"))
            }
            Ok(Answer { status, text, wait, .. }) => {
                let problem = match text.trim() {
                    "" => status.to_string(),
                    text => format!("{status}: {}", said(text)),
                };
                match is_temporary(status) {
                    true => Attempt::Again(problem, wait),
                    false => Attempt::Never(problem),
                }
            }
            Err(Broken::Connect { problem, hopeless: true }) => Attempt::Never(problem),
            Err(
                Broken::Connect { problem, hopeless: false }
                | Broken::TimeOut(problem)
                | Broken::Cut(problem),
            ) => Attempt::Again(problem, None),
        }
    }

    /// The rewards of texts that fit one request.
    fn ask(&self, exchanges: &[Exchange<'_>], format: RewardFormat) -> Result<Vec<f64>> {
        let mut body = self.protocol.request(exchanges, format);
        if let Some(model) = &self.model {
            body["model"] = Value::from(model.as_str());
        }
        let response = self.send(&body)?;
        let n = exchanges.len();
        let odd = |said: &Value, expected: &str| self.fails(unexpected(&said.to_string(), expected));
        let rows = self.protocol.rows(&response).filter(|rows| rows.len() == n);
        let rows = rows.ok_or_else(|| odd(&response, &format!("a list of {n} scores")))?;
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter().for_each(|row| names.learn(row));
        let mut rewards = vec![f64::NAN; n];
        for (i, row) in rows.iter().enumerate() {
            let at = row["index"].as_u64().map_or(i, |index| index as usize);
            let reward = self.protocol.reward(row, self.label.as_deref(), &names);
            let reward = reward.map_err(|problem| self.fails(problem))?.filter(|x| x.is_finite());
            let reward = reward.ok_or_else(|| odd(row, "a finite score"))?;
            *rewards.get_mut(at).ok_or_else(|| odd(row, &format!("an index below {n}")))? = reward;
        }
        match rewards.iter().position(|reward| reward.is_nan()) {
            Some(i) => Err(self.fails(format!("gave no score to text {i} of {n}"))),
            None => Ok(rewards),
        }
    }

    fn fails(&self, problem: impl std::fmt::Display) -> Error {
        let problem = self.connection.without_secrets(problem.to_string());
        Error::Scorer(format!("{}: {problem}", self.connection.shown()))
    }
}

fn unexpected(said: &str, expected: &str) -> String {
    let said: String = said.chars().take(120).collect();
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("answered '{line}' where {expected} is expected")
}

impl TextScorer for HttpReward {
    fn is_remote(&self) -> bool {
        true
    }

    fn score(&self, exchanges: &[Exchange<'_>], format: RewardFormat) -> Result<Vec<f64>> {
        let mut rewards = Vec::with_capacity(exchanges.len());
        let mut rest = exchanges;
        while let [first, ..] = rest {
            let fits = |exchange: &&Exchange<'_>| self.protocol.goes_with(first, exchange, format);
            let n = rest.iter().take(AT_ONCE).take_while(fits).count();
            rewards.extend(self.ask(&rest[..n], format)?);
            rest = &rest[n..];
        }
        Ok(rewards)
    }

    fn usual_format(&self) -> RewardFormat {
        RewardFormat::Hh
    }
}
