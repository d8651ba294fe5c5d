//! Rewards that can look ahead: given a text and candidates for its next token, one number each.
//!
//! Decoding sees the contract [`Guide`] alone and cannot tell its members apart: a head on the policy's
//! own hidden states ([`Head`], [`ValueHead`]), which costs no forward of its own; a second causal model
//! with a prefix of its own ([`RewardModel`]); what reads text, whatever its tokenizer ([`TextReward`]); or several of
//! these at once ([`Combined`]).

mod causal;
mod combination;
mod combined;
mod file;
mod guide;
mod head;
mod labels;
mod text;
mod value;

pub use causal::RewardModel;
pub use combination::Combination;
pub use combined::Combined;
pub use guide::{Ahead, Guide, Question, ask};
pub use head::{Backbone, Head, TextFormat};
pub use text::{Classifier, EmbeddedHead, Exchange, ForeignModel, RewardFormat, TextReward, TextScorer};
pub use value::ValueHead;

use std::path::Path;

use candle_core::Tensor;

use crate::chat::Prompt;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::kernel::Dtype;
use crate::model::Model;
use crate::tokenizer::TextStream;

/// A loaded reward.
pub enum Reward {
    /// A head on the policy's hidden states.
    Head(Head),
    /// A causal reward model of the policy's tokenizer.
    Model(Box<RewardModel>),
    /// What reads text.
    Text(Box<TextReward>),
    /// Several that make up one.
    Combined(Box<Combined>),
}

/// A prompt, as the policy reads it and as it was asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its tokens for the policy.
    pub tokens: &'a [u32],
    /// What was asked, which rewards that read text must be given.
    pub prompt: Option<&'a Prompt>,
}

impl<'a> From<&'a [u32]> for Asked<'a> {
    fn from(tokens: &'a [u32]) -> Self {
        Self { tokens, prompt: None }
    }
}

impl<'a, const N: usize> From<&'a [u32; N]> for Asked<'a> {
    fn from(tokens: &'a [u32; N]) -> Self {
        tokens.as_slice().into()
    }
}

impl<'a> From<&'a Vec<u32>> for Asked<'a> {
    fn from(tokens: &'a Vec<u32>) -> Self {
        tokens.as_slice().into()
    }
}

impl Reward {
    /// Loads a head (`.safetensors`), a reward model or a classifier (HF folders) for this policy;
    /// a reward model runs where the policy does.
    ///
    /// # Errors
    /// As [`Head::load`], [`Checkpoint::load`] and [`Classifier::load`]; a language model, a classifier of several
    /// labels.
    pub fn load(path: &Path, policy: &Checkpoint, dtype: Dtype) -> Result<Self> {
        Self::load_label(path, None, policy, dtype)
    }

    /// The same of a classifier with several labels, of which `label` names the one that is the reward, or two as
    /// `GOOD-BAD`, whose difference is.
    ///
    /// # Errors
    /// As [`Reward::load`]; a label that is not there.
    pub fn load_label(
        path: &Path,
        label: Option<&str>,
        policy: &Checkpoint,
        dtype: Dtype,
    ) -> Result<Self> {
        if path.is_dir() && Classifier::is_in(path) {
            return Ok(Self::Text(Box::new(TextReward::new(Classifier::load(path, label)?))));
        }
        if path.is_dir() {
            let checkpoint = Checkpoint::load_on(path, dtype, policy.model.place())?;
            if policy.tokenizer.difference(&checkpoint.tokenizer).is_some() {
                return Ok(Self::Text(Box::new(TextReward::new(ForeignModel::new(checkpoint, label)?))));
            }
            return Ok(Self::Model(Box::new(RewardModel::of_label(checkpoint, label)?)));
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
        Ok(Self::Head(head))
    }

    /// How text should be laid out for it: as a head was trained (the first, of several); for a reward model as a
    /// chat, if the policy knows chats.
    pub fn text_format(&self, policy: &Checkpoint) -> TextFormat {
        let of_head = |reward: &Self| match reward {
            Self::Head(head) => Some(head.text_format),
            _ => None,
        };
        let chats = if policy.template.is_some() { TextFormat::Chat } else { TextFormat::Raw };
        self.each().iter().find_map(of_head).unwrap_or(chats)
    }

    /// What it asks: itself, or each of several.
    pub fn each(&self) -> &[Self] {
        match self {
            Self::Combined(combined) => combined.rewards(),
            Self::Head(_) | Self::Model(_) | Self::Text(_) => std::slice::from_ref(self),
        }
    }

    /// Whether it reads the policy's hidden states.
    pub fn reads_policy(&self) -> bool {
        self.each().iter().any(|reward| matches!(reward, Self::Head(_)))
    }

    /// The names of the rewards that it is made of, if it is made of several.
    pub fn parts(&self) -> &[String] {
        match self {
            Self::Combined(combined) => combined.combination().names(),
            Self::Head(_) | Self::Model(_) | Self::Text(_) => &[],
        }
    }

    /// Most tokens that it can read.
    pub fn context(&self, policy: &Model) -> usize {
        match self {
            Self::Head(_) | Self::Text(_) => policy.context(),
            Self::Model(model) => model.model().context(),
            Self::Combined(combined) => {
                let of = combined.rewards().iter().map(|reward| reward.context(policy));
                of.min().unwrap_or(policy.context())
            }
        }
    }

    /// A guide through one answer.
    ///
    /// # Errors
    /// The reward reads text and nothing says what was asked.
    pub fn guide<'a>(&'a self, policy: &'a Checkpoint, asked: Asked<'a>) -> Result<Guide<'a>> {
        Ok(match self {
            Self::Head(head) => Guide::Head(head),
            Self::Model(model) => {
                let prefix = model.model().empty();
                Guide::Model { model, prefix, unread: asked.tokens.to_vec(), ahead: None }
            }
            Self::Text(reward) => Guide::Text {
                reward,
                prompt: asked.prompt.ok_or(Error::NoPrompt)?,
                answer: String::new(),
                stream: TextStream::new(&policy.tokenizer),
                ahead: Vec::new(),
            },
            Self::Combined(combined) => {
                let guides = combined.rewards().iter().map(|reward| reward.guide(policy, asked));
                Guide::Combined { combined, guides: guides.collect::<Result<_>>()?, parts: Vec::new() }
            }
        })
    }

    /// The reward of a whole text, by the hidden state of its last token.
    ///
    /// # Errors
    /// As [`Model::prefill`]; the reward reads text.
    pub fn of_tokens(&self, policy: &Checkpoint, tokens: &[u32]) -> Result<f64> {
        Ok(self.of_answers(policy, Asked { tokens, prompt: None }, &[&[]])?[0])
    }

    /// Rewards of texts that begin alike: the prompt is read once, and all answers in one forward.
    ///
    /// # Errors
    /// As [`Model::prefill`]; the reward reads text and nothing says what was asked.
    pub fn of_answers(
        &self,
        policy: &Checkpoint,
        asked: Asked<'_>,
        answers: &[&[u32]],
    ) -> Result<Vec<f64>> {
        let prompt = asked.tokens;
        let model = match self {
            Self::Head(_) => &policy.model,
            Self::Model(model) => model.model(),
            Self::Text(reward) => {
                let prompt = asked.prompt.ok_or(Error::NoPrompt)?;
                let texts = answers.iter().map(|tokens| policy.tokenizer.decode(tokens, false));
                let texts = texts.collect::<Result<Vec<_>>>()?;
                let exchanges: Vec<_> = texts.iter().map(|answer| Exchange { prompt, answer }).collect();
                return reward.score(&exchanges);
            }
            Self::Combined(combined) => {
                let parts =
                    combined.rewards().iter().map(|part| part.of_answers(policy, asked, answers));
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

/// `h · w` of hidden states `[n, d]`, summed in f64.
pub(crate) fn project(hidden: &Tensor, weight: &[f32]) -> Result<Vec<f64>> {
    let rows: Vec<Vec<f32>> = hidden.to_vec2()?;
    if let Some(row) = rows.iter().find(|row| row.len() != weight.len()) {
        let (found, expected) = (row.len(), weight.len());
        return Err(Error::Width { found, expected });
    }
    Ok(rows.iter().map(|row| dot(row, weight)).collect())
}

/// `h · w`, summed in f64.
fn dot(h: &[f32], w: &[f32]) -> f64 {
    h.iter().zip(w).map(|(h, w)| f64::from(*h) * f64::from(*w)).sum()
}
