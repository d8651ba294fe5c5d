//! Asks rewards about candidates, for many sequences together.

use candle_core::Tensor;

use super::state::{Ahead, RewardState};
use super::text::Exchange;
use crate::cache::Prefix;
use crate::error::{Error, Result};
use crate::model::Segment;

/// Candidates of one sequence to be scored.
pub struct Question<'g> {
    /// The reward's state for the sequence.
    pub state: &'g mut RewardState,
    /// The candidates for the next token, `k` of them.
    pub candidates: &'g [u32],
    /// Continuations of the candidates, `k` rows of any lengths, or none. With continuations, the rewards are those of
    /// the texts at their ends.
    pub further: &'g [Vec<u32>],
    /// The policy's hidden states of the last token of each candidate, `[k, d]`. Rewards that need the policy must get
    /// them, see [`RewardState::needs_policy`].
    pub ahead: Option<&'g Tensor>,
}

/// Each candidate with its continuation.
fn continuations(candidates: &[u32], further: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let further = |i: usize| further.get(i).map_or(&[][..], |further| further);
    let candidates = candidates.iter().enumerate();
    candidates.map(|(i, &candidate)| [&[candidate], further(i)].concat()).collect()
}

/// Rewards of the candidates of several sequences, `[questions][candidates]`. Sequences with the same reward share its
/// forward passes. If a shared pass fails, each of them is asked alone, so that one sequence's error is not another's.
///
/// # Errors
/// Of one question: a forward pass fails, the scorer fails, or the policy's hidden states are missing.
pub fn ask(questions: &mut [Question<'_>]) -> Vec<Result<Vec<f64>>> {
    let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
    for (index, question) in questions.iter().enumerate() {
        let identity = question.state.identity();
        match groups.iter_mut().find(|(known, _)| *known == identity) {
            Some((_, members)) => members.push(index),
            None => groups.push((identity, vec![index])),
        }
    }
    let mut rewards: Vec<Result<Vec<f64>>> = questions.iter().map(|_| Err(Error::NoTokens)).collect();
    let mut waiting: Vec<Option<&mut Question<'_>>> = questions.iter_mut().map(Some).collect();
    for (_, members) in groups {
        let mut group: Vec<Question<'_>> =
            members.iter().filter_map(|&index| Some(waiting[index].take()?.again())).collect();
        match ask_group(&mut group) {
            Ok(found) => {
                members.iter().zip(found).for_each(|(&index, found)| rewards[index] = Ok(found))
            }
            Err(error) if members.len() == 1 => rewards[members[0]] = Err(error),
            Err(_) => {
                for (&index, question) in members.iter().zip(&mut group) {
                    let alone = ask_group(std::slice::from_mut(question));
                    rewards[index] = alone.map(|mut found| found.pop().unwrap_or_default());
                }
            }
        }
    }
    rewards
}

impl<'g> Question<'g> {
    /// The same question, for a shorter time.
    fn again(&mut self) -> Question<'_> {
        let Self { state, candidates, further, ahead } = self;
        Question { state, candidates, further, ahead: *ahead }
    }
}

/// Rewards of the candidates of sequences that share a reward.
fn ask_group(questions: &mut [Question<'_>]) -> Result<Vec<Vec<f64>>> {
    if let Some(rewards) = ask_parts(questions)? {
        return Ok(rewards);
    }
    read_on(questions)?;
    let mut reward_model = None;
    let mut segments = Vec::new();
    for question in questions.iter() {
        if let RewardState::Model { model, prefix, .. } = &*question.state
            && question.further.is_empty()
        {
            reward_model = Some(model.clone());
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
        rewards.push(match &mut question.state {
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
fn continued(questions: &[Question<'_>]) -> Result<Vec<(Vec<Prefix>, Tensor)>> {
    let (mut reward_model, mut read) = (None, Vec::new());
    for question in questions.iter().filter(|question| !question.further.is_empty()) {
        if let RewardState::Model { model, prefix, .. } = &*question.state {
            reward_model = Some(model.clone());
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
fn values(questions: &[Question<'_>]) -> Result<Vec<f64>> {
    let mut value_head = None;
    let mut hidden = Vec::new();
    for question in questions {
        if let RewardState::Value(head) = &*question.state {
            value_head = Some(head.clone());
            hidden.push(question.ahead.ok_or(Error::NoTokens)?);
        }
    }
    value_head.map_or_else(|| Ok(Vec::new()), |head| head.score(&Tensor::cat(&hidden, 0)?))
}

/// Rewards of the candidates of all questions to a reward that reads text, concatenated.
fn texts(questions: &[Question<'_>]) -> Result<Vec<f64>> {
    let (mut asked, mut found) = (None, Vec::new());
    for question in questions {
        if let RewardState::Text { reward, prompt, answer, stream, .. } = &*question.state {
            asked = Some(reward.clone());
            for continuation in continuations(question.candidates, question.further) {
                // The stream holds back incomplete characters.
                let (mut text, mut stream) = (answer.clone(), stream.clone());
                for token in continuation {
                    text.push_str(&stream.push(token)?);
                }
                found.push((prompt.clone(), text));
            }
        }
    }
    let exchanges: Vec<_> =
        found.iter().map(|(prompt, answer)| Exchange { prompt, answer: answer.as_str() }).collect();
    asked.map_or_else(|| Ok(Vec::new()), |reward| reward.score(&exchanges))
}

/// Prefills the reward model with tokens that were not scored: the prompt, and tokens of skipped steps.
fn read_on(questions: &mut [Question<'_>]) -> Result<()> {
    let mut reward_model = None;
    let mut texts = Vec::new();
    for question in questions.iter_mut() {
        if let RewardState::Model { model, prefix, unread, .. } = question.state
            && !unread.is_empty()
        {
            reward_model = Some(model.clone());
            texts.push((prefix, &unread[..]));
        }
    }
    let Some(model) = reward_model else { return Ok(()) };
    model.model().read_all(&mut texts)?;
    for question in questions {
        if let RewardState::Model { unread, .. } = question.state {
            unread.clear();
        }
    }
    Ok(())
}

/// Rewards of combinations; `None` if the rewards are not combinations. Each part is asked for all sequences together.
fn ask_parts(questions: &mut [Question<'_>]) -> Result<Option<Vec<Vec<f64>>>> {
    let parts = match questions.first().map(|question| &*question.state) {
        Some(RewardState::Combined { states, .. }) => states.len(),
        _ => return Ok(None),
    };
    let mut said = vec![Vec::with_capacity(parts); questions.len()];
    for part in 0..parts {
        let mut asked = Vec::with_capacity(questions.len());
        for Question { state, candidates, further, ahead } in questions.iter_mut() {
            if let RewardState::Combined { states, .. } = &mut **state {
                let state = &mut states[part];
                asked.push(Question { state, candidates, further, ahead: *ahead });
            }
        }
        let rewards = ask_group(&mut asked)?;
        said.iter_mut().zip(rewards).for_each(|(said, rewards)| said.push(rewards));
    }
    let whole = questions.iter_mut().zip(said).map(|(question, said)| match &mut *question.state {
        RewardState::Combined { combination, parts, .. } => {
            *parts = said;
            combination.of_texts(parts)
        }
        _ => Vec::new(),
    });
    Ok(Some(whole.collect()))
}
