//! A text under way: what was read, what was written, what came of it.

use std::time::Duration;

use stackelberg_engine::reward::RewardState;
use stackelberg_engine::{Checkpoint, Prefix, Tensor, TextStream};

use crate::error::Result;
use crate::generation::{Finish, Generation};
use crate::randomness::Randomness;
use crate::score::Score;
use crate::settings::Settings;
use crate::step::Step;

/// A text under way. A clone goes its own way and shares the memory of what both have read.
#[derive(Clone)]
pub(crate) struct Text<'a> {
    /// Which prompt it answers, by number and by name, and which of its answers it is.
    pub(crate) job: usize,
    pub(crate) id: &'a str,
    pub(crate) sample: usize,
    pub(crate) prefix: Prefix,
    /// Hidden state of the last token read, `[1, d]`.
    pub(crate) hidden: Tensor,
    /// The finished answer's reward, if a step asked for it.
    pub(crate) reward: Option<Score>,
    /// Hidden state of the finished answer's last token, `[1, d]`, if it is known.
    pub(crate) last: Option<Tensor>,
    /// Hidden states of the answer's tokens read so far, `[tokens, d]`, where they are kept.
    pub(crate) kept: Vec<f32>,
    pub(crate) guide: Option<RewardState<'a>>,
    /// What tokens are drawn with, and what rewards are disturbed with.
    pub(crate) randomness: Randomness,
    pub(crate) perturbation: Randomness,
    pub(crate) answer: Answer<'a>,
    /// Time spent on it: where several texts share a forward, its share.
    pub(crate) elapsed: Duration,
    /// Per token of the answer: the reward of the text up to it, where it was asked for.
    rewards: Vec<Option<Score>>,
    log_probs: f64,
    steered: usize,
    reward_calls: usize,
    skipped: usize,
    /// Over the steps so far; `None` once it is not known of one.
    kl: Option<f64>,
    tail_nll: f64,
    pub(crate) steps: usize,
}

impl<'a> Text<'a> {
    pub(crate) fn new(
        (job, id, sample): (usize, &'a str, usize),
        (prefix, hidden): (Prefix, Tensor),
        guide: Option<RewardState<'a>>,
        (randomness, perturbation): (Randomness, Randomness),
        answer: Answer<'a>,
    ) -> Self {
        Self {
            job,
            id,
            sample,
            prefix,
            hidden,
            reward: None,
            last: None,
            kept: Vec::new(),
            guide,
            randomness,
            perturbation,
            answer,
            elapsed: Duration::ZERO,
            rewards: Vec::new(),
            log_probs: 0.0,
            steered: 0,
            reward_calls: 0,
            skipped: 0,
            kl: Some(0.0),
            tail_nll: 0.0,
            steps: 0,
        }
    }

    /// A text that begins like this one and goes on by the base policy alone.
    pub(crate) fn unguided(&self, randomness: Randomness) -> Self {
        Self { guide: None, randomness, ..self.clone() }
    }

    /// Takes note of a step; gives what it adds to the answer's text for certain.
    pub(crate) fn take(&mut self, step: &Step, reward: Option<Score>) -> Result<String> {
        self.log_probs += step.log_prob;
        self.steered += usize::from(step.chosen != step.base_choice);
        self.reward_calls += usize::from(step.rewards.is_some());
        self.skipped += usize::from(step.skipped);
        // A step that guidance has no part in is the base policy's own.
        let kl = if step.skipped { None } else { step.kl.or(Some(0.0)) };
        self.kl = self.kl.zip(kl).map(|(sum, kl)| sum + kl);
        self.tail_nll += step.tail_nll.unwrap_or(0.0);
        self.steps += 1;
        self.rewards.push(reward);
        self.answer.push(step.chosen)
    }

    /// Keeps the hidden state of the token just read, if one was.
    pub(crate) fn keep_hidden(&mut self, prompt: &[u32]) -> Result<()> {
        let row = self.hidden.flatten_all().and_then(|row| row.to_vec1::<f32>());
        let row = row.map_err(stackelberg_engine::Error::from)?;
        if self.prefix.len() > prompt.len() + self.kept.len() / row.len() {
            self.kept.extend(row);
        }
        Ok(())
    }

    /// The reward of the answer, if a step asked for it. A value is none.
    fn known_reward(&self) -> Option<Score> {
        if let Some(RewardState::Value(_)) = self.guide {
            return None;
        }
        let last = self.answer.tokens.len().checked_sub(1)?;
        self.rewards.get(last).cloned().flatten()
    }

    /// Finished: what is known of the reward stays, what was read goes. `empty` takes the prefix's place.
    pub(crate) fn settle(&mut self, prompt: &[u32], empty: Prefix) -> Result<()> {
        (self.reward, self.last) = (self.known_reward(), self.last_hidden(prompt)?);
        (self.prefix, self.guide) = (empty, None);
        Ok(())
    }

    /// Hidden state of the text's last token, `[1, d]`, if it is known: it is not, where that token was not
    /// read, or others were read behind it that ended the answer and are no part of it.
    fn last_hidden(&self, prompt: &[u32]) -> Result<Option<Tensor>> {
        let tokens = self.answer.tokens.len();
        if self.prefix.len() == prompt.len() + tokens {
            // A copy: a view would keep the rows of all texts that were read together.
            return Ok(Some(self.hidden.copy().map_err(stackelberg_engine::Error::from)?));
        }
        let (width, device) = (self.hidden.elem_count(), self.hidden.device());
        let row = tokens.checked_sub(1).and_then(|last| self.kept.get(last * width..tokens * width));
        let row = row.map(|row| Tensor::from_slice(row, (1, width), device)).transpose();
        Ok(row.map_err(stackelberg_engine::Error::from)?)
    }

    pub(crate) fn finish(self, score: Option<Score>) -> Generation {
        let (reward, parts) = score.map(|Score { reward, parts }| (reward, parts)).unzip();
        Generation {
            text: self.answer.text,
            tokens: self.answer.tokens,
            finish: self.answer.finish.unwrap_or(Finish::Length),
            reward,
            parts: parts.unwrap_or_default(),
            mean_log_prob: self.log_probs / self.steps.max(1) as f64,
            steered: self.steered,
            reward_calls: self.reward_calls,
            skipped: self.skipped,
            kl: self.kl,
            tail_nll: self.tail_nll,
            elapsed: self.elapsed,
        }
    }
}

/// The answer as it grows, and what may end it.
#[derive(Clone)]
pub(crate) struct Answer<'a> {
    policy: &'a Checkpoint,
    settings: &'a Settings,
    /// Its greatest length, in tokens.
    most: usize,
    stream: TextStream<'a>,
    pub(crate) tokens: Vec<u32>,
    text: String,
    pub(crate) finish: Option<Finish>,
}

impl<'a> Answer<'a> {
    pub(crate) fn new(policy: &'a Checkpoint, settings: &'a Settings, most: usize) -> Self {
        let stream = TextStream::new(&policy.tokenizer);
        Self { policy, settings, most, stream, tokens: Vec::new(), text: String::new(), finish: None }
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
        } else if self.tokens.len() == self.most {
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
