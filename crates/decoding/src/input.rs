//! What rewards are asked about a sequence, and what they answer.

use stackelberg_engine::Tensor;
use stackelberg_engine::reward::{Question, RewardState};

use crate::choice::Unscored;
use crate::score::Score;
use crate::scorer::Scorer;

/// What rewards are asked about a sequence.
#[derive(Default)]
pub(crate) struct Asked {
    /// Of candidates.
    pub(crate) inputs: Vec<Input>,
    /// Of texts that no state can score, and what reads them as a whole.
    pub(crate) texts: Option<(Scorer, Vec<Unscored>)>,
}

/// What rewards answer.
#[derive(Default)]
pub(crate) struct Answers {
    /// The rewards of the candidates of each input.
    pub(crate) inputs: Vec<(Input, Vec<f64>)>,
    /// The scores of the texts.
    pub(crate) texts: Vec<Score>,
}

/// What a reward is asked, with its state: everything is owned, so that it can be asked elsewhere.
pub(crate) struct Input {
    pub(crate) state: RewardState,
    pub(crate) candidates: Vec<u32>,
    pub(crate) further: Vec<Vec<u32>>,
    pub(crate) ahead: Option<Tensor>,
}

impl Asked {
    /// Whether the answer takes long, since something outside of this process gives it.
    pub(crate) fn is_remote(&self) -> bool {
        self.inputs.iter().any(|input| input.state.is_remote())
            || self.texts.as_ref().is_some_and(|(scorer, _)| scorer.is_remote())
    }

    /// Tokens that are to be scored.
    pub(crate) fn tokens(&self) -> usize {
        let further = |input: &Input| input.further.iter().map(Vec::len).sum::<usize>();
        let inputs: usize =
            self.inputs.iter().map(|input| input.candidates.len() + further(input)).sum();
        let texts = self.texts.iter().flat_map(|(_, texts)| texts);
        inputs + texts.map(|text| text.tokens.len()).sum::<usize>()
    }
}

impl Input {
    pub(crate) fn question(&mut self) -> Question<'_> {
        let Self { state, candidates, further, ahead } = self;
        Question { state, candidates, further, ahead: ahead.as_ref() }
    }
}
