//! Rewards that can look ahead: given a text and candidates for its next token, one number each.
//!
//! Decoding sees the contract [`Guide`] alone and cannot tell its members apart: a head on the policy's
//! own hidden states ([`Head`], [`ValueHead`]), which costs no forward of its own, or a second causal model
//! with a prefix of its own ([`RewardModel`]).
//!
//! A [`TextReward`] does not look ahead: it scores finished texts by another model than the policy, so that
//! what guided is not what judges.

mod causal;
mod file;
mod head;
mod text;
mod value;

pub use causal::RewardModel;
pub use head::{Backbone, Head, TextFormat};
pub use text::TextReward;
pub use value::ValueHead;

use std::path::Path;

use candle_core::Tensor;

use crate::cache::{Branches, Prefix};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::kernel::Dtype;
use crate::model::{Model, Segment};

/// A loaded reward.
pub enum Reward {
    /// A head on the policy's hidden states.
    Head(Head),
    /// A causal reward model.
    Model(Box<RewardModel>),
}

impl Reward {
    /// Loads a head (`.safetensors`) or a reward model (an HF folder) for this policy.
    ///
    /// # Errors
    /// As [`Head::load`] and [`RewardModel::load`].
    pub fn load(path: &Path, policy: &Checkpoint, dtype: Dtype) -> Result<Self> {
        if path.is_dir() {
            let model = RewardModel::load(path, policy, dtype)?;
            return Ok(Self::Model(Box::new(model)));
        }
        if !path.is_file() {
            let what = "there is no such file or folder: give a head (.safetensors) or a model folder";
            return Err(Error::reward(path, what));
        }
        let head = Head::load(path)?;
        head.fits(policy)?;
        Ok(Self::Head(head))
    }

    /// How text should be laid out for it: as a head was trained; for a reward model as a chat, if the
    /// policy knows chats.
    pub fn text_format(&self, policy: &Checkpoint) -> TextFormat {
        match self {
            Self::Head(head) => head.text_format,
            Self::Model(_) if policy.template.is_some() => TextFormat::Chat,
            Self::Model(_) => TextFormat::Raw,
        }
    }

    /// Most tokens that it can read.
    pub fn context(&self, policy: &Model) -> usize {
        match self {
            Self::Head(_) => policy.context(),
            Self::Model(model) => model.model().context(),
        }
    }

    /// A guide through one text.
    pub fn guide(&self) -> Guide<'_> {
        match self {
            Self::Head(head) => Guide::Head(head),
            Self::Model(model) => {
                let prefix = model.model().empty();
                Guide::Model { model, prefix, unread: Vec::new(), ahead: None }
            }
        }
    }

    /// The reward of a whole text, by the hidden state of its last token.
    ///
    /// # Errors
    /// As [`Model::prefill`].
    pub fn of_tokens(&self, policy: &Model, tokens: &[u32]) -> Result<f64> {
        Ok(self.of_answers(policy, tokens, &[&[]])?[0])
    }

    /// Rewards of texts that begin alike: the prompt is read once, and all answers in one forward.
    ///
    /// # Errors
    /// As [`Model::prefill`].
    pub fn of_answers(&self, policy: &Model, prompt: &[u32], answers: &[&[u32]]) -> Result<Vec<f64>> {
        let model = match self {
            Self::Head(_) => policy,
            Self::Model(model) => model.model(),
        };
        let (prefix, hidden) = model.prefill(prompt)?;
        let hidden = hidden.narrow(0, prompt.len() - 1, 1)?;
        let mut prefixes = vec![prefix; answers.len()];
        let texts = prefixes.iter_mut().zip(answers).filter(|(_, answer)| !answer.is_empty());
        let mut texts: Vec<_> = texts.map(|(prefix, answer)| (prefix, *answer)).collect();
        let mut read = model.read_all(&mut texts)?.into_iter();
        let last = answers.iter().map(|answer| if answer.is_empty() { None } else { read.next() });
        let last: Vec<Tensor> = last.map(|last| last.unwrap_or_else(|| hidden.clone())).collect();
        self.score(&Tensor::cat(&last, 0)?)
    }

    /// Rewards of the texts that end with these hidden states `[n, d]`, of the policy (a head) or of the
    /// reward model.
    ///
    /// # Errors
    /// Another width.
    pub fn score(&self, hidden: &Tensor) -> Result<Vec<f64>> {
        match self {
            Self::Head(head) => head.score(hidden),
            Self::Model(model) => model.score(hidden),
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

/// The contract of a step: what was read, what might come next, what was chosen.
#[derive(Clone)]
pub enum Guide<'a> {
    /// Reads the policy's look ahead.
    Head(&'a Head),
    /// Reads it too, and says what the rest of the text promises.
    Value(&'a ValueHead),
    /// Looks ahead itself.
    Model {
        /// The reward model.
        model: &'a RewardModel,
        /// What it has read.
        prefix: Prefix,
        /// What was chosen since, and it has not read.
        unread: Vec<u32>,
        /// The candidates it scored last.
        ahead: Option<Branches>,
    },
}

impl Guide<'_> {
    /// Whether the guide needs the policy to look ahead over the candidates.
    pub fn needs_policy(&self) -> bool {
        matches!(self, Self::Head(_) | Self::Value(_))
    }

    /// The most by which two of its rewards can differ, whatever the texts; `None` where there is no limit.
    pub fn span(&self) -> Option<f64> {
        match self {
            Self::Value(head) => head.bound,
            Self::Head(_) | Self::Model { .. } => None,
        }
    }

    /// Takes in tokens that were not scored: the prompt, or steps that were skipped.
    pub fn read(&mut self, tokens: &[u32]) {
        if let Self::Model { unread, ahead, .. } = self {
            unread.extend_from_slice(tokens);
            *ahead = None;
        }
    }

    /// The candidate at `index` of those scored last was chosen.
    ///
    /// # Errors
    /// Nothing was scored.
    pub fn commit(&mut self, index: usize) -> Result<()> {
        match self {
            Self::Head(_) | Self::Value(_) => Ok(()),
            Self::Model { prefix, ahead, .. } => {
                let branches = ahead.take().ok_or(Error::NoTokens)?;
                prefix.commit(&branches, index)
            }
        }
    }
}

/// What a step asks: rewards of the candidates for one text's next token.
pub struct Question<'g, 'a> {
    /// The text's guide.
    pub guide: &'g mut Guide<'a>,
    /// The candidates, `k` of them.
    pub candidates: &'g [u32],
    /// The policy's own look ahead over them, which guides that need it must be given.
    pub ahead: Option<&'g Branches>,
}

/// Answers the questions of several texts together: rewards of each one's candidates. Guides of one reward
/// model share its forward, those of one value head its weights.
///
/// # Errors
/// The forward fails.
pub fn ask(questions: &mut [Question<'_, '_>]) -> Result<Vec<Vec<f64>>> {
    read_on(questions)?;
    let mut reward_model = None;
    let mut segments = Vec::new();
    for question in questions.iter() {
        if let Guide::Model { model, prefix, .. } = &*question.guide {
            reward_model = Some(*model);
            segments.push(Segment::Branch(prefix, question.candidates));
        }
    }
    let seen = reward_model.map(|model| model.model().forward(&mut segments)).transpose()?;
    let mut seen = seen.into_iter().flatten();
    let mut values = values(questions)?.into_iter();
    let mut rewards = Vec::with_capacity(questions.len());
    for question in questions {
        rewards.push(match &mut question.guide {
            Guide::Head(head) => head.score(&question.ahead.ok_or(Error::NoTokens)?.hidden)?,
            Guide::Value(_) => values.by_ref().take(question.candidates.len()).collect(),
            Guide::Model { model, ahead, .. } => {
                let branches = seen.next().ok_or(Error::NoTokens)?;
                let scores = model.score(&branches.hidden)?;
                *ahead = Some(branches);
                scores
            }
        });
    }
    Ok(rewards)
}

/// Values of the candidates of all value heads' questions, one text behind the other.
fn values(questions: &[Question<'_, '_>]) -> Result<Vec<f64>> {
    let mut value_head = None;
    let mut hidden = Vec::new();
    for question in questions {
        if let Guide::Value(head) = &*question.guide {
            value_head = Some(*head);
            hidden.push(&question.ahead.ok_or(Error::NoTokens)?.hidden);
        }
    }
    value_head.map_or_else(|| Ok(Vec::new()), |head| head.score(&Tensor::cat(&hidden, 0)?))
}

/// Reads what was chosen unscored: the prompt, steps that were skipped.
fn read_on(questions: &mut [Question<'_, '_>]) -> Result<()> {
    let mut reward_model = None;
    let mut texts = Vec::new();
    for question in questions.iter_mut() {
        if let Guide::Model { model, prefix, unread, .. } = question.guide
            && !unread.is_empty()
        {
            reward_model = Some(*model);
            texts.push((prefix, &unread[..]));
        }
    }
    let Some(model) = reward_model else { return Ok(()) };
    model.model().read_all(&mut texts)?;
    for question in questions {
        if let Guide::Model { unread, .. } = question.guide {
            unread.clear();
        }
    }
    Ok(())
}
