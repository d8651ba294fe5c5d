//! Finished answers: their rewards, and which of several is the answer.

use stackelberg_engine::reward::PromptInput;
use stackelberg_engine::{Prompt, Reward, Tensor};
use stackelberg_shaping::{Follower, Samples, Shaped, Shaping, argmax};

use crate::error::{Error, Result};
use crate::method::{Keep, Method};
use crate::policy::Policy;
use crate::randomness::Randomness;
use crate::sample;
use crate::score::Score;
use crate::settings::Settings;
use crate::states;
use crate::step::Block;
use crate::stopping::kl_of_stopping;
use crate::turn::shape;

/// The number of the random stream of the last choice; samples have those from 0, blocks `u64::MAX - 1`.
const LAST: u64 = u64::MAX;

/// A finished answer to be scored.
#[derive(Clone)]
pub(crate) struct Unscored {
    pub(crate) tokens: Vec<u32>,
    /// Its reward, if a step has computed it.
    pub(crate) known: Option<Score>,
    /// The policy's hidden state of its last token, `[1, d]`, if it is known.
    pub(crate) last: Option<Tensor>,
}

/// Rewards of finished answers to one prompt. What is known is not computed again.
///
/// # Errors
/// The reward fails, or is not finite.
pub(crate) fn scores(
    policy: &Policy,
    reward: &Reward,
    (prompt, asked): (&[u32], Option<&Prompt>),
    answers: &[Unscored],
) -> Result<Vec<Score>> {
    let mut unknown: Vec<Unscored> =
        answers.iter().filter(|answer| answer.known.is_none()).cloned().collect();
    if policy.server().is_some() && reward.reads_policy() {
        // Heads have no model here that they could read the answers with.
        let last = last_states(policy, prompt, &unknown)?;
        unknown.iter_mut().zip(last).for_each(|(answer, last)| answer.last = Some(last));
    }
    let input = PromptInput { tokens: prompt, prompt: asked };
    let mut found = unknown_scores(policy, reward, input, &unknown)?.into_iter();
    let score = |answer: &Unscored| answer.known.clone().or_else(|| found.next());
    let scores: Vec<Score> = answers.iter().filter_map(score).collect();
    match scores.iter().zip(answers).find(|(score, _)| !score.reward.is_finite()) {
        Some((&Score { reward, .. }, answer)) => {
            let token = *answer.tokens.last().or(prompt.last()).unwrap_or(&0);
            Err(Error::Reward { step: answer.tokens.len(), token, reward })
        }
        None => Ok(scores),
    }
}

/// The hidden states of the last tokens of answers, `[1, d]` each. Those that are known are not computed again.
///
/// # Errors
/// As [`states::of_last`].
pub(crate) fn last_states(policy: &Policy, prompt: &[u32], answers: &[Unscored]) -> Result<Vec<Tensor>> {
    let unread = answers.iter().filter(|answer| answer.last.is_none());
    let unread: Vec<&[u32]> = unread.map(|answer| &answer.tokens[..]).collect();
    let mut found = match &unread[..] {
        [] => Vec::new(),
        unread => states::of_last(policy, prompt, unread)?,
    }
    .into_iter();
    Ok(answers.iter().filter_map(|answer| answer.last.clone().or_else(|| found.next())).collect())
}

fn unknown_scores(
    policy: &Policy,
    reward: &Reward,
    input: PromptInput<'_>,
    answers: &[Unscored],
) -> Result<Vec<Score>> {
    if let Reward::Combined(combined) = reward {
        let of_part = |part: &Reward| -> Result<Vec<f64>> {
            let scores = unknown_scores(policy, part, input, answers)?;
            Ok(scores.into_iter().map(|score| score.reward).collect())
        };
        let parts = combined.rewards().iter().map(of_part).collect::<Result<Vec<_>>>()?;
        let score = |(i, reward)| Score { reward, parts: parts.iter().map(|part| part[i]).collect() };
        return Ok(combined.of(&parts).into_iter().enumerate().map(score).collect());
    }
    let mut scores = Vec::with_capacity(answers.len());
    let mut unread = Vec::new();
    for (i, answer) in answers.iter().enumerate() {
        scores.push(match (reward, &answer.last) {
            // A head reads the states that are there already.
            (Reward::Head(head), Some(hidden)) => head.score(hidden)?[0],
            _ => {
                unread.push(i);
                f64::NAN
            }
        });
    }
    if !unread.is_empty() {
        let texts: Vec<&[u32]> = unread.iter().map(|&i| &answers[i].tokens[..]).collect();
        let found = match policy {
            Policy::Local(checkpoint) => reward.of_answers(checkpoint, input, &texts)?,
            Policy::Remote(remote) => reward.of_remote_answers(&remote.text, input, &texts)?,
        };
        unread.iter().zip(found).for_each(|(&i, reward)| scores[i] = reward);
    }
    Ok(scores.into_iter().map(Score::from).collect())
}

/// The follower that responds to shaped rewards of samples of the base policy.
pub(crate) struct Response {
    pub(crate) shaped: Shaped,
    pub(crate) strength: f64,
    pub(crate) follower: Follower,
}

impl Response {
    /// Shapes rewards as the settings say.
    ///
    /// # Errors
    /// The rewards cannot be shaped.
    pub(crate) fn new(
        settings: &Settings,
        rewards: &[f64],
    ) -> std::result::Result<Self, stackelberg_shaping::Error> {
        let samples = Samples::new(rewards)?;
        let (Shaping { strength, .. }, shaped) = shape(settings, &samples, 1.0)?;
        let follower = Follower::respond(&samples, &shaped.values, strength)?;
        Ok(Self { shaped, strength, follower })
    }
}

/// The record of a choice among texts: their tokens, scores and probabilities, and the response if one is drawn.
pub(crate) fn block(
    continuations: Vec<Vec<u32>>,
    scores: Vec<f64>,
    weights: Vec<f64>,
    response: Option<&Response>,
) -> Block {
    let shaped = response.map(|response| &response.shaped);
    Block {
        continuations,
        scores,
        shaped: shaped.map(|shaped| shaped.values.clone()),
        threshold: shaped.and_then(|shaped| Some(shaped.threshold?.value)),
        bound: shaped.and_then(|shaped| shaped.bound),
        weights,
        rewards: None,
        parents: None,
    }
}

/// Probabilities of `n` texts of which this one is kept for certain.
pub(crate) fn certain(index: usize, n: usize) -> Vec<f64> {
    (0..n).map(|i| if i == index { 1.0 } else { 0.0 }).collect()
}

/// The KL of the best of `n` samples from one of them, `ln n - (n-1)/n`, in nats: an upper bound.
fn kl_of_best(n: usize) -> f64 {
    let n = n as f64;
    n.ln() - (n - 1.0) / n
}

/// The same of the best of `drawn` samples, where drawing may have stopped early or samples were dropped.
pub(crate) fn kl_of_best_among(drawn: usize, settings: &Settings) -> f64 {
    match settings.price_in_force() {
        // Which samples were dropped is no ranking of answers: this bound holds of any choice among all.
        _ if settings.rejection().is_some() => (settings.samples as f64).ln(),
        Some(_) => kl_of_stopping(drawn, settings.samples),
        None => kl_of_best(drawn),
    }
}

/// The answer that is chosen.
pub(crate) struct Choice {
    pub(crate) index: usize,
    /// KL of the choice from a uniform one, in nats; of blocks, which count the KL of their choices themselves, 0.
    pub(crate) kl: f64,
    /// Probability of each answer to be chosen, `[n]`.
    pub(crate) weights: Vec<f64>,
    /// The response to the rewards, where an answer is drawn.
    pub(crate) response: Option<Response>,
}

/// Chooses one of the answers. `log_weights` are those of particles without what their rewards contribute.
///
/// # Errors
/// The rewards cannot be shaped.
pub(crate) fn choose(
    settings: &Settings,
    id: &str,
    scores: &[Score],
    log_weights: &[f64],
) -> Result<Choice> {
    let method = settings.method;
    if !method.chooses() {
        let weights = certain(0, scores.len());
        return Ok(Choice { index: 0, kl: 0.0, weights, response: None });
    }
    let mut rewards: Vec<f64> = scores.iter().map(|score| score.reward).collect();
    let mut perturbation = Randomness::of_perturbation(settings.seed, id, LAST);
    settings.perturbation.perturb(&mut rewards, &mut perturbation);
    let n = rewards.len();
    if method == Method::BestOfN || method.decodes_blocks() && settings.keep == Keep::Best {
        let kl = match method {
            Method::BestOfN => kl_of_best_among(n, settings),
            Method::Particles => (n as f64).ln(),
            _ => 0.0,
        };
        let index = argmax(&rewards).unwrap_or(0);
        return Ok(Choice { index, kl, weights: certain(index, n), response: None });
    }
    let response = Response::new(settings, &rewards).map_err(Error::Rule)?;
    let Response { shaped, strength, follower } = &response;
    let weights = match method {
        Method::Particles => {
            let logs = shaped.values.iter().zip(log_weights).map(|(s, log)| log + strength * s);
            sample::shares(&logs.collect::<Vec<_>>())
        }
        _ => follower.policy.clone(),
    };
    let index = sample::draw(&weights, Randomness::new(settings.seed, id, LAST).uniform());
    let kl = match method {
        Method::Particles => (n as f64 * weights[index]).ln(),
        Method::Blockwise => 0.0,
        _ => follower.kl,
    };
    Ok(Choice { index, kl, weights, response: Some(response) })
}
