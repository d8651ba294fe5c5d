//! The check of reward servers, before the first texts that count are scored.

use futures_util::future::join_all;
use serde_json::Value;
use stackelberg_engine::reward::{Exchange, TextScorer};
use stackelberg_engine::{Error, Prompt, Result};

use super::http::{HttpReward, entries};
use super::protocol::Protocol;
use crate::servers::Ended;

/// What a reward server may do without being of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct RewardCheck {
    /// One sentence per problem, with what to do. They begin with the address.
    pub warnings: Vec<String>,
}

/// A prompt, and two answers that any reward should tell apart.
const PROMPT: &str = "What is the capital of France?";
const ANSWERS: [&str; 2] =
    ["The capital of France is Paris, a city of two million people on the Seine.", "Who cares"];

/// What a server said of the two answers.
struct Probe {
    protocol: Protocol,
    /// The numbers of all labels, for each answer.
    numbers: Vec<Vec<f64>>,
    rows: Vec<Value>,
}

impl HttpReward {
    /// Scores two short texts at each server, to find out which protocol it speaks and whether its scores are what they should
    /// be. It takes one request per server, a second one where two protocols have the same path, and one more if all
    /// scores are between 0 and 1: are they raw, or behind a sigmoid that cannot be switched off?
    ///
    /// # Errors
    /// A server does not answer, answers with something else than two finite scores, or has no such label; the scores of the
    /// servers differ.
    pub fn check(&self) -> Result<RewardCheck> {
        self.background.wait(self.checked()).map_err(Error::Scorer)
    }

    async fn checked(&self) -> std::result::Result<RewardCheck, String> {
        let servers = self.servers.all();
        let probes = join_all((0..servers.len()).map(|number| self.probe(number))).await;
        let probes = probes.into_iter().collect::<std::result::Result<Vec<Probe>, String>>()?;
        let Some(first) = probes.first() else { return Ok(RewardCheck { warnings: Vec::new() }) };
        for (other, server) in probes.iter().zip(servers) {
            if other.protocol != first.protocol {
                let (is, was) = (other.protocol.whose(), first.protocol.whose());
                return Err(server.named(format!(
                    "speaks the protocol of {is}, {} that of {was}: servers of one reward must be alike",
                    servers[0].shown()
                )));
            }
            if let Some((a, b)) = difference(first, other) {
                return Err(server.named(format!(
                    "scores a text {b:.3}, where {} scores it {a:.3}: servers of one reward must have one model",
                    servers[0].shown()
                )));
            }
            self.check_label(other).map_err(|problem| server.named(problem))?;
        }
        let mut warnings = Vec::new();
        let shown: Vec<String> = first.numbers.iter().map(|all| shown(all)).collect();
        if first.numbers[0] == first.numbers[1] {
            warnings.push(format!(
                "gives two different texts the same score, {}: is it the reward that you want?",
                shown[0]
            ));
        }
        let all = || first.numbers.iter().flatten();
        let between = all().all(|x| (0.0..=1.0).contains(x)) && all().any(|x| *x > 0.0 && *x < 1.0);
        if between && self.is_same_activated(first).await {
            warnings.push(format!(
                "seems to apply a sigmoid or softmax: its scores, such as {} and {}, are between 0 and 1, though raw ones are \
                 asked for. They saturate, and strengths have another meaning. Use a version of the server that obeys \
                 `use_activation: false` (vLLM) or `raw_scores: true` (TEI); ignore this if the reward is meant to lie there",
                shown[0], shown[1]
            ));
        }
        let found =
            format!("the protocol of {}, scores {} and {}", first.protocol.whose(), shown[0], shown[1]);
        // A second check finds the same.
        let _ = self.found.set((first.protocol, found));
        let named = |warning| servers[0].named(warning);
        Ok(RewardCheck { warnings: warnings.into_iter().map(named).collect() })
    }

    /// Asks one server, in each of the protocols until it understands.
    async fn probe(&self, number: usize) -> std::result::Result<Probe, String> {
        let mut problems: Vec<String> = Vec::new();
        for &protocol in self.protocols {
            match self.scores(number, protocol, true).await {
                Ok((rows, numbers)) => return Ok(Probe { protocol, numbers, rows }),
                Err(Ended { problem, refused: Some(400 | 422) }) => problems.push(problem),
                Err(Ended { problem, .. }) => {
                    problems.push(problem);
                    break;
                }
            }
        }
        let whose = self.protocols.iter().map(|protocol| protocol.whose());
        match &problems[..] {
            [only] => Err(only.clone()),
            several => Err(several
                .iter()
                .zip(whose)
                .map(|(problem, whose)| format!("asked as {whose}: {problem}"))
                .collect::<Vec<_>>()
                .join("; ")),
        }
    }

    /// The entries of a server's response, and the numbers in them.
    async fn scores(
        &self,
        number: usize,
        protocol: Protocol,
        raw: bool,
    ) -> std::result::Result<(Vec<Value>, Vec<Vec<f64>>), Ended> {
        let prompt = Prompt::Text(PROMPT.to_owned());
        let exchanges = ANSWERS.map(|answer| Exchange { prompt: &prompt, answer });
        let body = self.body(protocol, &exchanges, self.usual_format(), raw);
        let read = |response: &Value| entries(protocol, response, exchanges.len());
        self.servers.ask_one(number, self.path, &body, read).await
    }

    /// Refuses a label that the server does not have. A name may belong to a label that no answer has named yet.
    fn check_label(&self, probe: &Probe) -> std::result::Result<(), String> {
        let is_name = self.label.as_ref().is_some_and(|label| label.parse::<usize>().is_err());
        let is_name = is_name && probe.protocol == Protocol::Classify;
        let labels = probe.numbers.iter().map(Vec::len).max().unwrap_or(0);
        match self.rewards(probe.protocol, &probe.rows) {
            Err(_) if is_name && self.may_be_named(labels) => Ok(()),
            Err(problem) => Err(problem),
            Ok(_) => Ok(()),
        }
    }

    /// Whether the scores are the same where those behind a sigmoid or softmax are asked for.
    async fn is_same_activated(&self, probe: &Probe) -> bool {
        if !probe.protocol.has_activation() {
            return true;
        }
        match self.scores(0, probe.protocol, false).await {
            Ok((_, numbers)) => {
                let pairs = numbers.iter().flatten().zip(probe.numbers.iter().flatten());
                pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-6)
            }
            // It refuses to apply one.
            Err(_) => false,
        }
    }
}

/// The first two numbers that differ by more than the arithmetic of another machine explains.
fn difference(one: &Probe, other: &Probe) -> Option<(f64, f64)> {
    let pairs = one.numbers.iter().flatten().zip(other.numbers.iter().flatten());
    let far = |(a, b): &(&f64, &f64)| (*a - *b).abs() > 0.1 + 0.05 * a.abs();
    pairs.into_iter().find(far).map(|(a, b)| (*a, *b))
}

fn shown(numbers: &[f64]) -> String {
    match numbers {
        [one] => format!("{one:.3}"),
        several => format!("{several:.3?}"),
    }
}
