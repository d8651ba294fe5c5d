//! A sequence with what the local model and the reward have prefilled of it.

use stackelberg_engine::model::Segment;
use stackelberg_engine::reward::RewardState;
use stackelberg_engine::{Branches, Error as EngineError, Prefix, Tensor};

use crate::error::Result;
use crate::policy::Drawn;
use crate::sequence::{Said, Sequence};

/// A sequence under way. A clone shares the memory of the common tokens.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) sequence: Sequence,
    pub(crate) prefix: Prefix,
    /// Hidden state of the last token of the prefix, `[1, d]`.
    pub(crate) hidden: Tensor,
    /// The state of what guides, if something does.
    pub(crate) state: Option<RewardState>,
    /// The policy's forward pass of the candidates, if the reward needs it.
    pub(crate) ahead: Option<Branches>,
    pub(crate) pending: Pending,
}

/// What a line waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pending {
    /// Its logits: everything is prefilled.
    Logits,
    /// The forward pass of a token that was chosen.
    Token(u32),
    /// Rewards of its candidates, and the policy's look ahead at them where the reward needs it.
    Rewards,
    /// Rewards that are computed off the loop.
    Remote,
    /// A server that runs the policy.
    Policy,
    /// Its continuations.
    Paths,
    /// The look ahead at its last token: a continuation whose segment is complete.
    End(u32),
    /// Nothing: it is finished, or its segment is.
    Nothing,
}

impl Line {
    /// What has to be run through the policy, if something has to.
    pub(crate) fn segment(&mut self) -> Option<Segment<'_>> {
        let Self { sequence, prefix, state, pending, ahead, .. } = self;
        match pending {
            Pending::Token(token) => Some(Segment::Read(prefix, std::slice::from_ref(token))),
            Pending::End(token) if ahead.is_none() => {
                Some(Segment::Branch(prefix, std::slice::from_ref(token)))
            }
            Pending::Rewards if ahead.is_none() => {
                let needed = state.as_ref().is_some_and(RewardState::needs_policy);
                let turn = sequence.turn().filter(|_| needed)?;
                Some(Segment::Branch(prefix, &turn.candidates))
            }
            _ => None,
        }
    }

    /// Waits for the forward pass of a token that was chosen, if it is to be run: a last token is with `read_last`, unless it
    /// ended the answer without being part of it.
    pub(crate) fn read_next(&mut self, token: u32, read_last: bool) {
        self.pending = match self.goes_on(read_last) {
            true => Pending::Token(token),
            false => Pending::Nothing,
        };
    }

    /// Appends what a server drew, up to the end of the answer; `ended` says that the text ends there. Returns the steps.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub(crate) fn draw(&mut self, tokens: Vec<Drawn>, ended: bool) -> Result<Vec<Said>> {
        let sequence = &mut self.sequence;
        let mut said = Vec::with_capacity(tokens.len());
        for drawn in tokens {
            if sequence.answer.finish.is_none() {
                said.push(sequence.draw(drawn)?);
            }
        }
        if ended && sequence.answer.finish.is_none() {
            let rest = sequence.answer.end();
            if let Some((_, text)) = said.last_mut() {
                text.push_str(&rest);
            }
        }
        self.pending = match sequence.answer.finish {
            Some(_) => Pending::Nothing,
            None => Pending::Logits,
        };
        Ok(said)
    }

    /// Whether the last token is to be run.
    pub(crate) fn goes_on(&self, read_last: bool) -> bool {
        self.sequence.answer.finish.is_none() || read_last && self.sequence.kept_last()
    }

    /// Takes in the forward pass of [`Line::segment`].
    pub(crate) fn run(&mut self, branches: Branches) {
        match self.pending {
            Pending::Token(_) => {
                self.hidden = branches.hidden;
                self.pending = match self.sequence.answer.finish {
                    Some(_) => Pending::Nothing,
                    None => Pending::Logits,
                };
            }
            _ => self.ahead = Some(branches),
        }
    }

    /// The hidden states `[k, d]` that the candidates are scored by, where the policy looked ahead at them. A value head was
    /// trained on the tokens of answers, which an end-of-text token is not part of: such a candidate is scored by the state
    /// of the last token before it.
    pub(crate) fn states_ahead(&self, candidates: &[u32]) -> Result<Option<Tensor>> {
        let Some(Branches { hidden, .. }) = &self.ahead else { return Ok(None) };
        let ends = |token: &u32| self.sequence.answer.is_ended_by(*token);
        if !self.is_guided_by_value() || !candidates.iter().any(ends) {
            return Ok(Some(hidden.clone()));
        }
        let row = |(i, token): (usize, &u32)| match ends(token) {
            true => Ok(self.hidden.clone()),
            false => hidden.narrow(0, i, 1),
        };
        let rows = candidates.iter().enumerate().map(row);
        let rows: Vec<Tensor> =
            rows.collect::<std::result::Result<_, _>>().map_err(EngineError::from)?;
        Ok(Some(Tensor::cat(&rows, 0).map_err(EngineError::from)?))
    }

    /// The hidden state `[1, d]` that the end of this continuation is scored by, where the policy looked ahead at its last
    /// token. As with [`Line::states_ahead`], values do not read an end-of-text token.
    pub(crate) fn state_at_end(&self, by_value: bool) -> Option<&Tensor> {
        let Branches { hidden, .. } = self.ahead.as_ref()?;
        let last = self.sequence.last_token().filter(|_| by_value);
        let is_ended = last.is_some_and(|token| self.sequence.answer.is_ended_by(token));
        Some(if is_ended { &self.hidden } else { hidden })
    }

    /// Whether a value head scores candidates.
    pub(crate) fn is_guided_by_value(&self) -> bool {
        matches!(self.state, Some(RewardState::Value(_)))
    }

    /// Makes a candidate of the look ahead part of the prefix; whether there was a look ahead.
    pub(crate) fn commit(&mut self, index: usize) -> Result<bool> {
        let Some(branches) = self.ahead.take() else { return Ok(false) };
        self.prefix.commit(&branches, index)?;
        self.hidden = branches.hidden.narrow(0, index, 1).map_err(EngineError::from)?;
        Ok(true)
    }

    /// The hidden state of the last token as numbers, `[d]`.
    pub(crate) fn hidden_row(&self) -> Result<Vec<f32>> {
        let row = self.hidden.flatten_all().and_then(|row| row.to_vec1::<f32>());
        Ok(row.map_err(EngineError::from)?)
    }
}
