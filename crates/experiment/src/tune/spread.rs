//! How far a reward tells texts apart that continue the same text.

use std::collections::BTreeMap;
use std::fmt;

use stackelberg_data::trace::{self, Scores, TraceStep};
use stackelberg_decoding::Method;
use stackelberg_evaluation::compare::mean;

use super::trial::Trial;
use crate::error::Result;

/// Rewards that differ by less than this, relative to their size, are equal: they differ by rounding.
const ROUNDING: f64 = 1e-9;

/// What continues a text, from short to long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Choice {
    /// Candidates for the next token.
    Tokens,
    /// Blocks of so many tokens.
    Blocks(usize),
    /// Whole answers.
    Answers,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens => f.write_str("candidates for the next token"),
            Self::Blocks(tokens) => write!(f, "blocks of {tokens} tokens"),
            Self::Answers => f.write_str("whole answers"),
        }
    }
}

/// The spread of the reward over texts that continue the same text.
#[derive(Debug, Clone, PartialEq)]
pub struct Spread {
    /// What continues it.
    pub of: Choice,
    /// The standard deviation of the rewards, in reward units, averaged over the choices.
    pub deviation: f64,
    /// The number of choices.
    pub choices: usize,
}

/// Measures the spread over the candidates of ARGS, the blocks of `blockwise` and the answers of best-of-n, from the traces
/// of the runs.
pub(super) fn measure(trials: &[Trial]) -> Result<Vec<Spread>> {
    let mut found: BTreeMap<Choice, Vec<f64>> = BTreeMap::new();
    for trial in trials {
        let settings = &trial.setting.settings;
        let of = match settings.method {
            Method::Args if settings.score_every == 1 => Choice::Tokens,
            Method::Blockwise => Choice::Blocks(settings.block),
            Method::BestOfN => Choice::Answers,
            _ => continue,
        };
        for run in &trial.runs {
            let (steps, _) = trace::read(&run.folder.join("trace.jsonl"))?;
            let deviations = steps.values().flatten().filter_map(|step| deviation(rewards(of, step)?));
            found.entry(of).or_default().extend(deviations);
        }
    }
    let spread =
        |(of, found): (Choice, Vec<f64>)| Spread { of, deviation: mean(&found), choices: found.len() };
    Ok(found.into_iter().filter(|(_, found)| !found.is_empty()).map(spread).collect())
}

/// The rewards of what a step chooses among, if it has them.
fn rewards(of: Choice, step: &TraceStep) -> Option<&[f64]> {
    match (of, &step.scores) {
        (Choice::Tokens, Scores::Rewards { rewards, .. }) => rewards.as_deref(),
        (Choice::Tokens, Scores::Values { .. }) => None,
        (Choice::Blocks(_) | Choice::Answers, _) => Some(&step.block.as_ref()?.scores),
    }
}

/// The standard deviation (with n - 1); `None` for fewer than two rewards. Rounding counts as zero.
fn deviation(rewards: &[f64]) -> Option<f64> {
    let mean = mean(rewards);
    let squares: f64 = rewards.iter().map(|reward| (reward - mean).powi(2)).sum();
    let deviation = (squares / (rewards.len() as f64 - 1.0)).sqrt();
    let size = rewards.iter().fold(0.0, |size: f64, reward| size.max(reward.abs()));
    (rewards.len() > 1).then_some(if deviation > ROUNDING * size { deviation } else { 0.0 })
}

/// Whether a reward that tells nothing apart can guide, as a sentence.
pub(super) fn doubt(spreads: &[Spread]) -> Option<String> {
    let flat: Vec<String> = spreads
        .iter()
        .filter(|spread| spread.deviation == 0.0)
        .map(|spread| spread.of.to_string())
        .collect();
    match flat.len() {
        0 => None,
        all if all == spreads.len() => Some(
            "the reward is the same for all texts that continue the same text: it cannot guide"
                .to_owned(),
        ),
        _ => Some(format!(
            "the reward is the same for all {}: methods that choose among these cannot use it",
            flat.join(" and all ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_no_spread() {
        assert_eq!(deviation(&[1.0, 3.0]), Some(2.0f64.sqrt()));
        assert_eq!(deviation(&[0.1 + 0.2, 0.3, 0.3]), Some(0.0));
        assert_eq!(deviation(&[0.0, 0.0]), Some(0.0));
        assert_eq!(deviation(&[1.0]), None);
        assert_eq!(deviation(&[]), None);
    }

    #[test]
    fn a_reward_that_tells_nothing_apart_is_doubted() {
        let spread = |of, deviation| Spread { of, deviation, choices: 10 };
        let (tokens, answers) = (Choice::Tokens, Choice::Answers);
        assert_eq!(doubt(&[spread(tokens, 0.1), spread(answers, 1.0)]), None);
        let some = doubt(&[spread(tokens, 0.0), spread(Choice::Blocks(16), 0.0), spread(answers, 1.0)]);
        let words = "all candidates for the next token and all blocks of 16 tokens:";
        assert!(some.as_deref().is_some_and(|some| some.contains(words)), "{some:?}");
        let all = doubt(&[spread(tokens, 0.0), spread(answers, 0.0)]);
        assert!(all.as_deref().is_some_and(|all| all.ends_with("it cannot guide")), "{all:?}");
        assert!(Choice::Tokens < Choice::Blocks(1) && Choice::Blocks(99) < Choice::Answers);
    }
}
