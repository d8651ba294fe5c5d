//! The heart: candidates, rewards, shaped, fused, chosen, committed.
//!
//! ```text
//! logits l ── the k largest ──► candidates ──► rewards r ──► shaped s ──► f = l + strength s ──► token
//! ```
//!
//! Every guided method is a way to fill in "rewards". One forward of `k` tokens looks ahead; the chosen
//! one's keys, values and hidden state are kept, so nothing is run twice.

use stackelberg_engine::reward::Guide;
use stackelberg_engine::{Model, Prefix, Tensor};
use stackelberg_shaping::{KlBudget, Samples, Shaping, argmax, fuse};

use crate::error::{Error, Result};
use crate::sample::{self, Randomness};
use crate::settings::Settings;

/// What happened in one step, from candidates to choice.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The most likely tokens, likeliest first.
    pub candidates: Vec<u32>,
    /// Their logits.
    pub logits: Vec<f64>,
    /// Their rewards; `None` where no reward was asked.
    pub rewards: Option<Vec<f64>>,
    /// The threshold `m*`, for rules that have one.
    pub threshold: Option<f64>,
    /// The bound in force, for rules that have one.
    pub bound: Option<f64>,
    /// Their shaped rewards.
    pub shaped: Option<Vec<f64>>,
    /// What the choice was made by.
    pub fused: Vec<f64>,
    /// The token chosen.
    pub chosen: u32,
    /// The token that the base policy alone would have chosen among the candidates: the likeliest, or in
    /// sampling what the same random number draws.
    pub base_choice: u32,
    /// Log-probability of the chosen token under the base policy at temperature 1, in nats.
    pub log_prob: f64,
    /// Whether the reward was left out because it could not have changed the choice.
    pub skipped: bool,
}

/// A text under way: what the policy has read and what it expects next.
pub(crate) struct Text<'a> {
    pub(crate) model: &'a Model,
    pub(crate) prefix: Prefix,
    /// Hidden state of the last token, `[1, d]`.
    pub(crate) hidden: Tensor,
}

impl<'a> Text<'a> {
    pub(crate) fn new(model: &'a Model, prompt: &[u32]) -> Result<Self> {
        let (prefix, hidden) = model.prefill(prompt)?;
        let hidden = hidden.narrow(0, prompt.len() - 1, 1).map_err(stackelberg_engine::Error::from)?;
        Ok(Self { model, prefix, hidden })
    }

    /// What the base policy expects next.
    pub(crate) fn next(&self, written: &[u32], penalty: f64) -> Result<Next> {
        let logits = self.model.logits(&self.hidden)?;
        let logits: Vec<f32> =
            logits.flatten_all().and_then(|l| l.to_vec1()).map_err(stackelberg_engine::Error::from)?;
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&l| f64::from((l - most).exp())).sum();
        let log_z = f64::from(most) + sum.ln();
        let unpenalised = if penalty == 1.0 { None } else { Some(logits.clone()) };
        let mut logits = logits;
        sample::penalise(&mut logits, written, penalty);
        Ok(Next { logits, unpenalised, log_z })
    }

    /// Reads one token on.
    pub(crate) fn push(&mut self, token: u32) -> Result<()> {
        self.hidden = self.model.extend(&mut self.prefix, &[token])?;
        Ok(())
    }
}

/// Logits of the next token.
pub(crate) struct Next {
    /// With what was written made less likely, if asked: what is chosen by.
    pub(crate) logits: Vec<f32>,
    /// As the model gave them, where that differs.
    unpenalised: Option<Vec<f32>>,
    log_z: f64,
}

impl Next {
    /// The `k` likeliest tokens and their logits.
    pub(crate) fn candidates(&self, k: usize) -> (Vec<u32>, Vec<f64>) {
        let candidates = sample::largest(&self.logits, k);
        let logits = candidates.iter().map(|&t| f64::from(self.logits[t as usize])).collect();
        (candidates, logits)
    }

    /// Log-probability of a token under the base policy at temperature 1, in nats.
    pub(crate) fn log_prob(&self, token: u32) -> f64 {
        let logits = self.unpenalised.as_ref().unwrap_or(&self.logits);
        f64::from(logits[token as usize]) - self.log_z
    }
}

/// What is left to do with the chosen token, unless it ends the text.
pub(crate) enum Pending {
    /// It was looked at: its branch is taken in.
    Branch(stackelberg_engine::Branches, usize),
    /// It must be read.
    Token,
}

/// One guided step. The chosen token is not yet part of the text: [`take`] does that.
pub(crate) fn guided(
    text: &Text<'_>,
    guide: &mut Guide<'_>,
    settings: &Settings,
    written: &[u32],
    number: usize,
    randomness: &mut Randomness,
) -> Result<(Step, Pending, Option<usize>)> {
    let next = text.next(written, settings.sampling.repetition_penalty)?;
    let (candidates, logits) = next.candidates(settings.candidates);
    let base_choice = candidates[0];
    if settings.skip && cannot_matter(&logits, settings) {
        let step = Step {
            candidates,
            fused: logits.clone(),
            logits,
            rewards: None,
            threshold: None,
            bound: None,
            shaped: None,
            chosen: base_choice,
            base_choice,
            log_prob: next.log_prob(base_choice),
            skipped: true,
        };
        return Ok((step, Pending::Token, None));
    }

    let ahead = match guide.needs_policy() {
        true => Some(text.model.branch(&text.prefix, &candidates)?),
        false => None,
    };
    let rewards = guide.score(&candidates, ahead.as_ref())?;
    if let Some(i) = rewards.iter().position(|r| !r.is_finite()) {
        return Err(Error::Reward { step: number, token: candidates[i], reward: rewards[i] });
    }
    let (shaping, shaped) =
        shape(settings, &rewards, &logits).map_err(|source| Error::Shaping { step: number, source })?;
    let fused = fuse(&logits, &shaped.values, shaping.strength);
    // One random number for both choices: what differs between them is guidance alone.
    let (index, base_index) = match settings.sampling.temperature {
        0.0 => (argmax(&fused).unwrap_or(0), 0),
        temperature => {
            let uniform = randomness.uniform();
            let draw = |scores: &[f64]| sample::draw(&sample::masses(scores, temperature), uniform);
            (draw(&fused), draw(&logits))
        }
    };
    let step = Step {
        chosen: candidates[index],
        base_choice: candidates[base_index],
        log_prob: next.log_prob(candidates[index]),
        candidates,
        logits,
        rewards: Some(rewards),
        threshold: shaped.threshold.map(|t| t.value),
        bound: shaped.bound,
        shaped: Some(shaped.values),
        fused,
        skipped: false,
    };
    let pending = ahead.map_or(Pending::Token, |branches| Pending::Branch(branches, index));
    Ok((step, pending, Some(index)))
}

/// Makes the chosen token part of the text, for the policy and for the guide.
pub(crate) fn take(
    text: &mut Text<'_>,
    guide: &mut Guide<'_>,
    token: u32,
    pending: Pending,
    scored: Option<usize>,
) -> Result<()> {
    match scored {
        Some(index) => guide.commit(index)?,
        None => guide.read(&[token]),
    }
    match pending {
        Pending::Branch(branches, index) => {
            text.prefix.commit(&branches, index)?;
            text.hidden =
                branches.hidden.narrow(0, index, 1).map_err(stackelberg_engine::Error::from)?;
        }
        Pending::Token => text.push(token)?,
    }
    Ok(())
}

fn shape(
    settings: &Settings,
    rewards: &[f64],
    logits: &[f64],
) -> std::result::Result<(Shaping, stackelberg_shaping::Shaped), stackelberg_shaping::Error> {
    let samples = Samples::from_logits(rewards, logits)?;
    let shaping = match settings.kl_budget {
        Some(nats) => KlBudget::solve(&settings.shaping, &samples, nats)?.shaping,
        None => settings.shaping,
    };
    Ok((shaping, shaping.apply(&samples)?))
}

/// The lossless skip: shaped rewards differ by at most the rule's span, so a likeliest token that leads by
/// more than `strength * span` wins whatever the rewards are. Greedy only. (Leads are compared with a
/// margin for rounding in the sum that would have decided.)
fn cannot_matter(logits: &[f64], settings: &Settings) -> bool {
    if settings.sampling.temperature != 0.0 || settings.kl_budget.is_some() {
        return false;
    }
    let Some(span) = settings.shaping.span(logits.len()) else { return false };
    let Some(second) = logits.get(1) else { return true };
    let reach = settings.shaping.strength * span;
    logits[0] - second > reach + 1e-9 * (reach + logits[0].abs() + second.abs())
}
