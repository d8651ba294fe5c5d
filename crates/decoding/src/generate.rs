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
    /// Time spent on prompt and answer; scoring the finished answer for the record is not counted, except
    /// by best-of-n, which chooses by it.
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
    let context = policy.model.context().min(reward.map_or(usize::MAX, |r| r.context(&policy.model)));
    if prompt.len() >= context {
        let tokens = prompt.len() + 1;
        return Err(stackelberg_engine::Error::Context { tokens, context }.into());
    }
    // An answer that reaches the end of the context ends there.
    let most = settings.max_new_tokens.min(context - prompt.len());
    let settings = &Settings { max_new_tokens: most, ..settings.clone() };
    let began = Instant::now();
    let need = || reward.ok_or(Error::NoReward(settings.method.name()));
    let mut answer = match settings.method {
        Method::Base => {
            write(policy, None, prompt, settings, &mut Randomness::new(settings.seed, id, 0), watch)?
        }
        Method::Args => {
            let guide = need()?.guide();
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
    answer.elapsed = began.elapsed();
    if let (None, Some(reward)) = (answer.reward, reward) {
        answer.reward = Some(score(policy, reward, prompt, &answer.tokens)?);
    }
    Ok(answer)
}

/// The reward of an answer's tokens behind the prompt's.
fn score(policy: &Checkpoint, reward: &Reward, prompt: &[u32], tokens: &[u32]) -> Result<f64> {
    let reward = reward.of_tokens(&policy.model, &[prompt, tokens].concat())?;
    match (reward.is_finite(), tokens.last().or(prompt.last())) {
        (false, Some(&token)) => Err(Error::Reward { step: tokens.len(), token, reward }),
        _ => Ok(reward),
    }
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
        base_choice: chosen,
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
        let mut steps = Steps { taken: Vec::new(), watch };
        let mut answer = write(policy, None, prompt, settings, &mut randomness, &mut steps)?;
        let taken = steps.taken;
        answer.reward = Some(score(policy, reward, prompt, &answer.tokens)?);
        answers.push((answer, taken));
        if watch.stop() {
            break;
        }
    }
    let rewards: Vec<f64> = answers.iter().filter_map(|(answer, _)| answer.reward).collect();
    let index = match settings.method {
        Method::SoftBestOfN => {
            let scores: Vec<f64> = rewards.iter().map(|r| settings.shaping.strength * r).collect();
            let uniform = Randomness::new(settings.seed, id, u64::MAX).uniform();
            sample::draw(&sample::masses(&scores, 1.0), uniform)
        }
        _ => stackelberg_shaping::argmax(&rewards).unwrap_or(0),
    };
    let calls = answers.len();
    let (mut answer, steps) = answers.swap_remove(index);
    for (number, (step, text)) in steps.iter().enumerate() {
        watch.step(number, step, text);
    }
    answer.reward_calls = calls;
    Ok(answer)
}

/// Keeps the steps of one of several answers until it is known whether it is the one.
struct Steps<'a> {
    taken: Vec<(Step, String)>,
    watch: &'a dyn Watch,
}

impl Watch for Steps<'_> {
    fn step(&mut self, _: usize, step: &Step, text: &str) {
        self.taken.push((step.clone(), text.to_owned()));
    }

    fn stop(&self) -> bool {
        self.watch.stop()
    }
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
            self.drop_ending()?;
        } else if self.tokens.len() == self.settings.max_new_tokens {
            self.finish = Some(Finish::Length);
        }
        Ok(new)
    }

    /// Drops the tokens that are wholly part of the text that ended the answer.
    fn drop_ending(&mut self) -> Result<()> {
        while let Some((_, rest)) = self.tokens.split_last() {
            if self.policy.tokenizer.decode(rest, false)?.len() < self.text.len() {
                break;
            }
            self.tokens.pop();
        }
        Ok(())
    }
}
