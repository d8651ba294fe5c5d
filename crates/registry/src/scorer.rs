//! Scores finished texts with a reward, or a combination of several.

use std::sync::Arc;

use rayon::prelude::*;
use stackelberg_data::Prompt;
use stackelberg_decoding::Score;
use stackelberg_engine::reward::{Combination, Exchange, RewardFormat, TextFormat, TextReward};
use stackelberg_engine::{Checkpoint, Dtype, LaidOut, Reward};

use crate::error::{Error, Result};
use crate::layout;
use crate::names::{combination, shown, split_format};
use crate::registry::Registry;

/// A loaded reward for finished texts.
pub struct Scorer {
    /// The name as it is shown.
    pub name: String,
    /// The hash that identifies the reward, see [`Registry::reward_hash`].
    pub hash: String,
    combination: Combination,
    /// One per name in the combination.
    rewards: Vec<Reads>,
}

/// A reward, by the kind of input that it reads.
enum Reads {
    /// The hidden states of the policy, or a model with its tokenizer.
    Policy(Box<Reward>),
    /// Finished texts.
    Text(Arc<TextReward>),
}

/// A text to score: an answer with its prompt, or a text as it is.
#[derive(Debug, Clone, Copy)]
pub struct Finished<'a> {
    /// The prompt, if the text is an answer.
    pub prompt: Option<&'a Prompt>,
    /// The answer, or the text.
    pub text: &'a str,
    /// The prompt format that the policy was given, if known.
    pub format: Option<TextFormat>,
    /// The system message that the policy was given.
    pub system: Option<&'a str>,
}

/// A text that is formatted and tokenized for the rewards.
pub struct Ready {
    prompt: Option<Prompt>,
    text: String,
    /// The tokens for each reward that reads the policy's tokens, and their format.
    tokens: Vec<(TextFormat, Vec<u32>)>,
}

impl Scorer {
    /// Loads a reward by its name. `policy` is called if the reward needs a policy.
    ///
    /// # Errors
    /// As [`Registry::reward`]; the errors of `policy`.
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
            Ok(match registry.one_reward(name, &policy()?.into(), dtype)? {
                Reward::Text(reward) => Reads::Text(reward),
                other => Reads::Policy(Box::new(other)),
            })
        };
        let rewards = combination.names().iter().map(&mut load).collect::<Result<_>>()?;
        let (hash, combination) = (registry.reward_hash(name)?, combination.renamed(shown));
        Ok(Self { name: shown(name), hash, combination, rewards })
    }

    /// The names of the parts of a combination; empty for a single reward.
    pub fn parts(&self) -> &[String] {
        if self.combination.only().is_some() { &[] } else { self.combination.names() }
    }

    /// The rewards that are also part of `guide` but read another text format there: each one's name, the format there
    /// and the format here.
    pub fn seen_otherwise(&self, guide: &str) -> Vec<(String, RewardFormat, RewardFormat)> {
        // An address that hides its password does not parse.
        let guide = combination(guide).unwrap_or_else(|_| Combination::one(guide)).renamed(shown);
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

    /// Formats and tokenizes a text for the rewards. A prompt is formatted as it was for the policy, if that is known,
    /// else as the reward was trained.
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
                Some(prompt) => policy.answered(&policy.lay_out(prompt, system, format)?, text),
                None => LaidOut::as_is(text, format),
            };
            tokens.push((format, scored_tokens(policy, &text)?));
        }
        Ok(Ready { prompt: prompt.cloned(), text: text.to_owned(), tokens })
    }

    /// Warnings about the tokens of texts.
    pub fn warnings(&self, policy: &Checkpoint, texts: &[Ready]) -> Vec<String> {
        let mut warnings = Vec::new();
        for format in [TextFormat::Raw, TextFormat::Chat] {
            let tokens = texts.iter().filter_map(|text| text.tokens.first());
            let tokens = tokens.filter(|(of, _)| *of == format).map(|(_, tokens)| &tokens[..]);
            warnings.extend(layout::odd_tokens(policy, format, "text", tokens));
        }
        warnings
    }

    fn needs_policy(&self) -> Error {
        Error::Text(format!("the reward '{}' needs a policy", self.name))
    }

    /// Scores texts. Results are batch-invariant: a text's reward does not depend on the other texts.
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
                    let one = |ready: &Ready| reward.of_tokens(policy, &ready.tokens[number - 1].1);
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

/// Rewards of texts, or of answers with their prompts.
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

/// The tokens of a text, for a reward that reads the policy's tokens.
fn scored_tokens(policy: &Checkpoint, text: &LaidOut) -> Result<Vec<u32>> {
    let tokens = policy.read(text)?;
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
