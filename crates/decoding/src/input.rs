//! What a reward is asked about a sequence.

use stackelberg_engine::Tensor;
use stackelberg_engine::reward::{Question, RewardState};

/// What a reward is asked, with its state: everything is owned, so that it can be asked elsewhere.
pub(crate) struct Input {
    pub(crate) state: RewardState,
    pub(crate) candidates: Vec<u32>,
    pub(crate) further: Vec<Vec<u32>>,
    pub(crate) ahead: Option<Tensor>,
}

impl Input {
    /// Tokens that are to be scored, continuations included.
    pub(crate) fn tokens(&self) -> usize {
        self.candidates.len() + self.further.iter().map(Vec::len).sum::<usize>()
    }

    pub(crate) fn question(&mut self) -> Question<'_> {
        let Self { state, candidates, further, ahead } = self;
        Question { state, candidates, further, ahead: ahead.as_ref() }
    }
}
