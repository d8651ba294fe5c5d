//! A policy under load: throughput, time to the first token, and what an exact guided step costs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use stackelberg_decoding::{
    Event, Guidance, Limits, Method, Randomness, Request, Session, Settings, Want,
};
use stackelberg_engine::model::Segment;
use stackelberg_engine::{Checkpoint, Prefix};
use stackelberg_shaping::Shaping;

use crate::error::Result;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Load {
    /// Rounds, of which the medians are given.
    pub rounds: usize,
    /// Requests that each client sends one after the other.
    pub requests: usize,
    /// Mean length of the answers, in tokens.
    pub tokens: usize,
}

/// Candidates per guided step, the default of `generate`.
pub const K: usize = 10;

/// Figures of one method at one number of clients.
#[derive(Serialize)]
pub struct Rate {
    /// Tokens of all answers together, while all clients are busy.
    pub tokens_per_s: f64,
    /// Speed relative to the base policy at the same number of clients.
    pub relative_to_base: f64,
    /// From the arrival of a request to its first token, in milliseconds.
    pub first_token_ms: f64,
}

/// Figures at one number of clients.
#[derive(Serialize)]
pub struct Point {
    /// By method: `base`, `args_head`, `args_model` and `cd`; `_exact` is without the lossless skip.
    pub rates: BTreeMap<&'static str, Rate>,
    /// An exact guided step of all sequences, with a head as the reward, in milliseconds.
    pub guided_step_ms: f64,
    /// One forward of the same rows, without logits, rewards and choices, in milliseconds.
    pub forward_ms: f64,
    /// The first divided by the second.
    pub step_ratio: f64,
}

/// The measurements of --concurrent, by number of clients.
#[derive(Serialize)]
#[serde(transparent)]
pub struct Concurrent(pub BTreeMap<usize, Point>);

/// What is measured: name in JSON, heading, guidance, settings.
type Case<'a> = (&'static str, &'static str, Guidance<'a>, Settings);

/// The settings whose speed is measured: greedy decoding token by token, to the full length. Bounded rules have a bound of
/// 8, so that figures stay comparable between versions.
pub fn settings(method: Method, skip: bool) -> Settings {
    let shaping = Shaping { bound: 8.0, ..method.default_shaping() };
    Settings { method, shaping, skip, no_eos: true, ..Settings::default() }
}

/// The guided methods and the base policy, each with and without the lossless skip where it matters.
fn cases<'a>([head, model, value]: [Guidance<'a>; 3]) -> Vec<Case<'a>> {
    vec![
        ("base", "base", Guidance::default(), settings(Method::Base, true)),
        ("args_head", "args, head", head, settings(Method::Args, true)),
        ("args_head_exact", "  no skip", head, settings(Method::Args, false)),
        ("args_model", "args, causal reward model", model, settings(Method::Args, true)),
        ("args_model_exact", "  no skip", model, settings(Method::Args, false)),
        ("cd", "cd", value, settings(Method::Cd, true)),
        ("cd_exact", "  no skip", value, settings(Method::Cd, false)),
    ]
}

/// A policy and what guides it, under load.
pub struct Concurrency<'a> {
    /// The policy.
    pub policy: &'a Checkpoint,
    /// Tokens of the prompts, which the clients take in turn.
    pub prompts: &'a [Vec<u32>],
    /// A head, a causal reward model and a value head.
    pub guides: [Guidance<'a>; 3],
    /// How much is measured.
    pub load: Load,
}

impl Concurrency<'_> {
    /// Measures every method at each number of clients, alternately.
    pub fn measure(&self, clients: &[usize], progress: &mut dyn FnMut()) -> Result<Concurrent> {
        let cases = cases(self.guides);
        let mut points = BTreeMap::new();
        for &n in clients {
            let mut found: BTreeMap<&str, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
            let mut guided = Vec::new();
            let mut forward = Vec::new();
            for round in 0..self.load.rounds {
                for (name, _, guidance, settings) in &cases {
                    let (rate, mut first) = self.run(n, round, *guidance, settings)?;
                    let of_case = found.entry(name).or_default();
                    of_case.0.push(rate);
                    of_case.1.append(&mut first);
                    progress();
                }
                self.steps(n, &mut guided, &mut forward)?;
                progress();
            }
            let base = median(&found["base"].0);
            let rates = found.into_iter().map(|(name, (rates, first))| {
                let tokens_per_s = median(&rates);
                let relative_to_base = tokens_per_s / base;
                (name, Rate { tokens_per_s, relative_to_base, first_token_ms: median(&first) })
            });
            let (step, bare) = (median(&guided), median(&forward));
            let rates = rates.collect();
            let point = Point { rates, guided_step_ms: step, forward_ms: bare, step_ratio: step / bare };
            points.insert(n, point);
        }
        Ok(Concurrent(points))
    }

    fn request(
        &self,
        client: usize,
        number: usize,
        guidance: Guidance<'_>,
        settings: Settings,
    ) -> Request {
        Request {
            id: format!("{client}-{number}"),
            prompt: self.prompts[(client + number) % self.prompts.len()].clone(),
            asked: None,
            settings: Arc::new(settings),
            reward: guidance.reward.cloned(),
            value: guidance.value.cloned(),
            want: Want::Answer,
            steps: true,
        }
    }

    /// Clients that begin at random times and each send a request as soon as the one before is answered. Returns tokens
    /// per second while all are busy, and the times to first tokens in milliseconds.
    fn run(
        &self,
        clients: usize,
        round: usize,
        guidance: Guidance<'_>,
        settings: &Settings,
    ) -> Result<(f64, Vec<f64>)> {
        let Load { requests, tokens, .. } = self.load;
        let mut random = Randomness::new(round as u64, "arrivals", clients as u64);
        let mut below = |most: usize| (random.uniform() * most as f64) as usize;
        // Nothing is shared between requests: every prompt is prefilled.
        let mut session = Session::new(self.policy.clone(), Limits { cache: 0, ..clients.into() });
        // The step at which a client sends next, and how many requests it has sent.
        let mut next: Vec<(usize, usize)> = (0..clients).map(|_| (below(tokens), 0)).collect();
        let mut sent = HashMap::new();
        let mut first_token_ms = Vec::new();
        let mut count = 0;
        let mut began: Option<Instant> = None;
        for step in 0.. {
            for (client, (due, number)) in next.iter_mut().enumerate() {
                if step < *due {
                    continue;
                }
                let max_new_tokens = tokens / 2 + 1 + below(tokens);
                let settings = Settings { max_new_tokens, ..settings.clone() };
                let ticket = session.submit(self.request(client, *number, guidance, settings))?;
                sent.insert(ticket, (client, Instant::now()));
                (*due, *number) = (usize::MAX, *number + 1);
            }
            if began.is_none() && next.iter().all(|(_, sent)| *sent > 0) {
                (began, count) = (Some(Instant::now()), 0);
            }
            for event in session.step() {
                let Some(&(client, since)) = sent.get(&event.ticket()) else { continue };
                match event {
                    Event::Token { number, .. } => {
                        count += 1;
                        if number == 0 && began.is_some() {
                            first_token_ms.push(since.elapsed().as_secs_f64() * 1e3);
                        }
                    }
                    Event::Failed { error, .. } => return Err(error.into()),
                    Event::Done { .. } if next[client].1 < requests => next[client].0 = step + 1,
                    Event::Done { .. } => {
                        let seconds = began.map_or(f64::NAN, |began| began.elapsed().as_secs_f64());
                        return Ok((count as f64 / seconds, first_token_ms));
                    }
                }
            }
        }
        Ok((f64::NAN, first_token_ms))
    }

    /// Exact guided steps of `n` sequences, and alternately one forward of the same rows on prefixes of the same length.
    fn steps(&self, n: usize, guided: &mut Vec<f64>, forward: &mut Vec<f64>) -> Result<()> {
        let Load { tokens, .. } = self.load;
        let settings = Settings { max_new_tokens: 2 * tokens, ..settings(Method::Args, false) };
        let mut session = Session::new(self.policy.clone(), Limits { cache: 0, ..n.into() });
        for client in 0..n {
            session.submit(self.request(client, 0, self.guides[0], settings.clone()))?;
        }
        let mut told = HashMap::new();
        // Until all prompts are prefilled.
        while told.len() < n {
            for event in session.step() {
                told.insert(event.ticket(), ());
            }
        }
        let prompt = |client: usize| &self.prompts[client % self.prompts.len()];
        let prefix = |client: usize| Ok(self.policy.model.prefill(prompt(client))?.0);
        let mut prefixes: Vec<Prefix> = (0..n).map(prefix).collect::<Result<_>>()?;
        let candidates: Vec<u32> = (0..K).map(|i| prompt(0)[i % prompt(0).len()]).collect();
        for _ in 0..tokens {
            guided.push(timed(|| Ok(session.step()))?.1);
            let (branches, ms) = timed(|| {
                let mut segments: Vec<Segment<'_>> =
                    prefixes.iter().map(|prefix| Segment::Branch(prefix, &candidates)).collect();
                Ok(self.policy.model.forward(&mut segments)?)
            })?;
            forward.push(ms);
            for (prefix, branches) in prefixes.iter_mut().zip(&branches) {
                prefix.commit(branches, 0)?;
            }
        }
        Ok(())
    }
}

impl Concurrency<'_> {
    /// How often [`Concurrency::measure`] calls its `progress`.
    pub fn parts(&self, clients: &[usize]) -> usize {
        clients.len() * self.load.rounds * (cases(self.guides).len() + 1)
    }
}

/// The names of the methods in [`Point::rates`], with headings, in the order of tables.
pub fn headings() -> Vec<(&'static str, &'static str)> {
    cases([Guidance::default(); 3]).into_iter().map(|(name, heading, ..)| (name, heading)).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// The result of `f`, and the milliseconds that it took.
fn timed<T>(f: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let began = Instant::now();
    let result = f()?;
    Ok((result, began.elapsed().as_secs_f64() * 1e3))
}
