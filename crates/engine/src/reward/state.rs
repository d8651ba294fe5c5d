//! Guides: the state of a reward for one sequence during decoding.

use candle_core::Tensor;

use super::causal::RewardModel;
use super::combination::Combination;
use super::head::Head;
use super::text::{Exchange, TextReward};
use super::value::ValueHead;
use crate::cache::{Branches, Prefix};
use crate::chat::Prompt;
use crate::error::{Error, Result};
use crate::model::Segment;
use crate::tokenizer::TextStream;

/// The state of a reward for one sequence. [`ask`] scores candidates, [`RewardState::commit`] appends the chosen one, and
/// [`RewardState::read`] appends a token that was not scored.
#[derive(Clone)]
pub enum RewardState<'a> {
    /// Scores the policy's hidden states of the candidates.
    Head(&'a Head),
    /// Estimates the shaped reward of the finished answer from the policy's hidden states of the candidates.
    Value(&'a ValueHead),
    /// Runs a reward model on the candidates.
    Model {
        /// The reward model.
        model: &'a RewardModel,
        /// The prefix that the reward model has prefilled.
        prefix: Prefix,
        /// Tokens of the sequence that are not in the prefix yet.
        unread: Vec<u32>,
        /// State after the candidates that were scored last.
        ahead: Option<Ahead>,
    },
    /// Scores the text of each candidate.
    Text {
        /// The reward.
        reward: &'a TextReward,
        /// The prompt.
        prompt: &'a Prompt,
        /// The answer so far.
        answer: String,
        /// Decoder from tokens to text.
        stream: TextStream<'a>,
        /// The candidates that were scored last, each with its continuation.
        ahead: Vec<Vec<u32>>,
    },
    /// Combines several rewards.
    Combined {
        /// The expression that combines them.
        combination: &'a Combination,
        /// One guide for each reward.
        guides: Vec<RewardState<'a>>,
        /// Rewards of the candidates that were scored last, `[rewards][candidates]`.
        parts: Vec<Vec<f64>>,
    },
}

/// The state of a reward model after the candidates that it scored last.
#[derive(Clone)]
pub enum Ahead {
    /// Single tokens after the common prefix.
    Tokens(Branches),
    /// Candidates with continuations: one prefix for each candidate.
    Texts(Vec<Prefix>),
}

impl RewardState<'_> {
    /// Whether the guide needs the policy's hidden states of the candidates.
    pub fn needs_policy(&self) -> bool {
        match self {
            Self::Head(_) | Self::Value(_) => true,
            Self::Model { .. } | Self::Text { .. } => false,
            Self::Combined { guides, .. } => guides.iter().any(RewardState::needs_policy),
        }
    }

    /// For a combination, the rewards of the candidates that were scored last, `[rewards][candidates]`; else empty.
    pub fn parts(&self) -> &[Vec<f64>] {
        if let Self::Combined { parts, .. } = self { parts } else { &[] }
    }

    /// The maximum difference between two rewards of this guide; `None` if there is no known limit.
    pub fn span(&self) -> Option<f64> {
        match self {
            Self::Value(head) => head.bound,
            Self::Head(_) | Self::Model { .. } | Self::Text { .. } | Self::Combined { .. } => None,
        }
    }

    /// Appends a token of the answer that was not scored, because guidance was skipped at this step.
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

    /// Appends the candidate with this index among those scored last, including its continuation.
    ///
    /// # Errors
    /// No candidates were scored, or there is no such candidate.
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

/// Candidates of one sequence to be scored.
pub struct Question<'g, 'a> {
    /// The guide of the sequence.
    pub guide: &'g mut RewardState<'a>,
    /// The candidates for the next token, `k` of them.
    pub candidates: &'g [u32],
    /// Continuations of the candidates, `k` rows of any lengths, or none. With continuations, the rewards are those of
    /// the texts at their ends.
    pub further: &'g [Vec<u32>],
    /// The policy's hidden states of the last token of each candidate, `[k, d]`. Guides that need the policy must get
    /// them, see [`RewardState::needs_policy`].
    pub ahead: Option<&'g Tensor>,
}

/// Each candidate with its continuation.
fn continuations(candidates: &[u32], further: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let further = |i: usize| further.get(i).map_or(&[][..], |further| further);
    let candidates = candidates.iter().enumerate();
    candidates.map(|(i, &candidate)| [&[candidate], further(i)].concat()).collect()
}

/// Rewards of the candidates of several sequences, `[questions][candidates]`. All guides of one call must be of the same
/// reward, so that they share its forward passes.
///
/// # Errors
/// A forward pass fails, or the policy's hidden states are missing.
pub fn ask(questions: &mut [Question<'_, '_>]) -> Result<Vec<Vec<f64>>> {
    if let Some(rewards) = ask_parts(questions)? {
        return Ok(rewards);
    }
    read_on(questions)?;
    let mut reward_model = None;
    let mut segments = Vec::new();
    for question in questions.iter() {
        if let RewardState::Model { model, prefix, .. } = &*question.guide
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
            RewardState::Head(head) => head.score(question.ahead.ok_or(Error::NoTokens)?)?,
            RewardState::Value(_) => values.by_ref().take(question.candidates.len()).collect(),
            RewardState::Combined { .. } => Vec::new(),
            RewardState::Text { ahead, .. } => {
                *ahead = continuations(question.candidates, question.further);
                read.by_ref().take(question.candidates.len()).collect()
            }
            RewardState::Model { model, ahead, .. } => {
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

/// Runs a reward model on candidates with continuations. Returns, for each question that has them, the prefixes and the
/// hidden states of their last tokens, `[k, d]`.
fn continued(questions: &[Question<'_, '_>]) -> Result<Vec<(Vec<Prefix>, Tensor)>> {
    let (mut reward_model, mut read) = (None, Vec::new());
    for question in questions.iter().filter(|question| !question.further.is_empty()) {
        if let RewardState::Model { model, prefix, .. } = &*question.guide {
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

/// Values of the candidates of all questions to a value head, concatenated.
fn values(questions: &[Question<'_, '_>]) -> Result<Vec<f64>> {
    let mut value_head = None;
    let mut hidden = Vec::new();
    for question in questions {
        if let RewardState::Value(head) = &*question.guide {
            value_head = Some(*head);
            hidden.push(question.ahead.ok_or(Error::NoTokens)?);
        }
    }
    value_head.map_or_else(|| Ok(Vec::new()), |head| head.score(&Tensor::cat(&hidden, 0)?))
}

/// Rewards of the candidates of all questions to a reward that reads text, concatenated.
fn texts(questions: &[Question<'_, '_>]) -> Result<Vec<f64>> {
    let (mut asked, mut found) = (None, Vec::new());
    for question in questions {
        if let RewardState::Text { reward, prompt, answer, stream, .. } = &*question.guide {
            asked = Some(*reward);
            for continuation in continuations(question.candidates, question.further) {
                // The stream holds back incomplete characters.
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

/// Prefills the reward model with tokens that were not scored: the prompt, and tokens of skipped steps.
fn read_on(questions: &mut [Question<'_, '_>]) -> Result<()> {
    let mut reward_model = None;
    let mut texts = Vec::new();
    for question in questions.iter_mut() {
        if let RewardState::Model { model, prefix, unread, .. } = question.guide
            && !unread.is_empty()
        {
            reward_model = Some(*model);
            texts.push((prefix, &unread[..]));
        }
    }
    let Some(model) = reward_model else { return Ok(()) };
    model.model().read_all(&mut texts)?;
    for question in questions {
        if let RewardState::Model { unread, .. } = question.guide {
            unread.clear();
        }
    }
    Ok(())
}

/// Rewards of combinations; `None` if the guides are not combinations. Each part is asked for all sequences together.
fn ask_parts(questions: &mut [Question<'_, '_>]) -> Result<Option<Vec<Vec<f64>>>> {
    let parts = match questions.first().map(|question| &*question.guide) {
        Some(RewardState::Combined { guides, .. }) => guides.len(),
        _ => return Ok(None),
    };
    let mut said = vec![Vec::with_capacity(parts); questions.len()];
    for part in 0..parts {
        let mut asked = Vec::with_capacity(questions.len());
        for Question { guide, candidates, further, ahead } in questions.iter_mut() {
            if let RewardState::Combined { guides, .. } = &mut **guide {
                let guide = &mut guides[part];
                asked.push(Question { guide, candidates, further, ahead: *ahead });
            }
        }
        said.iter_mut().zip(ask(&mut asked)?).for_each(|(said, rewards)| said.push(rewards));
    }
    let whole = questions.iter_mut().zip(said).map(|(question, said)| match &mut *question.guide {
        RewardState::Combined { combination, parts, .. } => {
            *parts = said;
            combination.of_texts(parts)
        }
        _ => Vec::new(),
    });
    Ok(Some(whole.collect()))
}
