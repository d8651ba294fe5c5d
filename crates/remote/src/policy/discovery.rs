//! What a server can do, found out once.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Value, json};
use stackelberg_decoding::policy::{Call, Found, Likeliest, Wanted};
use stackelberg_decoding::{Sampling, Settings};
use stackelberg_engine::TextProcessor;

use super::request::{Dialect, body};
use super::response::{found, tokens};
use crate::served::{PROBE, Served, compare, ids, tokenized};
use crate::servers::{Failure, Server};

/// What is known of the servers; all of them are alike.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Facts {
    /// The server's name and version.
    pub(super) version: String,
    pub(super) model: String,
    /// The longest text in tokens.
    pub(super) context: usize,
    /// The most log-probabilities of a step.
    pub(super) most_log_probs: usize,
    pub(super) dialect: Dialect,
    /// The most continuations that one call draws.
    pub(super) continuations: usize,
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, model, context, most_log_probs, .. } = self;
        write!(f, "{model} on {version}, context {context}, {most_log_probs} log-probabilities")
    }
}

/// As many log-probabilities are asked for to find the limit.
const MANY: usize = 1000;
/// Limits that are tried where a server does not say its own.
const FEWER: [usize; 7] = [256, 100, 50, 20, 10, 5, 1];
/// Numbers of continuations that are tried. A call for many that fails is asked again whole; llama.cpp draws as many as it has slots.
const CONTINUATIONS: [usize; 4] = [16, 8, 4, 2];

/// How a server differs from the first one.
pub(super) fn difference(own: &Facts, first: &Facts) -> Option<String> {
    let [here, there] = [own, first].map(|facts| facts.continuations);
    if here != there {
        return Some(format!("one request draws at most {here} samples (`n`) here, {there} there"));
    }
    (own != first).then(|| format!("{own} here, {first} there"))
}

/// Asks a server. `model` is the model's name, or empty for the only one.
///
/// # Errors
/// A sentence that names the server.
pub(super) async fn discover(
    server: &Server,
    model: &str,
    text: &TextProcessor,
) -> Result<Facts, String> {
    let Served { model, owner, version, context, .. } = Served::find(server, model).await?;
    let dialect = match &owner[..] {
        "llamacpp" => Dialect::LlamaCpp,
        _ => Dialect::Vllm,
    };
    let probe = Probe { server, model: &model, dialect, text };
    let (tokenizer, limit, temperature, continuations) = tokio::join!(
        probe.check_tokenizer(),
        probe.limit(),
        probe.check_temperature(),
        probe.continuations()
    );
    tokenizer?;
    let most_log_probs = limit?;
    temperature?;
    Ok(Facts { version, model, context, most_log_probs, dialect, continuations })
}

/// Asks a server about one of its models.
struct Probe<'a> {
    server: &'a Server,
    model: &'a str,
    dialect: Dialect,
    text: &'a TextProcessor,
}

impl Probe<'_> {
    /// Refuses a server whose tokens are not the tokenizer's here.
    async fn check_tokenizer(&self) -> Result<(), String> {
        let Self { server, model, dialect, text } = self;
        let mut theirs = tokenized(server, &dialect.tokenize(model, PROBE)).await;
        if theirs.is_none() {
            let question =
                json!({"model": model, "prompt": PROBE, "max_tokens": 1, "return_token_ids": true});
            let said = server.post("completions", &question).await.map_err(Failure::problem)?;
            theirs = ids(&said["choices"][0]["prompt_token_ids"]);
        }
        let compared = match theirs {
            Some(theirs) => compare(text, &theirs),
            None => Err("does not tell the tokens of a text: this server cannot be a policy".to_owned()),
        };
        compared.map_err(|problem| server.named(problem))
    }

    /// The most log-probabilities that the server gives.
    async fn limit(&self) -> Result<usize, String> {
        let mut refused = match self.given(MANY).await {
            Ok(n) => return Ok(n),
            Err(refused) => refused,
        };
        // vLLM names its limit.
        let named = refused.split_once("max allowed: ").map(|(_, rest)| rest);
        let digits = named.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        let named = digits.and_then(|digits| digits.parse().ok());
        for k in named.into_iter().chain(FEWER) {
            match self.given(k).await {
                Ok(n) => return Ok(n),
                Err(problem) => refused = problem,
            }
        }
        Err(refused)
    }

    /// How many log-probabilities there are where `k` are asked for.
    async fn given(&self, k: usize) -> Result<usize, String> {
        self.first(Wanted::Likeliest { k }).await.map(|Likeliest(all)| all.len().min(k))
    }

    /// Refuses a server whose log-probabilities are those at the sampling temperature: they are wanted at 1.
    async fn check_temperature(&self) -> Result<(), String> {
        let mut most = Vec::new();
        let at = [1.0, 0.25].map(|temperature| {
            let sampling = Sampling { temperature, ..Sampling::default() };
            let settings = Arc::new(Settings { sampling, ..Settings::default() });
            self.first(Wanted::Continuation {
                n: 1,
                tokens: 1,
                least: 0,
                settings,
                seed: 0,
                log_probs: 1,
            })
        });
        for likeliest in join_all(at).await {
            let Likeliest(likeliest) = likeliest?;
            most.push(likeliest.iter().map(|(_, log_prob)| *log_prob).fold(f64::NEG_INFINITY, f64::max));
        }
        // Another batch changes a log-probability in the third digit.
        if (most[0] - most[1]).abs() > 0.1 {
            let problem = "gives log-probabilities at the sampling temperature: start it with raw ones \
                           (vLLM: --logprobs-mode raw_logprobs)";
            return Err(self.server.named(problem.to_owned()));
        }
        Ok(())
    }

    /// The most continuations that a call draws: as many as are asked for, and not the same one again.
    async fn continuations(&self) -> usize {
        for n in CONTINUATIONS {
            match self.draws(n).await {
                Ok(true) => return n,
                Ok(false) => break,
                // The server may refuse so many.
                Err(_) => {}
            }
        }
        1
    }

    /// Whether a call for `n` continuations gives as many, and not the same one again.
    ///
    /// # Errors
    /// The server refuses the call.
    async fn draws(&self, n: usize) -> Result<bool, String> {
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        let settings = Arc::new(Settings { sampling, no_eos: true, ..Settings::default() });
        let wanted = Wanted::Continuation { n, tokens: 4, least: 0, settings, seed: 0, log_probs: 0 };
        let (call, response) = self.ask(wanted).await?;
        let drawn = |found: Vec<Found>| {
            let tokens = |found| match found {
                Found::Continuation { tokens, .. } => {
                    tokens.into_iter().map(|drawn| drawn.token).collect()
                }
                Found::Likeliest(_) => Vec::new(),
            };
            found.into_iter().map(tokens).collect::<BTreeSet<Vec<u32>>>()
        };
        Ok(found(&response, &call).is_ok_and(|found| drawn(found).len() > 1))
    }

    /// Asks what follows a few words.
    async fn ask(&self, wanted: Wanted) -> Result<(Call, Value), String> {
        let words = self.text.tokenizer.encode("The weather in the city is", false);
        let call = Call { tokens: words.map_err(|error| error.to_string())?, wanted };
        let body = body(self.dialect, self.model, &call);
        let response = self.server.post("completions", &body).await.map_err(Failure::problem)?;
        Ok((call, response))
    }

    /// The likeliest first tokens.
    async fn first(&self, wanted: Wanted) -> Result<Likeliest, String> {
        let (_, response) = self.ask(wanted).await?;
        let said = tokens(&response["choices"][0]).map_err(|problem| self.server.named(problem))?;
        match said.into_iter().next() {
            Some(drawn) if !drawn.likeliest.0.is_empty() => Ok(drawn.likeliest),
            _ => {
                let problem = "gives no log-probabilities: this server cannot be a policy";
                Err(self.server.named(problem.to_owned()))
            }
        }
    }
}
