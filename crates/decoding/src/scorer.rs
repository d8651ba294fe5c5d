//! What scores the texts of blocks.

use std::sync::Arc;

use stackelberg_engine::{Error as EngineError, Reward, Tensor};
use stackelberg_shaping::Rule;

use crate::choice::{Unscored, scores};
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
        !self.by_value() && self.request.reward.as_ref().is_some_and(Reward::is_remote)
    }

    /// Whether scores are rewards, or values of unshaped rewards: these are shaped. Values of shaped rewards are not.
    pub(crate) fn shapes(&self) -> bool {
        let rule = self.request.block_value().and_then(|value| value.shaping.as_deref());
        rule.is_none_or(|rule| rule == Rule::Raw.name())
    }

    /// The score of an answer, read as a whole.
    pub(crate) fn whole(&self, tokens: &[u32], last: Option<Tensor>) -> Result<Score> {
        let prompt = &self.request.prompt;
        if let Some(value) = self.request.block_value() {
            let hidden = match last {
                Some(hidden) => hidden,
                None => {
                    let text = [&prompt[..], tokens].concat();
                    let policy = self.policy.local().ok_or(EngineError::NoHiddenStates)?;
                    let (_, hidden) = policy.model.prefill(&text)?;
                    hidden.narrow(0, text.len() - 1, 1).map_err(EngineError::from)?
                }
            };
            return Ok(Score::from(value.score(&hidden)?[0]));
        }
        let reward: &Reward =
            self.request.reward.as_ref().ok_or(Error::NoReward(self.request.settings.method.name()))?;
        let unscored = Unscored { tokens: tokens.to_vec(), known: None, last };
        let asked = (&prompt[..], self.request.asked.as_deref());
        let mut found = scores(&self.policy, reward, asked, &[unscored])?;
        Ok(found.pop().unwrap_or_default())
    }
}
