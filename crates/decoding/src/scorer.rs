//! What scores the texts of blocks.

use std::sync::Arc;

use stackelberg_engine::Reward;
use stackelberg_shaping::Rule;

use crate::choice::{Unscored, last_states, scores};
use crate::error::{Error, Result};
use crate::policy::Policy;
use crate::request::Request;
use crate::score::Score;

/// Scores texts that the incremental state cannot score.
#[derive(Clone)]
pub(crate) struct Scorer {
    pub(crate) policy: Arc<Policy>,
    pub(crate) request: Arc<Request>,
}

impl Scorer {
    /// Whether a value head scores.
    pub(crate) fn by_value(&self) -> bool {
        self.request.block_value().is_some()
    }

    /// Whether scoring waits for something outside of this process.
    pub(crate) fn is_remote(&self) -> bool {
        match self.by_value() {
            true => self.policy.server().is_some(),
            false => self.request.reward.as_ref().is_some_and(|reward| self.policy.waits_for(reward)),
        }
    }

    /// Whether scores are rewards, or values of unshaped rewards: these are shaped. Values of shaped rewards are not.
    pub(crate) fn shapes(&self) -> bool {
        let rule = self.request.block_value().and_then(|value| value.shaping.as_deref());
        rule.is_none_or(|rule| rule == Rule::Raw.name())
    }

    /// The scores of answers, read as a whole.
    ///
    /// # Errors
    /// The reward fails, or nothing gives the hidden states that it reads.
    pub(crate) fn whole(&self, answers: &[Unscored]) -> Result<Vec<Score>> {
        let prompt = &self.request.prompt[..];
        if let Some(value) = self.request.block_value() {
            let last = last_states(&self.policy, prompt, answers)?;
            return last.iter().map(|hidden| Ok(Score::from(value.score(hidden)?[0]))).collect();
        }
        let reward: &Reward =
            self.request.reward.as_ref().ok_or(Error::NoReward(self.request.settings.method.name()))?;
        scores(&self.policy, reward, (prompt, self.request.asked.as_deref()), answers)
    }
}
