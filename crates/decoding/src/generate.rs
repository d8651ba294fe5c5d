//! From a prompt to an answer.

use std::time::{Duration, Instant};

use stackelberg_engine::reward::Guide;
use stackelberg_engine::{Checkpoint, Reward, TextStream};

use crate::error::{Error, Result};
use crate::sample::{self, Randomness};
use crate::settings::{Method, Settings};
use crate::step::{self, Step, Text};

/// An answer and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The answer's text, without what ended it.
    pub text: String,
    /// Its tokens, the one that ended it left out.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Its reward, if there is a reward.
    pub reward: Option<f64>,
    /// Mean of the base policy's log-probability per token, the ending token included.
    pub mean_log_prob: f64,
    /// Steps in which the choice was not the base policy's.
    pub steered: usize,
    /// Steps in which rewards were asked for (best-of-n: answers scored).
    pub reward_calls: usize,
    /// Steps in which they were not needed.
    pub skipped: usize,
    /// Time spent, prompt included.
    pub elapsed: Duration,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, or a stop text did.
    Stop,
    /// It reached its greatest length.
    Length,
}

impl Finish {
    /// Its name, as in output files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// What a caller may watch while an answer is written.
pub trait Watch {
    /// A step was decided; `text` is what it adds to the answer for certain.
    fn step(&mut self, _number: usize, _step: &Step, _text: &str) {}

    /// Whether to stop here and now.
    fn stop(&self) -> bool {
        false
    }
}

/// Watches nothing.
impl Watch for () {}

/// Writes an answer to a prompt, given as tokens. `id` names the prompt: with the seed it decides all
/// that is random.
///
/// # Errors
/// A setting outside its range, a method without the reward it needs, a prompt beyond the context, a
/// reward that is not finite.
pub fn generate(
    policy: &Checkpoint,
    reward: Option<&Reward>,
    prompt: &[u32],
    id: &str,
    settings: &Settings,
    watch: &mut dyn Watch,
) -> Result<Generation> {
    settings.check(policy.model.config().vocabulary)?;
    let began = Instant::now();
    let need = || reward.ok_or(Error::NoReward(settings.method.name()));
    let mut answer = match settings.method {
        Method::Base => {
            write(policy, None, prompt, settings, &mut Randomness::new(settings.seed, id, 0), watch)?
        }
        Method::Args => {
            let guide = need()?.guide()?;
            write(
                policy,
                Some(guide),
                prompt,
                settings,
                &mut Randomness::new(settings.seed, id, 0),
                watch,
            )?
        }
        Method::BestOfN | Method::SoftBestOfN => best_of(policy, need()?, prompt, id, settings, watch)?,
    };
    if let (None, Some(reward)) = (answer.reward, reward) {
        answer.reward = Some(score(policy, reward, prompt, &answer.tokens)?);
    }
    answer.elapsed = began.elapsed();
    Ok(answer)
}

/// The reward of an answer's tokens behind the prompt's.
fn score(policy: &Checkpoint, reward: &Reward, prompt: &[u32], tokens: &[u32]) -> Result<f64> {
    Ok(reward.of_tokens(&policy.model, &[prompt, tokens].concat())?)
}

/// Token by token, guided or not.
fn write(
    policy: &Checkpoint,
    mut guide: Option<Guide<'_>>,
    prompt: &[u32],
    settings: &Settings,
    randomness: &mut Randomness,
    watch: &mut dyn Watch,
) -> Result<Generation> {
    let mut text = Text::new(&policy.model, prompt)?;
    if let Some(guide) = &mut guide {
        guide.read(prompt);
    }
    let mut answer = Answer::new(policy, settings);
    let mut log_probs = 0.0;
    let (mut steered, mut reward_calls, mut skipped) = (0, 0, 0);
    let mut steps = 0;
    while answer.finish.is_none() && !watch.stop() {
        let (step, rest) = match &mut guide {
            Some(guide) => {
                let (step, pending, scored) =
                    step::guided(&text, guide, settings, &answer.tokens, steps, randomness)?;
                (step, Some((pending, scored)))
            }
            None => (base_step(&text, settings, &answer.tokens, randomness)?, None),
        };
        log_probs += step.log_prob;
        steered += usize::from(step.chosen != step.base_choice);
        reward_calls += usize::from(step.rewards.is_some());
        skipped += usize::from(step.skipped);
        let new = answer.push(step.chosen)?;
        watch.step(steps, &step, &new);
        steps += 1;
        // The last token is not read: nothing comes after it.
        if answer.finish.is_none() {
            match (&mut guide, rest) {
                (Some(guide), Some((pending, scored))) => {
                    step::take(&mut text, guide, step.chosen, pending, scored)?;
                }
                _ => text.push(step.chosen)?,
            }
        }
    }
    Ok(Generation {
        text: answer.text,
        tokens: answer.tokens,
        finish: answer.finish.unwrap_or(Finish::Length),
        reward: None,
        mean_log_prob: log_probs / steps.max(1) as f64,
        steered,
        reward_calls,
        skipped,
        elapsed: Duration::ZERO,
    })
}

fn base_step(
    text: &Text<'_>,
    settings: &Settings,
    written: &[u32],
    randomness: &mut Randomness,
) -> Result<Step> {
    let next = text.next(written, settings.sampling.repetition_penalty)?;
    let (candidates, logits) = next.candidates(settings.candidates);
    let base_choice = candidates[0];
    let chosen = sample::next(&next.logits, &settings.sampling, randomness);
    Ok(Step {
        log_prob: next.log_prob(chosen),
        fused: logits.clone(),
        candidates,
        logits,
        rewards: None,
        threshold: None,
        bound: None,
        shaped: None,
        chosen,
        base_choice,
        skipped: false,
    })
}

/// `samples` answers of the base policy; the best, or one drawn by its reward.
fn best_of(
    policy: &Checkpoint,
    reward: &Reward,
    prompt: &[u32],
    id: &str,
    settings: &Settings,
    watch: &mut dyn Watch,
) -> Result<Generation> {
    let mut answers = Vec::with_capacity(settings.samples);
    for sample in 0..settings.samples {
        let mut randomness = Randomness::new(settings.seed, id, sample as u64);
        let mut answer = write(policy, None, prompt, settings, &mut randomness, &mut ())?;
        answer.reward = Some(score(policy, reward, prompt, &answer.tokens)?);
        answers.push(answer);
        if watch.stop() {
            break;
        }
    }
    let rewards: Vec<f64> = answers.iter().filter_map(|a| a.reward).collect();
    let index = match settings.method {
        Method::SoftBestOfN => {
            let scores: Vec<f64> = rewards.iter().map(|r| settings.shaping.strength * r).collect();
            Randomness::new(settings.seed, id, u64::MAX).draw(&sample::masses(&scores, 1.0))
        }
        _ => stackelberg_shaping::argmax(&rewards).unwrap_or(0),
    };
    let calls = answers.len();
    let mut answer = answers.swap_remove(index);
    answer.reward_calls = calls;
    Ok(answer)
}

/// The answer as it grows, and what may end it.
struct Answer<'a> {
    policy: &'a Checkpoint,
    settings: &'a Settings,
    stream: TextStream<'a>,
    tokens: Vec<u32>,
    text: String,
    finish: Option<Finish>,
}

impl<'a> Answer<'a> {
    fn new(policy: &'a Checkpoint, settings: &'a Settings) -> Self {
        let stream = TextStream::new(&policy.tokenizer);
        Self { policy, settings, stream, tokens: Vec::new(), text: String::new(), finish: None }
    }

    /// Adds a token; gives what it adds to the text for certain.
    fn push(&mut self, token: u32) -> Result<String> {
        if !self.settings.no_eos && self.policy.eos.contains(&token) {
            self.finish = Some(Finish::Stop);
            return Ok(String::new());
        }
        self.tokens.push(token);
        let mut new = self.stream.push(token)?;
        let before = self.text.len();
        self.text.push_str(&new);
        let stops = self.settings.stop.iter().filter_map(|stop| self.text.find(stop.as_str()));
        if let Some(at) = stops.min() {
            self.text.truncate(at);
            new = self.text.get(before..).unwrap_or_default().to_owned();
            self.finish = Some(Finish::Stop);
        } else if self.tokens.len() == self.settings.max_new_tokens {
            self.finish = Some(Finish::Length);
        }
        Ok(new)
    }
}
