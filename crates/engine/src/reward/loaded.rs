//! Loaded rewards of any kind.

use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;

use super::causal::RewardModel;
use super::combination::Combination;
use super::head::Head;
use super::state::RewardState;
use super::text::{Classifier, Exchange, ForeignModel, TextReward};
use crate::chat::Prompt;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::kernel::Dtype;
use crate::model::Model;
use crate::text_format::TextFormat;
use crate::text_processor::TextProcessor;
use crate::tokenizer::TextStream;

/// A loaded reward. A clone shares what is loaded.
#[derive(Clone)]
pub enum Reward {
    /// A head on the policy's hidden states.
    Head(Arc<Head>),
    /// A causal reward model with the policy's tokenizer.
    Model(Arc<RewardModel>),
    /// A reward that reads text.
    Text(Arc<TextReward>),
    /// A combination of several rewards.
    Combined(Arc<Combined>),
}

/// A combination of several loaded rewards.
pub struct Combined {
    combination: Arc<Combination>,
    /// One reward for each name.
    rewards: Vec<Reward>,
}

impl Combined {
    /// Combines rewards, one for each of the combination's names.
    ///
    /// # Panics
    /// The number of rewards is not the number of names.
    pub fn new(combination: Combination, rewards: Vec<Reward>) -> Self {
        assert_eq!(combination.names().len(), rewards.len(), "a combination has a reward for each name");
        Self { combination: Arc::new(combination), rewards }
    }

    /// The expression that combines the rewards.
    pub fn combination(&self) -> &Combination {
        &self.combination
    }

    /// The rewards, in the order of the combination's names.
    pub fn rewards(&self) -> &[Reward] {
        &self.rewards
    }

    /// The combined rewards of several texts, from `parts[reward][text]`.
    pub fn of(&self, parts: &[Vec<f64>]) -> Vec<f64> {
        self.combination.of_texts(parts)
    }
}

/// A prompt: its tokens for the policy, and the prompt itself.
#[derive(Debug, Clone, Copy)]
pub struct PromptInput<'a> {
    /// The policy's tokens of the prompt.
    pub tokens: &'a [u32],
    /// The prompt itself, which rewards that read text need.
    pub prompt: Option<&'a Prompt>,
}

impl<'a> From<&'a [u32]> for PromptInput<'a> {
    fn from(tokens: &'a [u32]) -> Self {
        Self { tokens, prompt: None }
    }
}

impl<'a, const N: usize> From<&'a [u32; N]> for PromptInput<'a> {
    fn from(tokens: &'a [u32; N]) -> Self {
        tokens.as_slice().into()
    }
}

impl<'a> From<&'a Vec<u32>> for PromptInput<'a> {
    fn from(tokens: &'a Vec<u32>) -> Self {
        tokens.as_slice().into()
    }
}

impl Reward {
    /// Loads a head (`.safetensors`), a reward model or a classifier (Hugging Face folders) for this policy. A reward
    /// model runs on the policy's device.
    ///
    /// # Errors
    /// As [`Head::load`], [`Checkpoint::load`] and [`Classifier::load`]; the model is not a classifier, or it has several
    /// labels.
    pub fn load(path: &Path, policy: &Checkpoint, dtype: Dtype) -> Result<Self> {
        Self::load_label(path, None, policy, dtype)
    }

    /// As [`Reward::load`], for a classifier with several labels. `label` is the name of the label whose logit is the
    /// reward, or `GOOD-BAD` for the difference of two logits.
    ///
    /// # Errors
    /// As [`Reward::load`]; there is no such label.
    pub fn load_label(
        path: &Path,
        label: Option<&str>,
        policy: &Checkpoint,
        dtype: Dtype,
    ) -> Result<Self> {
        if path.is_dir() && Classifier::is_in(path) {
            return Ok(Self::Text(Arc::new(TextReward::new(Classifier::load(path, label)?))));
        }
        if path.is_dir() {
            let checkpoint = Checkpoint::load_on(path, dtype, policy.model.place())?;
            if policy.tokenizer.difference(&checkpoint.tokenizer).is_some() {
                return Ok(Self::Text(Arc::new(TextReward::new(ForeignModel::new(checkpoint, label)?))));
            }
            return Ok(Self::Model(Arc::new(RewardModel::of_label(checkpoint, label)?)));
        }
        if !path.is_file() {
            let what = "there is no such file or folder: give a head (.safetensors) or a model folder";
            return Err(Error::reward(path, what));
        }
        let head = Head::load(path)?;
        if let Some(label) = label {
            return Err(Error::reward(path, format!("a head has no labels: leave out '#{label}'")));
        }
        head.fits(policy)?;
        Ok(Self::Head(Arc::new(head)))
    }

    /// The layout of the policy's text that fits this reward: the layout that a head was trained on (the first head, if
    /// there are several), else [`TextFormat::Chat`] if the policy has a chat template.
    pub fn text_format(&self, policy: &TextProcessor) -> TextFormat {
        let of_head = |reward: &Self| match reward {
            Self::Head(head) => Some(head.text_format),
            _ => None,
        };
        let chats = if policy.template.is_some() { TextFormat::Chat } else { TextFormat::Raw };
        self.each().iter().find_map(of_head).unwrap_or(chats)
    }

    /// The rewards of a combination, or the reward itself.
    pub fn each(&self) -> &[Self] {
        match self {
            Self::Combined(combined) => combined.rewards(),
            Self::Head(_) | Self::Model(_) | Self::Text(_) => std::slice::from_ref(self),
        }
    }

    /// Whether the reward needs the policy's hidden states.
    pub fn reads_policy(&self) -> bool {
        self.each().iter().any(|reward| matches!(reward, Self::Head(_)))
    }

    /// Whether scoring waits for something outside of this process, such as a server.
    pub fn is_remote(&self) -> bool {
        self.each().iter().any(|reward| matches!(reward, Self::Text(text) if text.is_remote()))
    }

    /// The names of the rewards of a combination; otherwise empty.
    pub fn parts(&self) -> &[String] {
        match self {
            Self::Combined(combined) => combined.combination().names(),
            Self::Head(_) | Self::Model(_) | Self::Text(_) => &[],
        }
    }

    /// The maximum number of tokens of a text, where `policy` is that of the policy.
    pub fn context(&self, policy: usize) -> usize {
        match self {
            Self::Head(_) | Self::Text(_) => policy,
            Self::Model(model) => model.model().context(),
            Self::Combined(combined) => {
                let of = combined.rewards().iter().map(|reward| reward.context(policy));
                of.min().unwrap_or(policy)
            }
        }
    }

    /// The reward model that limits the number of the policy's tokens most, with its limit. Rewards that read text have
    /// tokens of their own: whether a text fits is known when it is read.
    pub fn limit(&self) -> Option<(&Path, usize)> {
        let limits = self.each().iter().filter_map(|reward| match reward {
            Self::Model(model) => Some((model.checkpoint().path.as_path(), model.model().context())),
            _ => None,
        });
        limits.min_by_key(|(_, context)| *context)
    }

    /// The state of the reward for one answer to this prompt.
    ///
    /// # Errors
    /// The reward reads text, and `asked` has no prompt.
    pub fn state(&self, policy: &TextProcessor, asked: PromptInput<'_>) -> Result<RewardState> {
        Ok(match self {
            Self::Head(head) => RewardState::Head(head.clone()),
            Self::Model(model) => {
                let prefix = model.model().empty();
                let (model, unread) = (model.clone(), asked.tokens.to_vec());
                RewardState::Model { model, prefix, unread, ahead: None }
            }
            Self::Text(reward) => RewardState::Text {
                reward: reward.clone(),
                prompt: Arc::new(asked.prompt.ok_or(Error::NoPrompt)?.clone()),
                answer: String::new(),
                stream: TextStream::new(&policy.tokenizer),
                ahead: Vec::new(),
            },
            Self::Combined(combined) => {
                let states = combined.rewards().iter().map(|reward| reward.state(policy, asked));
                let combination = combined.combination.clone();
                let states = states.collect::<Result<_>>()?;
                RewardState::Combined { combination, states, parts: Vec::new() }
            }
        })
    }

    /// The reward of a whole text, at its last token.
    ///
    /// # Errors
    /// As [`Model::prefill`]; the reward reads text.
    pub fn of_tokens(&self, policy: &Checkpoint, tokens: &[u32]) -> Result<f64> {
        Ok(self.of_answers(policy, PromptInput { tokens, prompt: None }, &[&[]])?[0])
    }

    /// Rewards of several answers to one prompt. The prompt is prefilled once, and the answers share forward passes.
    ///
    /// # Errors
    /// As [`Model::prefill`]; the reward reads text, and `asked` has no prompt.
    pub fn of_answers(
        &self,
        policy: &Checkpoint,
        asked: PromptInput<'_>,
        answers: &[&[u32]],
    ) -> Result<Vec<f64>> {
        self.of_answers_by(policy, Some(&policy.model), asked, answers)
    }

    /// The same where a server runs the policy.
    ///
    /// # Errors
    /// As [`Reward::of_answers`]; the reward reads the policy's hidden states ([`Reward::reads_policy`]).
    pub fn of_remote_answers(
        &self,
        policy: &TextProcessor,
        asked: PromptInput<'_>,
        answers: &[&[u32]],
    ) -> Result<Vec<f64>> {
        self.of_answers_by(policy, None, asked, answers)
    }

    fn of_answers_by(
        &self,
        policy: &TextProcessor,
        model: Option<&Model>,
        asked: PromptInput<'_>,
        answers: &[&[u32]],
    ) -> Result<Vec<f64>> {
        let prompt = asked.tokens;
        let model = match self {
            Self::Head(_) => model.ok_or(Error::NoHiddenStates)?,
            Self::Model(model) => model.model(),
            Self::Text(reward) => {
                let prompt = asked.prompt.ok_or(Error::NoPrompt)?;
                let texts = answers.iter().map(|tokens| policy.tokenizer.decode(tokens, false));
                let texts = texts.collect::<Result<Vec<_>>>()?;
                let exchanges: Vec<_> = texts.iter().map(|answer| Exchange { prompt, answer }).collect();
                return reward.score(&exchanges);
            }
            Self::Combined(combined) => {
                let parts = combined
                    .rewards()
                    .iter()
                    .map(|part| part.of_answers_by(policy, model, asked, answers));
                return Ok(combined.of(&parts.collect::<Result<Vec<_>>>()?));
            }
        };
        let (prefix, hidden) = model.prefill(prompt)?;
        let hidden = hidden.narrow(0, prompt.len() - 1, 1)?;
        let mut prefixes = vec![prefix; answers.len()];
        let texts = prefixes.iter_mut().zip(answers).filter(|(_, answer)| !answer.is_empty());
        let mut texts: Vec<_> = texts.map(|(prefix, answer)| (prefix, *answer)).collect();
        let mut read = model.read_all(&mut texts)?.into_iter();
        let last = answers.iter().map(|answer| if answer.is_empty() { None } else { read.next() });
        let last: Vec<Tensor> = last.map(|last| last.unwrap_or_else(|| hidden.clone())).collect();
        let last = Tensor::cat(&last, 0)?;
        match self {
            Self::Head(head) => head.score(&last),
            Self::Model(model) => model.score(&last),
            Self::Text(_) | Self::Combined(_) => Err(Error::NoPrompt),
        }
    }
}
