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
mod head;
mod labels;
mod text;
mod value;

pub use causal::RewardModel;
pub use combination::Combination;
pub use combined::Combined;
pub use head::{Backbone, Head, TextFormat};
pub use text::{
    Classifier, EmbeddedHead, Exchange, ForeignModel, HttpReward, ProgramReward, RewardFormat,
    TextReward, TextScorer,
};
pub use value::ValueHead;

use std::path::Path;

use candle_core::Tensor;

use crate::cache::{Branches, Prefix};
use crate::chat::Prompt;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::kernel::Dtype;
use crate::model::{Model, Segment};
use crate::tokenizer::TextStream;
use causal::score_row;
use combined::ask_parts;

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
            let score = score_row(&checkpoint, label)?;
            if policy.tokenizer.difference(&checkpoint.tokenizer).is_some() {
                return Ok(Self::Text(Box::new(TextReward::new(ForeignModel::new(checkpoint, label)?))));
            }
            return Ok(Self::Model(Box::new(RewardModel::new(checkpoint, score)?)));
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
        ahead: Option<Ahead>,
    },
    /// Reads every candidate as the text that it would make.
    Text {
        /// The reward.
        reward: &'a TextReward,
        /// What was asked.
        prompt: &'a Prompt,
        /// The answer so far.
        answer: String,
        /// What makes text of its tokens.
        stream: TextStream<'a>,
        /// The candidates it scored last, each with what it was carried on by.
        ahead: Vec<Vec<u32>>,
    },
    /// Asks several.
    Combined {
        /// The rewards.
        combined: &'a Combined,
        /// A guide for each.
        guides: Vec<Guide<'a>>,
        /// What each said of the candidates scored last, `[rewards][candidates]`.
        parts: Vec<Vec<f64>>,
    },
}

/// What a reward model read of the candidates that it scored last.
#[derive(Clone)]
pub enum Ahead {
    /// Each alone, directly behind what was read before.
    Tokens(Branches),
    /// Each with what it was carried on by: a prefix for each, of which one will be the text's.
    Texts(Vec<Prefix>),
}

impl Guide<'_> {
    /// Whether the guide needs the policy to look ahead over the candidates.
    pub fn needs_policy(&self) -> bool {
        match self {
            Self::Head(_) | Self::Value(_) => true,
            Self::Model { .. } | Self::Text { .. } => false,
            Self::Combined { guides, .. } => guides.iter().any(Guide::needs_policy),
        }
    }

    /// What each of several rewards said of the candidates scored last, `[rewards][candidates]`; empty where there is
    /// but one.
    pub fn parts(&self) -> &[Vec<f64>] {
        if let Self::Combined { parts, .. } = self { parts } else { &[] }
    }

    /// The most by which two of its rewards can differ, whatever the texts; `None` where there is no limit.
    pub fn span(&self) -> Option<f64> {
        match self {
            Self::Value(head) => head.bound,
            Self::Head(_) | Self::Model { .. } | Self::Text { .. } | Self::Combined { .. } => None,
        }
    }

    /// Takes in a token of the answer that was not scored: the step was skipped.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn read(&mut self, token: u32) -> Result<()> {
        match self {
            Self::Head(_) | Self::Value(_) => {}
            Self::Model { unread, ahead, .. } => {
                unread.push(token);
                *ahead = None;
            }
            Self::Text { answer, stream, .. } => answer.push_str(&stream.push(token)?),
            Self::Combined { guides, .. } => {
                guides.iter_mut().try_for_each(|guide| guide.read(token))?
            }
        }
        Ok(())
    }

    /// The candidate at `index` of those scored last was chosen, with what it was carried on by.
    ///
    /// # Errors
    /// Nothing was scored.
    pub fn commit(&mut self, index: usize) -> Result<()> {
        match self {
            Self::Head(_) | Self::Value(_) => Ok(()),
            Self::Model { prefix, ahead, .. } => {
                match ahead.take().ok_or(Error::NoTokens)? {
                    Ahead::Tokens(branches) => prefix.commit(&branches, index)?,
                    Ahead::Texts(texts) => {
                        *prefix = texts.into_iter().nth(index).ok_or(Error::NoTokens)?;
                    }
                }
                Ok(())
            }
            Self::Text { ahead, .. } => {
                let tokens = std::mem::take(ahead.get_mut(index).ok_or(Error::NoTokens)?);
                tokens.into_iter().try_for_each(|token| self.read(token))
            }
            Self::Combined { guides, .. } => guides.iter_mut().try_for_each(|guide| guide.commit(index)),
        }
    }
}

/// What a step asks: rewards of the candidates for one text's next token, or of what they were carried on to.
pub struct Question<'g, 'a> {
    /// The text's guide.
    pub guide: &'g mut Guide<'a>,
    /// The candidates, `k` of them.
    pub candidates: &'g [u32],
    /// What each was carried on by, `k` rows of any lengths, if they were: rewards are of the texts at their ends.
    pub further: &'g [Vec<u32>],
    /// The policy's hidden states of their last tokens, `[k, d]`, which guides that need it must be given.
    pub ahead: Option<&'g Tensor>,
}

impl Question<'_, '_> {
    /// What each candidate would add to the text.
    fn continuations(&self) -> Vec<Vec<u32>> {
        let further = |i: usize| self.further.get(i).map_or(&[][..], |further| further);
        let candidates = self.candidates.iter().enumerate();
        candidates.map(|(i, &candidate)| [&[candidate], further(i)].concat()).collect()
    }
}

/// Answers the questions of several texts together: rewards of each one's candidates. Guides of one reward
/// model share its forward, those of one value head its weights.
///
/// # Errors
/// The forward fails.
pub fn ask(questions: &mut [Question<'_, '_>]) -> Result<Vec<Vec<f64>>> {
    if let Some(rewards) = ask_parts(questions)? {
        return Ok(rewards);
    }
    read_on(questions)?;
    let mut reward_model = None;
    let mut segments = Vec::new();
    for question in questions.iter() {
        if let Guide::Model { model, prefix, .. } = &*question.guide
            && question.further.is_empty()
        {
            reward_model = Some(*model);
            segments.push(Segment::Branch(prefix, question.candidates));
        }
    }
    let seen = reward_model.map(|model| model.model().forward(&mut segments)).transpose()?;
    let mut seen = seen.into_iter().flatten();
    let mut read_on = continued(questions)?.into_iter();
    let mut values = values(questions)?.into_iter();
    let mut read = texts(questions)?.into_iter();
    let mut rewards = Vec::with_capacity(questions.len());
    for question in questions {
        let continuations = question.continuations();
        rewards.push(match &mut question.guide {
            Guide::Head(head) => head.score(question.ahead.ok_or(Error::NoTokens)?)?,
            Guide::Value(_) => values.by_ref().take(question.candidates.len()).collect(),
            Guide::Combined { .. } => Vec::new(),
            Guide::Text { ahead, .. } => {
                *ahead = continuations;
                read.by_ref().take(question.candidates.len()).collect()
            }
            Guide::Model { model, ahead, .. } => {
                let (read, hidden) = match question.further {
                    [] => {
                        let branches = seen.next().ok_or(Error::NoTokens)?;
                        let hidden = branches.hidden.clone();
                        (Ahead::Tokens(branches), hidden)
                    }
                    _ => {
                        let (texts, hidden) = read_on.next().ok_or(Error::NoTokens)?;
                        (Ahead::Texts(texts), hidden)
                    }
                };
                *ahead = Some(read);
                model.score(&hidden)?
            }
        });
    }
    Ok(rewards)
}

/// Reads what candidates were carried on to, for all questions to a reward model that say so: prefixes, and hidden
/// states of their last tokens, `[k, d]`.
fn continued(questions: &[Question<'_, '_>]) -> Result<Vec<(Vec<Prefix>, Tensor)>> {
    let (mut reward_model, mut read) = (None, Vec::new());
    for question in questions.iter().filter(|question| !question.further.is_empty()) {
        if let Guide::Model { model, prefix, .. } = &*question.guide {
            reward_model = Some(*model);
            let continuations = question.continuations();
            read.push((vec![prefix.clone(); continuations.len()], continuations));
        }
    }
    let Some(model) = reward_model else { return Ok(Vec::new()) };
    let texts =
        read.iter_mut().flat_map(|(prefixes, continuations)| prefixes.iter_mut().zip(continuations));
    let mut texts: Vec<_> = texts.map(|(prefix, tokens)| (prefix, &tokens[..])).collect();
    let mut last = model.model().read_all(&mut texts)?.into_iter();
    let of_question = |(prefixes, _): (Vec<Prefix>, _)| {
        let hidden: Vec<Tensor> = last.by_ref().take(prefixes.len()).collect();
        Ok((prefixes, Tensor::cat(&hidden, 0)?))
    };
    read.into_iter().map(of_question).collect()
}

/// Values of the candidates of all value heads' questions, one text behind the other.
fn values(questions: &[Question<'_, '_>]) -> Result<Vec<f64>> {
    let mut value_head = None;
    let mut hidden = Vec::new();
    for question in questions {
        if let Guide::Value(head) = &*question.guide {
            value_head = Some(*head);
            hidden.push(question.ahead.ok_or(Error::NoTokens)?);
        }
    }
    value_head.map_or_else(|| Ok(Vec::new()), |head| head.score(&Tensor::cat(&hidden, 0)?))
}

/// Rewards of the candidates of all questions to what reads text, one text behind the other. All guides of
/// a call are of one reward.
fn texts(questions: &[Question<'_, '_>]) -> Result<Vec<f64>> {
    let (mut asked, mut found) = (None, Vec::new());
    for question in questions {
        if let Guide::Text { reward, prompt, answer, stream, .. } = &*question.guide {
            asked = Some(*reward);
            for continuation in question.continuations() {
                // What only begins a character is no text yet; nor is what ends the answer.
                let (mut text, mut stream) = (answer.clone(), stream.clone());
                for token in continuation {
                    text.push_str(&stream.push(token)?);
                }
                found.push((*prompt, text));
            }
        }
    }
    let exchanges: Vec<_> = found.iter().map(|(prompt, answer)| Exchange { prompt, answer }).collect();
    asked.map_or_else(|| Ok(Vec::new()), |reward| reward.score(&exchanges))
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
