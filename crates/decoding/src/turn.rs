//! One step of one sequence: candidates, rewards, shaped, fused, chosen.
//!
//! ```text
//! logits l ── the k largest ──► candidates ──► rewards r ──► shaped s ──► f = l + strength s ──► token
//! ```
//!
//! Every guided method is a way to fill in "rewards". In controlled decoding they are values of a value head, and `l` are
//! log-probabilities at the policy temperature.

use stackelberg_shaping::{Follower, KlBudget, Samples, Shaped, Shaping, argmax, fuse};

use crate::error::{Error, Result};
use crate::method::Method;
use crate::next::{Distribution, Next};
use crate::perturbation::Perturbation;
use crate::randomness::Randomness;
use crate::sample;
use crate::settings::Settings;
use crate::step::Step;

/// A step that is not decided yet.
#[derive(Clone)]
pub(crate) struct Turn {
    next: Next,
    /// The number of the step, from 0, for errors.
    number: usize,
    /// The likeliest tokens, and their logits.
    pub(crate) candidates: Vec<u32>,
    logits: Vec<f64>,
    log_probs: Vec<(u32, f64)>,
    /// Whether the rewards of the candidates are needed.
    pub(crate) asks: bool,
    skipped: bool,
    /// The continuation of each candidate, where segments are scored.
    pub(crate) continuations: Vec<Vec<u32>>,
}

impl Turn {
    /// The candidates of this distribution, and whether their rewards matter. `guide` is the span of what guides, if
    /// something does; `written` are the tokens of the answer, `banned` those that may not come next.
    pub(crate) fn new(
        logits: Distribution,
        (written, banned): (&[u32], &[u32]),
        settings: &Settings,
        guide: Option<Option<f64>>,
        number: usize,
    ) -> Result<Self> {
        let next = Next::new(logits, written, banned, settings);
        if !next.is_finite() {
            return Err(Error::Logits { step: number });
        }
        let (candidates, mut logits) = next.candidates(settings.candidates);
        if settings.method == Method::Cd {
            next.normalise(&mut logits, settings.policy_temperature);
        }
        let skipped = settings.skip && guide.is_some_and(|span| cannot_matter(&logits, span, settings));
        let due = !is_sure(&logits, settings);
        let (asks, skipped) = (guide.is_some() && !skipped && due, skipped && due);
        let continuations = Vec::new();
        let log_probs = next.likeliest(settings.log_probs);
        Ok(Self { next, number, candidates, logits, log_probs, asks, skipped, continuations })
    }

    /// The base policy's own choice.
    pub(crate) fn unguided(&self, settings: &Settings, randomness: &mut Randomness) -> Step {
        // A skipped step is greedy, too.
        let chosen = match settings.sampling.temperature {
            0.0 => self.candidates[0],
            _ => self.next.draw(&settings.sampling, randomness),
        };
        self.step(chosen)
    }

    /// The choice under these rewards, and the index of the chosen candidate. `parts` are what each reward of a
    /// combination said, `[rewards][candidates]`.
    pub(crate) fn guided(
        self,
        rewards: Vec<f64>,
        parts: Vec<Vec<f64>>,
        settings: &Settings,
        randomness: &mut Randomness,
    ) -> Result<(Step, usize)> {
        let step = self.fused(rewards, parts, settings)?;
        // One random number for both choices: what differs between them is guidance alone.
        let (index, base_index) = match settings.sampling.temperature {
            0.0 => (argmax(&step.fused).unwrap_or(0), 0),
            temperature => {
                let uniform = randomness.uniform();
                let draw = |scores: &[f64]| sample::draw(&sample::masses(scores, temperature), uniform);
                (draw(&step.fused), draw(&step.logits))
            }
        };
        Ok((self.chosen(step, index, base_index), index))
    }

    /// The step up to the fused scores, as if the likeliest candidate were chosen.
    pub(crate) fn fused(
        &self,
        rewards: Vec<f64>,
        parts: Vec<Vec<f64>>,
        settings: &Settings,
    ) -> Result<Step> {
        let number = self.number;
        if let Some(i) = rewards.iter().position(|r| !r.is_finite()) {
            return Err(Error::Reward { step: number, token: self.candidates[i], reward: rewards[i] });
        }
        let failed = |source| Error::Shaping { step: number, source };
        let temperature = settings.sampling.effective_temperature();
        let at_temperature: Vec<f64> = self.logits.iter().map(|l| l / temperature).collect();
        // The threshold is the paper's, of the policy at temperature 1; a budget holds where the token is drawn.
        let (prior, at) = match settings.kl_budget {
            None => (&self.logits, 1.0),
            Some(_) => (&at_temperature, temperature),
        };
        let shaped =
            Samples::from_logits(&rewards, prior).and_then(|samples| shape(settings, &samples, at));
        let (shaping, shaped) = shaped.map_err(failed)?;
        let follower = Samples::from_logits(&rewards, &at_temperature)
            .and_then(|base| Follower::respond(&base, &shaped.values, shaping.strength / temperature))
            .map_err(failed)?;
        let of_base = settings.logits_temperature();
        Ok(Step {
            fused: fuse(&self.logits, &shaped.values, shaping.strength),
            kl: Some(follower.kl),
            ess: Some(follower.ess),
            tail_nll: self.next.log_mass(&self.candidates, of_base * temperature).map(|mass| -mass),
            rewards: Some(rewards),
            parts,
            threshold: shaped.threshold.map(|t| t.value),
            bound: shaped.bound,
            shaped: Some(shaped.values),
            continuations: self.continuations.clone(),
            ..self.step(self.candidates[0])
        })
    }

    /// The same step with these choices among the candidates.
    pub(crate) fn chosen(&self, step: Step, index: usize, base_index: usize) -> Step {
        let (chosen, base_choice) = (self.candidates[index], self.candidates[base_index]);
        Step { chosen, base_choice, log_prob: self.next.log_prob(chosen), ..step }
    }

    /// A step without rewards.
    pub(crate) fn step(&self, chosen: u32) -> Step {
        let (candidates, logits) = (self.candidates.clone(), self.logits.clone());
        let step = Step::unguided(candidates, logits, chosen, self.next.log_prob(chosen));
        Step { log_probs: self.log_probs.clone(), skipped: self.skipped, ..step }
    }
}

/// The entropy gate: whether the base policy is surer of the candidates than rewards are computed for.
fn is_sure(logits: &[f64], settings: &Settings) -> bool {
    if settings.entropy_gate == 0.0 {
        return false;
    }
    // Of cd they are at the policy temperature already.
    let logits: Vec<f64> = logits.iter().map(|l| l * settings.logits_temperature()).collect();
    let shares = sample::shares(&logits);
    let shares = shares.iter().filter(|share| **share > 0.0);
    shares.map(|share| -share * share.ln()).sum::<f64>() < settings.entropy_gate
}

/// Rewards shaped, and the shaping in force. The samples' weights are at the temperature that is drawn at; there the
/// follower has the strength `strength / temperature`.
pub(crate) fn shape(
    settings: &Settings,
    samples: &Samples<'_>,
    temperature: f64,
) -> std::result::Result<(Shaping, Shaped), stackelberg_shaping::Error> {
    let mut shaping = settings.shaping_in_force();
    shaping.strength /= temperature;
    if let Some(nats) = settings.kl_budget {
        shaping = KlBudget::solve(&shaping, samples, nats)?.shaping;
    }
    let shaped = shaping.apply(samples)?;
    shaping.strength *= temperature;
    Ok((shaping, shaped))
}

/// The lossless skip, for greedy decoding: whether no reward can change the choice.
///
/// - Shaped rewards differ by at most the rule's span (a rule without one never spreads rewards further than they lie
///   apart, `span`), so a likeliest token that leads by more than `strength * span` wins whatever the rewards are.
/// - Under a KL budget `b`, no distribution within it can put the second candidate above the first if
///   `-ln(1 - (sqrt p1 - sqrt p2)^2) > b`, with `p` over the candidates at the temperature of the step.
///
/// Both are compared with a margin for rounding. Beams compare texts, not tokens: nothing is skipped there.
fn cannot_matter(logits: &[f64], span: Option<f64>, settings: &Settings) -> bool {
    let greedy = settings.sampling.temperature == 0.0 && settings.beams == 1;
    if !greedy || settings.perturbation != Perturbation::None {
        return false;
    }
    if let Some(budget) = settings.kl_budget {
        let shares = sample::shares(logits);
        let Some(second) = shares.get(1) else { return true };
        let apart = (shares[0].sqrt() - second.sqrt()).powi(2);
        return -(-apart).ln_1p() > budget * (1.0 + 1e-6) + 1e-9;
    }
    let shaping = settings.shaping_in_force();
    let Some(span) = shaping.span(logits.len()).or(span) else { return false };
    let Some(second) = logits.get(1) else { return true };
    let reach = shaping.strength * span;
    logits[0] - second > reach + 1e-9 * (reach + logits[0].abs() + second.abs())
}
