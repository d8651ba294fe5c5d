//! The heart: candidates, rewards, shaped, fused, chosen, committed; for all texts under way together.
//!
//! ```text
//! logits l ── the k largest ──► candidates ──► rewards r ──► shaped s ──► f = l + strength s ──► token
//! ```
//!
//! Every guided method is a way to fill in "rewards"; in controlled decoding they are values of a value head,
//! and `l` are log-probabilities at a temperature of their own. One forward looks ahead over the candidates of all
//! texts; the chosen ones' keys, values and hidden states are kept, so nothing is run twice. What a text
//! becomes does not depend on which others are under way: the kernels promise it to the bit.

use stackelberg_engine::model::Segment;
use stackelberg_engine::reward::{Question, RewardState, ask};
use stackelberg_engine::{Branches, Model, Tensor, kernel};
use stackelberg_shaping::{Follower, KlBudget, Samples, Shaped, Shaping, argmax, fuse};

use crate::error::{Error, Result};
use crate::perturbation::Perturbation;
use crate::sample;
use crate::settings::{Method, Settings};
use crate::step::Step;
use crate::text::Text;

/// Adds one token to every text. `said` hears of each step and what it adds to the answer for certain. The
/// last token of an answer is only read if `read_last`: nothing comes after it.
pub(crate) fn advance(
    model: &Model,
    texts: &mut [Text<'_>],
    settings: &Settings,
    read_last: bool,
    said: &mut dyn FnMut(&Text<'_>, &Step, &str),
) -> Result<()> {
    let mut turns = expect(model, texts.iter(), settings)?;
    look_ahead(model, texts, &mut turns, settings.perturbation)?;
    let mut unread = Vec::new();
    for (text, turn) in texts.iter_mut().zip(turns) {
        let (step, seen) = turn.choose(text, settings).map_err(|error| error.of(text.id))?;
        let reward = step.score(seen.index(), settings.perturbation);
        let new = text.take(&step, reward).map_err(|error| error.of(text.id))?;
        said(text, &step, &new);
        // A token that ended the answer without being part of it is never read.
        let is_last = text.answer.tokens.len() == text.steps;
        let goes_on = text.answer.finish.is_none() || read_last && is_last;
        if goes_on && !seen.commit(text, step.chosen)? {
            unread.push((text, step.chosen));
        }
    }
    read(model, &mut unread)
}

/// One text's part in a step.
pub(crate) struct Turn {
    next: Next,
    /// The likeliest tokens, and their logits.
    pub(crate) candidates: Vec<u32>,
    logits: Vec<f64>,
    /// Whether their rewards are asked for.
    pub(crate) asks: bool,
    skipped: bool,
    /// The policy's look ahead over them, if the guide needs it.
    pub(crate) ahead: Option<Branches>,
    pub(crate) rewards: Option<Vec<f64>>,
    pub(crate) parts: Vec<Vec<f64>>,
}

/// What the base policy expects next in every text, and whether rewards matter.
pub(crate) fn expect<'t, 'a: 't>(
    model: &Model,
    texts: impl Iterator<Item = &'t Text<'a>> + Clone,
    settings: &Settings,
) -> Result<Vec<Turn>> {
    let hidden: Vec<&Tensor> = texts.clone().map(|text| &text.hidden).collect();
    let rows = Tensor::cat(&hidden, 0).map_err(stackelberg_engine::Error::from)?;
    let logits: Vec<Vec<f32>> =
        model.logits(&rows)?.to_vec2().map_err(stackelberg_engine::Error::from)?;
    let turn = |(text, logits): (&Text<'_>, Vec<f32>)| {
        let next = Next::new(logits, &text.answer.tokens, settings.sampling.repetition_penalty);
        let (candidates, mut logits) = next.candidates(settings.candidates);
        if settings.method == Method::Cd {
            next.normalise(&mut logits, settings.policy_temperature);
        }
        let skipped = settings.skip
            && text.guide.as_ref().is_some_and(|guide| cannot_matter(&logits, guide, settings));
        let due = !is_sure(&logits, settings);
        let (asks, skipped) = (text.guide.is_some() && !skipped && due, skipped && due);
        Turn { next, candidates, logits, asks, skipped, ahead: None, rewards: None, parts: Vec::new() }
    };
    Ok(texts.zip(logits).map(turn).collect())
}

/// Whether the base policy is surer of the candidates than rewards are asked for.
fn is_sure(logits: &[f64], settings: &Settings) -> bool {
    if settings.entropy_gate == 0.0 {
        return false;
    }
    // Of cd they are at the policy's temperature already.
    let logits: Vec<f64> = logits.iter().map(|l| l * settings.logits_temperature()).collect();
    let masses = sample::masses(&logits, 1.0);
    let total: f64 = masses.iter().sum();
    let shares = masses.iter().map(|mass| mass / total).filter(|share| *share > 0.0);
    shares.map(|share| -share * share.ln()).sum::<f64>() < settings.entropy_gate
}

/// Asks for the candidates' rewards, in one forward of the policy (heads) or of the reward model.
pub(crate) fn look_ahead(
    model: &Model,
    texts: &mut [Text<'_>],
    turns: &mut [Turn],
    perturbation: Perturbation,
) -> Result<()> {
    let mut asking: Vec<_> = texts.iter_mut().zip(turns).filter(|(_, turn)| turn.asks).collect();
    // All guides of a run are of one kind.
    if asking.iter().any(|(text, _)| text.guide.as_ref().is_some_and(RewardState::needs_policy)) {
        let segments = asking.iter().map(|(text, turn)| Segment::Branch(&text.prefix, &turn.candidates));
        let seen = model.forward(&mut segments.collect::<Vec<_>>())?;
        asking.iter_mut().zip(seen).for_each(|((_, turn), branches)| turn.ahead = Some(branches));
    }
    let mut questions = Vec::with_capacity(asking.len());
    for (text, turn) in &mut asking {
        if let Some(guide) = &mut text.guide {
            let ahead = turn.ahead.as_ref().map(|branches| &branches.hidden);
            questions.push(Question { guide, candidates: &turn.candidates, further: &[], ahead });
        }
    }
    let rewards = ask(&mut questions)?;
    for ((text, turn), mut rewards) in asking.iter_mut().zip(rewards) {
        perturbation.perturb(&mut rewards, &mut text.perturbation);
        turn.rewards = Some(rewards);
        turn.parts = text.guide.as_ref().map_or_else(Vec::new, |guide| guide.parts().to_vec());
    }
    Ok(())
}

/// Reads the tokens that nobody looked ahead at, in one forward.
pub(crate) fn read(model: &Model, unread: &mut [(&mut Text<'_>, u32)]) -> Result<()> {
    if unread.is_empty() {
        return Ok(());
    }
    let mut segments: Vec<Segment<'_>> = Vec::with_capacity(unread.len());
    for (text, token) in unread.iter_mut() {
        segments.push(Segment::Read(&mut text.prefix, std::slice::from_ref(token)));
    }
    let read = model.forward(&mut segments)?;
    unread.iter_mut().zip(read).for_each(|((text, _), read)| text.hidden = read.hidden);
    Ok(())
}

impl Turn {
    /// The choice, and what is left to do with it.
    pub(crate) fn choose(mut self, text: &mut Text<'_>, settings: &Settings) -> Result<(Step, Seen)> {
        let Some(step) = self.fused(text.steps, settings)? else {
            // A skipped step is greedy, too.
            let chosen = match settings.sampling.temperature {
                0.0 => self.candidates[0],
                _ => sample::next(&self.next.logits, &settings.sampling, &mut text.randomness),
            };
            return Ok((self.step(chosen), Seen::Nothing));
        };
        // One random number for both choices: what differs between them is guidance alone.
        let (index, base_index) = match settings.sampling.temperature {
            0.0 => (argmax(&step.fused).unwrap_or(0), 0),
            temperature => {
                let uniform = text.randomness.uniform();
                let draw = |scores: &[f64]| sample::draw(&sample::masses(scores, temperature), uniform);
                (draw(&step.fused), draw(&step.logits))
            }
        };
        Ok((self.chosen(step, index, base_index), Seen::Scored { index, ahead: self.ahead }))
    }

    /// The step up to the fused scores, as if the likeliest candidate were chosen; `None` if there are no
    /// rewards. `number` is the step's, for errors.
    pub(crate) fn fused(&mut self, number: usize, settings: &Settings) -> Result<Option<Step>> {
        let Some(rewards) = self.rewards.take() else { return Ok(None) };
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
        Ok(Some(Step {
            fused: fuse(&self.logits, &shaped.values, shaping.strength),
            kl: Some(follower.kl),
            ess: Some(follower.ess),
            tail_nll: Some(-self.next.log_mass(&self.candidates, of_base * temperature)),
            rewards: Some(rewards),
            parts: std::mem::take(&mut self.parts),
            threshold: shaped.threshold.map(|t| t.value),
            bound: shaped.bound,
            shaped: Some(shaped.values),
            ..self.step(self.candidates[0])
        }))
    }

    /// The same step with these choices among the candidates.
    pub(crate) fn chosen(&self, step: Step, index: usize, base_index: usize) -> Step {
        let (chosen, base_choice) = (self.candidates[index], self.candidates[base_index]);
        Step { chosen, base_choice, log_prob: self.next.log_prob(chosen), ..step }
    }

    /// A step without rewards.
    pub(crate) fn step(&self, chosen: u32) -> Step {
        Step {
            candidates: self.candidates.clone(),
            logits: self.logits.clone(),
            rewards: None,
            continuations: Vec::new(),
            parts: Vec::new(),
            threshold: None,
            bound: None,
            shaped: None,
            fused: self.logits.clone(),
            chosen,
            base_choice: chosen,
            log_prob: self.next.log_prob(chosen),
            kl: None,
            ess: None,
            tail_nll: None,
            skipped: self.skipped,
        }
    }
}

/// What is known of the chosen token.
pub(crate) enum Seen {
    Nothing,
    /// It is the candidate at `index` of those scored; a head's was looked at by the policy itself.
    Scored {
        index: usize,
        ahead: Option<Branches>,
    },
}

impl Seen {
    pub(crate) fn index(&self) -> Option<usize> {
        match self {
            Self::Nothing => None,
            Self::Scored { index, .. } => Some(*index),
        }
    }

    /// Makes the token part of the text, for the guide and, if it was looked at, for the policy; says
    /// whether it was.
    fn commit(self, text: &mut Text<'_>, token: u32) -> Result<bool> {
        let Self::Scored { index, ahead } = self else {
            if let Some(guide) = &mut text.guide {
                guide.read(token)?;
            }
            return Ok(false);
        };
        if let Some(guide) = &mut text.guide {
            guide.commit(index)?;
        }
        let Some(branches) = ahead else { return Ok(false) };
        keep(text, &branches, index)?;
        Ok(true)
    }
}

/// Makes one of the policy's branches part of the text.
pub(crate) fn keep(text: &mut Text<'_>, branches: &Branches, index: usize) -> Result<()> {
    text.prefix.commit(branches, index)?;
    text.hidden = branches.hidden.narrow(0, index, 1).map_err(stackelberg_engine::Error::from)?;
    Ok(())
}

/// Logits of the next token.
struct Next {
    /// With what was written made less likely, if asked: what is chosen by.
    logits: Vec<f32>,
    /// As the model gave them, where that differs.
    unpenalised: Option<Vec<f32>>,
    log_z: f64,
}

impl Next {
    fn new(mut logits: Vec<f32>, written: &[u32], penalty: f64) -> Self {
        let log_z = kernel::log_sum_exp(&logits);
        let unpenalised = if penalty == 1.0 { None } else { Some(logits.clone()) };
        sample::penalise(&mut logits, written, penalty);
        Self { logits, unpenalised, log_z }
    }

    /// The `k` likeliest tokens and their logits.
    fn candidates(&self, k: usize) -> (Vec<u32>, Vec<f64>) {
        let candidates = sample::largest(&self.logits, k);
        let logits = candidates.iter().map(|&t| f64::from(self.logits[t as usize])).collect();
        (candidates, logits)
    }

    /// Makes logits of some tokens, largest first and the largest of all among them, log-probabilities at
    /// this temperature, in nats.
    fn normalise(&self, logits: &mut [f64], temperature: f64) {
        let log_z = sample::sum(&kernel::masses(&self.logits, temperature as f32)).ln();
        let most = logits[0];
        logits.iter_mut().for_each(|logit| *logit = (*logit - most) / temperature - log_z);
    }

    /// `ln` of the mass that some tokens have at this temperature, at most 0.
    fn log_mass(&self, tokens: &[u32], temperature: f64) -> f64 {
        let masses = kernel::masses(&self.logits, temperature as f32);
        let of_tokens: f64 = tokens.iter().map(|&t| f64::from(masses[t as usize])).sum();
        (of_tokens / sample::sum(&masses)).ln().min(0.0)
    }

    /// Log-probability of a token under the base policy at temperature 1, in nats.
    fn log_prob(&self, token: u32) -> f64 {
        let logits = self.unpenalised.as_ref().unwrap_or(&self.logits);
        f64::from(logits[token as usize]) - self.log_z
    }
}

/// Rewards shaped, and the shaping in force. The samples' weights are at the temperature that is drawn at; there the
/// follower feels `strength / temperature`.
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

/// The lossless skip: shaped rewards differ by at most the rule's span (a rule without one never spreads
/// rewards further than they lie apart), so a likeliest token that leads by
/// more than `strength * span` wins whatever the rewards are. Greedy only: beams compare texts, not tokens. (Leads are compared with a
/// margin for rounding in the sum that would have decided.)
fn cannot_matter(logits: &[f64], guide: &RewardState<'_>, settings: &Settings) -> bool {
    let greedy = settings.sampling.temperature == 0.0 && settings.beams == 1;
    if !greedy || settings.kl_budget.is_some() || settings.perturbation != Perturbation::None {
        return false;
    }
    let shaping = settings.shaping_in_force();
    let Some(span) = shaping.span(logits.len()).or_else(|| guide.span()) else { return false };
    let Some(second) = logits.get(1) else { return true };
    let reach = shaping.strength * span;
    logits[0] - second > reach + 1e-9 * (reach + logits[0].abs() + second.abs())
}
