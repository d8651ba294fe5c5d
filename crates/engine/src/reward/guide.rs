//! How a reward goes along with a text: it is asked about candidates, and told which one was chosen.

use candle_core::Tensor;

use super::combined::{Combined, ask_parts};
use super::{Exchange, Head, RewardModel, TextReward, ValueHead};
use crate::cache::{Branches, Prefix};
use crate::chat::Prompt;
use crate::error::{Error, Result};
use crate::model::Segment;
use crate::tokenizer::TextStream;

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

/// What each candidate would add to the text.
fn continuations(candidates: &[u32], further: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let further = |i: usize| further.get(i).map_or(&[][..], |further| further);
    let candidates = candidates.iter().enumerate();
    candidates.map(|(i, &candidate)| [&[candidate], further(i)].concat()).collect()
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
        rewards.push(match &mut question.guide {
            Guide::Head(head) => head.score(question.ahead.ok_or(Error::NoTokens)?)?,
            Guide::Value(_) => values.by_ref().take(question.candidates.len()).collect(),
            Guide::Combined { .. } => Vec::new(),
            Guide::Text { ahead, .. } => {
                *ahead = continuations(question.candidates, question.further);
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
            let continuations = continuations(question.candidates, question.further);
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
            for continuation in continuations(question.candidates, question.further) {
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
