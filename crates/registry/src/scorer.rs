//! A reward, or a combination of several, for finished texts.

use std::sync::Arc;

use rayon::prelude::*;
use stackelberg_data::Prompt;
use stackelberg_decoding::Score;
use stackelberg_engine::reward::{Combination, Exchange, RewardFormat, TextFormat, TextReward};
use stackelberg_engine::{Checkpoint, Dtype, Reward};

use crate::error::{Error, Result};
use crate::names::{combination, split_format};
use crate::registry::Registry;

/// A reward by its name, loaded.
pub struct Scorer {
    /// Its name as given.
    pub name: String,
    /// Tells it from any other.
    pub hash: String,
    combination: Combination,
    /// One for each name in it.
    rewards: Vec<Reads>,
}

/// A reward, by what it reads.
enum Reads {
    /// The hidden states of the policy, or a model with its tokenizer.
    Policy(Box<Reward>),
    /// Finished texts.
    Text(Arc<TextReward>),
}

/// A text to score: an answer and what was asked, or a text as it is.
#[derive(Debug, Clone, Copy)]
pub struct Finished<'a> {
    /// What was asked.
    pub prompt: Option<&'a Prompt>,
    /// The answer, or the text.
    pub text: &'a str,
    /// How the prompt was laid out for the policy, where that is known.
    pub format: Option<TextFormat>,
    /// With which system message.
    pub system: Option<&'a str>,
}

/// A text as the rewards read it.
pub struct Ready {
    prompt: Option<Prompt>,
    text: String,
    /// Tokens, for each reward that reads the policy's tokens.
    tokens: Vec<Vec<u32>>,
}

impl Scorer {
    /// Loads a reward by its name; `policy` is called where one is needed.
    ///
    /// # Errors
    /// As [`Registry::reward`]; those of `policy`.
    pub fn load<'p>(
        registry: &Registry,
        name: &str,
        dtype: Dtype,
        policy: &mut dyn FnMut() -> Result<&'p Checkpoint>,
    ) -> Result<Self> {
        let combination = combination(name)?;
        let mut load = |name: &String| -> Result<Reads> {
            if let Some(reward) = registry.text_reward(name)? {
                return Ok(Reads::Text(Arc::new(reward)));
            }
            Ok(match registry.one_reward(name, policy()?, dtype)? {
                Reward::Text(reward) => Reads::Text(reward),
                other => Reads::Policy(Box::new(other)),
            })
        };
        let rewards = combination.names().iter().map(&mut load).collect::<Result<_>>()?;
        Ok(Self { name: name.to_owned(), hash: registry.reward_hash(name)?, combination, rewards })
    }

    /// The names of its rewards, if it is a combination; else nothing.
    pub fn parts(&self) -> &[String] {
        if self.combination.only().is_some() { &[] } else { self.combination.names() }
    }

    /// The rewards that are also part of `guide` but read another layout there: each one's name, the format there and
    /// the format here.
    pub fn seen_otherwise(&self, guide: &str) -> Vec<(String, RewardFormat, RewardFormat)> {
        let Ok(guide) = combination(guide) else { return Vec::new() };
        let mut otherwise = Vec::new();
        for (name, reads) in self.combination.names().iter().zip(&self.rewards) {
            let Reads::Text(reward) = reads else { continue };
            for (format, same) in guide.names().iter().map(|name| split_format(name)) {
                let there = format.unwrap_or(reward.usual_format());
                if same == split_format(name).1 && there != reward.format() {
                    otherwise.push((same.to_owned(), there, reward.format()));
                }
            }
        }
        otherwise
    }

    /// A text as the rewards read it. A prompt is laid out for the policy as it was, where that is known, else as the
    /// reward was trained.
    ///
    /// # Errors
    /// The text is empty or too long, or the policy is missing.
    pub fn read(&self, policy: Option<&Checkpoint>, finished: Finished<'_>) -> Result<Ready> {
        let Finished { prompt, text, format, system } = finished;
        if prompt.is_none() && text.trim().is_empty() {
            return Err(empty());
        }
        let mut tokens = Vec::new();
        for reads in &self.rewards {
            let Reads::Policy(reward) = reads else { continue };
            let Some(policy) = policy else { return Err(self.needs_policy()) };
            let format = format.unwrap_or(reward.text_format(policy));
            let text = match prompt {
                Some(prompt) => &(policy.lay_out(prompt, system, format)? + text),
                None => text,
            };
            tokens.push(scored_tokens(policy, text, format)?);
        }
        Ok(Ready { prompt: prompt.cloned(), text: text.to_owned(), tokens })
    }

    fn needs_policy(&self) -> Error {
        Error::Text(format!("the reward '{}' needs a policy", self.name))
    }

    /// The rewards of texts. None depends on the others.
    ///
    /// # Errors
    /// A reward fails.
    pub fn score(&self, policy: Option<&Checkpoint>, texts: &[Ready]) -> Result<Vec<Score>> {
        let mut parts = Vec::with_capacity(self.rewards.len());
        let mut number = 0;
        for reads in &self.rewards {
            parts.push(match (reads, policy) {
                (Reads::Text(reward), _) => of_texts(reward, texts)?,
                (Reads::Policy(reward), Some(policy)) => {
                    number += 1;
                    let one = |ready: &Ready| reward.of_tokens(policy, &ready.tokens[number - 1]);
                    texts.par_iter().map(one).collect::<std::result::Result<_, _>>()?
                }
                (Reads::Policy(_), None) => return Err(self.needs_policy()),
            });
        }
        let score = |text: usize| {
            let parts: Vec<f64> = parts.iter().map(|part| part[text]).collect();
            let reward = self.combination.of(&parts);
            Score { reward, parts: if self.parts().is_empty() { Vec::new() } else { parts } }
        };
        Ok((0..texts.len()).map(score).collect())
    }
}

/// Rewards of texts as they are, or of answers with what was asked.
fn of_texts(reward: &TextReward, texts: &[Ready]) -> Result<Vec<f64>> {
    let mut rewards = Vec::with_capacity(texts.len());
    for alike in texts.chunk_by(|a, b| a.prompt.is_some() == b.prompt.is_some()) {
        let mut exchanges = Vec::with_capacity(alike.len());
        for Ready { prompt, text: answer, .. } in alike {
            exchanges.extend(prompt.as_ref().map(|prompt| Exchange { prompt, answer }));
        }
        rewards.extend(match exchanges.is_empty() {
            true => {
                reward.score_texts(&alike.iter().map(|ready| &ready.text[..]).collect::<Vec<_>>())?
            }
            false => reward.score(&exchanges)?,
        });
    }
    Ok(rewards)
}

/// Tokens of a text that a reward on the policy is to score.
fn scored_tokens(policy: &Checkpoint, text: &str, format: TextFormat) -> Result<Vec<u32>> {
    let tokens = policy.tokens(text, format)?;
    if tokens.is_empty() {
        return Err(empty());
    }
    let context = policy.model.context();
    if tokens.len() > context {
        let problem = format!("{} tokens do not fit the model's context of {context}", tokens.len());
        return Err(Error::Text(problem));
    }
    Ok(tokens)
}

fn empty() -> Error {
    Error::Text("an empty text has no reward".to_owned())
}
