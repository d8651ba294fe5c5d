//! Several rewards at once: each is asked as if it were alone, and what they say is put together.

use super::{Combination, Guide, Question, Reward, ask};
use crate::error::Result;

/// Rewards that make up one.
pub struct Combined {
    combination: Combination,
    /// One for each name.
    rewards: Vec<Reward>,
}

impl Combined {
    /// Rewards, one for each of the combination's names.
    ///
    /// # Panics
    /// If there is another number of them.
    pub fn new(combination: Combination, rewards: Vec<Reward>) -> Self {
        assert_eq!(combination.names().len(), rewards.len(), "a combination has a reward for each name");
        Self { combination, rewards }
    }

    /// How they are put together.
    pub fn combination(&self) -> &Combination {
        &self.combination
    }

    /// The rewards, in the order of the combination's names.
    pub fn rewards(&self) -> &[Reward] {
        &self.rewards
    }

    /// What whole texts are worth, of what each of the rewards says: `parts[reward][text]`.
    pub fn of(&self, parts: &[Vec<f64>]) -> Vec<f64> {
        let texts = 0..parts[0].len();
        let of_text = |text| parts.iter().map(|part| part[text]).collect::<Vec<_>>();
        texts.map(|text| self.combination.of(&of_text(text))).collect()
    }
}

/// Answers the questions to guides that are made of several, if these are such: every part is asked for all of them
/// together.
pub(super) fn ask_parts(questions: &mut [Question<'_, '_>]) -> Result<Option<Vec<Vec<f64>>>> {
    let parts = match questions.first().map(|question| &*question.guide) {
        Some(Guide::Combined { guides, .. }) => guides.len(),
        _ => return Ok(None),
    };
    let mut said = vec![Vec::with_capacity(parts); questions.len()];
    for part in 0..parts {
        let mut asked = Vec::with_capacity(questions.len());
        for Question { guide, candidates, further, ahead } in questions.iter_mut() {
            if let Guide::Combined { guides, .. } = &mut **guide {
                let guide = &mut guides[part];
                asked.push(Question { guide, candidates, further, ahead: *ahead });
            }
        }
        said.iter_mut().zip(ask(&mut asked)?).for_each(|(said, rewards)| said.push(rewards));
    }
    let whole = questions.iter_mut().zip(said).map(|(question, said)| match &mut *question.guide {
        Guide::Combined { combined, parts, .. } => {
            *parts = said;
            combined.of(parts)
        }
        _ => Vec::new(),
    });
    Ok(Some(whole.collect()))
}
