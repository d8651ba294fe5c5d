//! A reward model on HTTP servers.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::Value;
use stackelberg_engine::reward::{Exchange, RewardFormat, TextScorer};
use stackelberg_engine::{Error, Result};
use stackelberg_http::redacted;

use super::label::Names;
use super::protocol::{Protocol, Unexpected, of_path, paths};
use crate::address::{self, split_model};
use crate::key::Key;
use crate::message::unexpected;
use crate::servers::{Background, Ended, Patience, Server, Servers};

/// A reward model on a server of vLLM, SGLang or text-embeddings-inference (TEI). The end of the address says how the server
/// is asked and which number of its response is the reward:
///
/// | path | server | reward |
/// |---|---|---|
/// | `/classify` | vLLM | the logit of a label |
/// | `/score`, `/v1/score` | vLLM | the score of prompt and answer |
/// | `/pooling` | vLLM | the last number that a reward model gives |
/// | `/v1/rerank`, `/v2/rerank`, `/rerank` | vLLM, SGLang | the score of prompt and answer |
/// | `/classify` | SGLang | the number that a reward model gives |
/// | `/v1/classify` | SGLang | the logit of a label |
/// | `/v1/score` | SGLang | the logit of a classifier |
/// | `/predict` | TEI | the raw score of a label |
/// | `/rerank` | TEI | the raw score of prompt and answer |
///
/// Where two servers have the same path, [`HttpReward::check`] finds out which one it is; without it, the first one in the
/// table is assumed, and TEI for `/rerank`.
///
/// Rewards are raw: servers are asked to apply no sigmoid and no softmax. Text that begins with a special token, as that
/// of a chat template does, gets none added.
///
/// The formats `chat` and `closed` send messages, a conversation per request, which vLLM lays out in the reward model's chat
/// template (`/classify` and `/pooling`).
///
/// Several addresses, separated by commas, are servers with the same model: each request goes to the least busy one. One
/// that fails is left out for a while. Requests of one call are sent at the same time.
///
/// `?model=NAME` behind the path names the model, for a server that has several; the rest of a query is sent as it is.
/// `#LABEL` at the end chooses a label by name or number. Answers of `/classify` name the most likely label only, so a
/// name must be among those that its answers have shown. An address may hold a user and a password
/// (`http://user:password@host/score`) or a key (`?api_key=KEY`); messages do not show them.
pub struct HttpReward {
    pub(super) servers: Servers,
    pub(super) background: Background,
    /// The end of the addresses.
    pub(super) path: &'static str,
    /// The protocols with this path, in the order in which they are tried.
    pub(super) protocols: &'static [Protocol],
    /// The protocol that the servers speak, and what else was found out.
    pub(super) found: OnceLock<(Protocol, String)>,
    model: Option<String>,
    pub(super) label: Option<String>,
    /// Labels that the server's answers have named.
    names: Mutex<Names>,
}

/// Texts per request.
const TEXTS: usize = 32;
/// Requests of one call that are under way at once.
const REQUESTS: usize = 16;
/// A malformed response would be the same again.
const PATIENCE: Patience =
    Patience { failures: 5, malformed: 1, first_wait: Duration::from_millis(500), at_once: 128 };

impl HttpReward {
    /// Prepares a client; the server is not asked yet. `timeout` is the longest wait for one response.
    ///
    /// # Errors
    /// An address is invalid or does not end with a known path; the addresses do not end alike or name different models;
    /// the key cannot be an HTTP header.
    pub fn new(addresses: &str, key: Option<Key>, timeout: Duration) -> Result<Self> {
        let fails = |problem: &str| Error::Scorer(format!("{}: {problem}", redacted(addresses)));
        let (rest, label) = match addresses.split_once('#') {
            Some((rest, label)) => (rest, Some(label.to_owned())),
            None => (addresses, None),
        };
        let mut all = Vec::new();
        let mut kinds = Vec::new();
        for address in address::several(rest) {
            let (whole, model) = split_model(address);
            let (before, query) = whole.split_once('?').unwrap_or((&whole, ""));
            let (path, protocols) = of_path(before)
                .ok_or_else(|| fails(&format!("the address must end with one of {}", paths())))?;
            if let Some(label) = &label {
                protocols[0].check_label(path, label).map_err(|problem| fails(&problem))?;
            }
            let shown = address::parse(&whole).map_err(|problem| fails(&problem))?;
            let base = match (before.strip_suffix(path).unwrap_or(before), query) {
                (base, "") => base.to_owned(),
                (base, query) => format!("{base}?{query}"),
            };
            let shown = redacted(shown.as_str());
            all.push(Server::new(&base, shown, key.as_ref(), timeout).map_err(Error::Scorer)?);
            kinds.push((path, protocols, model));
        }
        let (path, protocols, model) = kinds.first().cloned().ok_or_else(|| fails("give an address"))?;
        if kinds.iter().any(|(other, _, _)| *other != path) {
            return Err(fails("servers of one reward must be asked alike: let the addresses end alike"));
        }
        if kinds.iter().any(|(_, _, other)| *other != model) {
            return Err(fails("servers of one reward must have one model: give each the same ?model="));
        }
        let background = Background::new("reward").map_err(|e| fails(&format!("no threads: {e}")))?;
        let servers = Servers::new(all, PATIENCE);
        let (found, names) = (OnceLock::new(), Mutex::default());
        Ok(Self { servers, background, path, protocols, found, model, label, names })
    }

    /// Whether a name is the address of a server: it begins with `http://` or `https://`, in any case.
    pub fn is_address(name: &str) -> bool {
        address::is_http(name)
    }

    fn protocol(&self) -> Protocol {
        self.found.get().map_or(self.protocols[0], |(protocol, _)| *protocol)
    }

    /// The body of a request for the rewards of texts, raw or behind the server's sigmoid or softmax.
    pub(super) fn body(
        &self,
        protocol: Protocol,
        exchanges: &[Exchange<'_>],
        format: RewardFormat,
        raw: bool,
    ) -> Value {
        let mut body = protocol.request(exchanges, format, raw);
        if let Some(model) = &self.model {
            body["model"] = Value::from(model.as_str());
        }
        body
    }

    /// The entries of the response for texts that fit one request.
    async fn rows(
        &self,
        protocol: Protocol,
        exchanges: &[Exchange<'_>],
        format: RewardFormat,
    ) -> std::result::Result<Vec<Value>, Ended> {
        let body = self.body(protocol, exchanges, format, true);
        let read = |response: &Value| entries(protocol, response, exchanges.len());
        Ok(self.servers.ask(self.path, &body, read).await?.0)
    }

    /// Whether a label's name may be one that no answer has had so far, of this many labels.
    pub(super) fn may_be_named(&self, labels: usize) -> bool {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).count() < labels
    }

    /// The rewards in entries of responses.
    pub(super) fn rewards(
        &self,
        protocol: Protocol,
        rows: &[Value],
    ) -> std::result::Result<Vec<f64>, String> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter().for_each(|row| names.learn(row));
        let reward = |row: &Value| {
            let reward = protocol.reward(row, self.label.as_deref(), &names)?;
            let finite = reward.filter(|reward| reward.is_finite());
            finite.ok_or_else(|| no_score(row))
        };
        rows.iter().map(reward).collect()
    }
}

/// The entries of a response with the numbers of all labels in each; there are `n`.
pub(super) fn entries(
    protocol: Protocol,
    response: &Value,
    n: usize,
) -> std::result::Result<(Vec<Value>, Vec<Vec<f64>>), String> {
    let rows = protocol.rows(response, n).map_err(said)?;
    let numbers = |row: &&Value| {
        let numbers = protocol.numbers(row);
        let finite = !numbers.is_empty() && numbers.iter().all(|number| number.is_finite());
        finite.then_some(numbers).ok_or_else(|| no_score(row))
    };
    let numbers = rows.iter().map(numbers).collect::<std::result::Result<_, _>>()?;
    Ok((rows.into_iter().cloned().collect(), numbers))
}

fn no_score(row: &Value) -> String {
    said(Unexpected::new(row, "a finite score".to_owned()))
}

fn said(Unexpected { said, expected }: Unexpected) -> String {
    unexpected(&said, &expected)
}

impl TextScorer for HttpReward {
    fn is_remote(&self) -> bool {
        true
    }

    fn score(&self, exchanges: &[Exchange<'_>], format: RewardFormat) -> Result<Vec<f64>> {
        let protocol = self.protocol();
        let mut requests = Vec::new();
        let mut rest = exchanges;
        while let [first, ..] = rest {
            let fits = |exchange: &&Exchange<'_>| protocol.goes_with(first, exchange, format);
            let n = 1 + rest[1..].iter().take(TEXTS - 1).take_while(fits).count();
            requests.push(&rest[..n]);
            rest = &rest[n..];
        }
        let asked = requests.into_iter().map(|request| self.rows(protocol, request, format));
        let rows = stream::iter(asked).buffered(REQUESTS).try_collect::<Vec<_>>();
        let rows = self.background.wait(rows).map_err(|ended| Error::Scorer(ended.problem))?;
        let rewards = self.rewards(protocol, &rows.concat());
        rewards.map_err(|problem| Error::Scorer(self.servers.all()[0].named(problem)))
    }

    fn usual_format(&self) -> RewardFormat {
        RewardFormat::Hh
    }

    fn formats(&self) -> &[RewardFormat] {
        self.protocol().formats()
    }

    fn about(&self) -> Vec<(&'static str, String)> {
        self.found.get().map(|(_, said)| ("server", said.clone())).into_iter().collect()
    }
}
