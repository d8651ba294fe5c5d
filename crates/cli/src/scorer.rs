//! A reward, or several that make up one, of finished texts: what `score`, `evaluate` and `experiment` ask.

use anyhow::{Result, bail};
use rayon::prelude::*;
use stackelberg_decoding::Score;
use stackelberg_engine::reward::{Combination, Exchange, RewardFormat, TextFormat, TextReward};
use stackelberg_engine::{Checkpoint, Prompt, Reward};

use crate::model::{ModelArgs, combination, reward_hash, split_format, text_reward};

/// A reward by its name, loaded.
pub(crate) struct Scorer {
    pub(crate) name: String,
    pub(crate) hash: String,
    combination: Combination,
    /// One for each name in it.
    rewards: Vec<Reads>,
}

/// A reward, by whatever it reads.
enum Reads {
    /// The hidden states of the policy, or a model with its tokenizer.
    Policy(Box<Reward>),
    /// Finished texts.
    Text(Box<TextReward>),
}

/// A text to score: an answer and what was asked, or a text as it is.
#[derive(Clone, Copy)]
pub(crate) struct Finished<'a> {
    pub(crate) prompt: Option<&'a Prompt>,
    pub(crate) text: &'a str,
    /// How the prompt was laid out for the policy, where that is known, and with which system message.
    pub(crate) format: Option<TextFormat>,
    pub(crate) system: Option<&'a str>,
}

/// A text as the rewards read it.
pub(crate) struct Ready {
    prompt: Option<Prompt>,
    text: String,
    /// Tokens, for each reward that reads the policy's.
    tokens: Vec<Vec<u32>>,
}

impl Scorer {
    /// Loads a reward by its name. `policy` is asked for where it is needed.
    pub(crate) fn load<'p>(
        name: &str,
        model: &ModelArgs,
        policy: &mut dyn FnMut() -> Result<&'p Checkpoint>,
    ) -> Result<Self> {
        let combination = combination(name)?;
        let mut load = |name: &String| -> Result<Reads> {
            if let Some(reward) = text_reward(name)? {
                return Ok(Reads::Text(Box::new(reward)));
            }
            Ok(match model.one_reward(name, policy()?)? {
                Reward::Text(reward) => Reads::Text(reward),
                other => Reads::Policy(Box::new(other)),
            })
        };
        let rewards = combination.names().iter().map(&mut load).collect::<Result<_>>()?;
        Ok(Self { name: name.to_owned(), hash: reward_hash(name)?, combination, rewards })
    }

    /// The rewards that it is made of, if it is made of several.
    pub(crate) fn parts(&self) -> &[String] {
        if self.combination.only().is_some() { &[] } else { self.combination.names() }
    }

    /// The rewards among those that made `guide` which see another layout here than they saw there: each one's name,
    /// the format there and here.
    pub(crate) fn seen_otherwise(&self, guide: &str) -> Vec<(String, RewardFormat, RewardFormat)> {
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
    pub(crate) fn read(&self, policy: Option<&Checkpoint>, finished: Finished<'_>) -> Result<Ready> {
        let Finished { prompt, text, format, system } = finished;
        if prompt.is_none() && text.trim().is_empty() {
            bail!("an empty text has no reward");
        }
        let mut tokens = Vec::new();
        for reads in &self.rewards {
            let Reads::Policy(reward) = reads else { continue };
            let Some(policy) = policy else { bail!("the reward '{}' needs a policy", self.name) };
            let format = format.unwrap_or(reward.text_format(policy));
            let text = match prompt {
                Some(prompt) => &(policy.lay_out(prompt, system, format)? + text),
                None => text,
            };
            tokens.push(scored_tokens(policy, text, format)?);
        }
        Ok(Ready { prompt: prompt.cloned(), text: text.to_owned(), tokens })
    }

    /// What texts are worth. None depends on the others.
    pub(crate) fn score(&self, policy: Option<&Checkpoint>, texts: &[Ready]) -> Result<Vec<Score>> {
        let mut parts = Vec::with_capacity(self.rewards.len());
        let mut number = 0;
        for reads in &self.rewards {
            parts.push(match (reads, policy) {
                (Reads::Text(reward), _) => of_texts(reward, texts)?,
                (Reads::Policy(reward), Some(policy)) => {
                    number += 1;
                    let one = |ready: &Ready| reward.of_tokens(policy, &ready.tokens[number - 1]);
                    texts.par_iter().map(one).collect::<Result<_, _>>()?
                }
                (Reads::Policy(_), None) => bail!("the reward '{}' needs a policy", self.name),
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
        bail!("an empty text has no reward");
    }
    let context = policy.model.context();
    if tokens.len() > context {
        bail!("{} tokens do not fit the model's context of {context}", tokens.len());
    }
    Ok(tokens)
}
