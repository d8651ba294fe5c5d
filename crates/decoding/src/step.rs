//! What happened in one step of decoding.

use std::sync::Arc;

use crate::perturbation::Perturbation;
use crate::policy::{Drawn, Likeliest};
use crate::score::Score;
use crate::settings::Settings;

/// What happened in one step, from candidates to choice.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The most likely tokens, likeliest first.
    pub candidates: Vec<u32>,
    /// Their logits; in controlled decoding their log-probabilities at the policy temperature, in nats.
    pub logits: Vec<f64>,
    /// Their rewards, or values; `None` where none was asked for.
    pub rewards: Option<Vec<f64>>,
    /// What the base policy carried each candidate on by before it was scored: rewards are of the texts at these
    /// ends. Empty where candidates were scored as they are, or not at all.
    pub continuations: Vec<Vec<u32>>,
    /// Where the reward is made of several: what each said of the candidates, `[rewards][candidates]`.
    pub parts: Vec<Vec<f64>>,
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
    /// The base policy's likeliest tokens and their log-probabilities at temperature 1, in nats: as many as
    /// [`Settings::log_probs`](crate::Settings::log_probs).
    pub log_probs: Vec<(u32, f64)>,
    /// KL of the guided choice from the base policy's over the candidates, at the sampling temperature (greedy:
    /// at 1), in nats; `None` where no reward was asked for.
    pub kl: Option<f64>,
    /// Effective number of candidates that the guided choice still has, `1 / sum of squared masses`; likewise.
    pub ess: Option<f64>,
    /// `-ln` of the base policy's mass on the candidates, at the same temperature, in nats; likewise.
    pub tail_nll: Option<f64>,
    /// Whether the reward was left out because it could not have changed the choice.
    pub skipped: bool,
    /// Of the first token of a block: the block, see [`Method::Blockwise`](crate::Method::Blockwise). Of the first token of an
    /// answer that was chosen among several ([`Method::chooses_answers`](crate::Method::chooses_answers)): all of them.
    pub block: Option<Arc<Block>>,
    /// The index of the text's own continuation in that block, or of the answer that was chosen.
    pub continuation: Option<usize>,
}

/// What happened at the end of a block: M continuations by the base policy (fewer where drawing stopped early), their scores,
/// and how they were weighed. Methods that choose among whole answers have one block, of all answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// The tokens of each continuation, `[M]`; empty for texts that were finished before. Of whole answers their tokens, without
    /// the one that ended them.
    pub continuations: Vec<Vec<u32>>,
    /// Rewards or values of the texts at their ends, `[M]`.
    pub scores: Vec<f64>,
    /// The scores as shaped, before the strength is applied; `None` where the best is kept.
    pub shaped: Option<Vec<f64>>,
    /// The threshold `m*`, for rules that have one.
    pub threshold: Option<f64>,
    /// The bound in force, for rules that have one.
    pub bound: Option<f64>,
    /// The probability of each to be kept; of particles their weights, `[M]`. They add up to 1.
    pub weights: Vec<f64>,
    /// Rewards of finished answers, `[M]`, where scores are values: the last choice is made by these.
    pub rewards: Option<Vec<Option<f64>>>,
    /// Of particles after the first block: which text of the block before each one continues, `[M]`.
    pub parents: Option<Vec<usize>>,
}

impl Step {
    /// A step that a server decided by the base policy.
    pub(crate) fn drawn(Drawn { token, log_prob, likeliest }: Drawn, settings: &Settings) -> Self {
        let Likeliest(mut known) = likeliest;
        if !known.iter().any(|(other, _)| *other == token) {
            known.push((token, log_prob));
        }
        let log_probs = known.iter().take(settings.log_probs).copied().collect();
        let (candidates, logits) = known.into_iter().unzip();
        Self { log_probs, ..Self::unguided(candidates, logits, token, log_prob) }
    }

    /// The base policy's choice among candidates with these logits, without rewards.
    pub(crate) fn unguided(candidates: Vec<u32>, logits: Vec<f64>, chosen: u32, log_prob: f64) -> Self {
        Self {
            fused: logits.clone(),
            candidates,
            logits,
            rewards: None,
            continuations: Vec::new(),
            parts: Vec::new(),
            threshold: None,
            bound: None,
            shaped: None,
            chosen,
            base_choice: chosen,
            log_prob,
            log_probs: Vec::new(),
            kl: None,
            ess: None,
            tail_nll: None,
            skipped: false,
            block: None,
            continuation: None,
        }
    }

    /// What the text is worth with the candidate at `index`, if that was asked for. A disturbed reward is not the
    /// text's.
    pub(crate) fn score(&self, index: Option<usize>, perturbation: Perturbation) -> Option<Score> {
        let rewards = self.rewards.as_ref().filter(|_| perturbation == Perturbation::None);
        rewards.zip(index).map(|(rewards, index)| Score {
            reward: rewards[index],
            parts: self.parts.iter().map(|part| part[index]).collect(),
        })
    }
}
