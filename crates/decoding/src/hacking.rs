//! The hacking watch: does the text still read like the policy's, or has the reward taken over?
//!
//! It looks at each step and speaks up once when something begins to go wrong, over the last [`HackingWatch::WINDOW`]
//! steps: when guidance leaves no choice where the base policy would have one, when the text repeats itself, when its
//! tokens are far less likely than those that the base policy would have chosen.

use std::collections::{HashSet, VecDeque};
use std::fmt;

use crate::sample::masses;
use crate::settings::Settings;
use crate::step::Step;

/// What began to go wrong, with the figure that says so, over the last steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Alarm {
    /// Effective number of candidates that guidance leaves, and that the base policy would have.
    Collapsed {
        /// The follower's.
        ess: f64,
        /// The base policy's over the same candidates.
        base: f64,
    },
    /// Share of the tokens that complete four tokens in a row that were written before.
    Repeats(f64),
    /// How much less likely the tokens are than those that the base policy would have chosen, in nats a token.
    Unlikely(f64),
    /// All continuations of a block have the same score, so that the choice is arbitrary.
    EqualScores,
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collapsed { ess, base } => {
                write!(f, "guidance leaves {ess:.1} candidates where the base policy has {base:.1}")
            }
            Self::Repeats(share) => {
                write!(f, "{:.0} percent of the tokens repeat what was written", 100.0 * share)
            }
            Self::Unlikely(nats) => {
                write!(f, "tokens are {nats:.1} nats less likely than the base policy's own")
            }
            Self::EqualScores => {
                write!(f, "all continuations of the block have the same score: the choice is arbitrary")
            }
        }
    }
}

/// Watches one answer.
#[derive(Debug, Clone, Default)]
pub struct HackingWatch {
    /// Log-probabilities at temperature 1 are this times differences of a step's logits.
    scale: f64,
    temperature: f64,
    last: VecDeque<Sign>,
    tokens: Vec<u32>,
    seen: HashSet<[u32; 4]>,
    /// What is wrong now: collapsed, repeats, unlikely.
    wrong: [bool; 3],
    /// Whether a block of equal scores was reported, or is not to be: of whole answers.
    equal: bool,
}

/// What one step says.
#[derive(Debug, Clone, Copy)]
struct Sign {
    /// The follower's effective number of candidates and the base policy's, where guidance was asked.
    ess: Option<(f64, f64)>,
    repeats: bool,
    /// Nats that the base policy's choice was more likely by.
    behind: f64,
}

impl HackingWatch {
    /// Steps that are looked at together.
    pub const WINDOW: usize = 16;
    /// Guidance has collapsed below so many effective candidates, if the base policy has twice as many.
    pub const FEWEST: f64 = 1.25;
    /// The text repeats itself from this share of repeating tokens.
    pub const REPEATING: f64 = 0.5;
    /// Tokens are unlikely from so many nats behind the base policy's choice.
    pub const BEHIND: f64 = 1.5;

    /// A watch over an answer that is made under these settings.
    pub fn new(settings: &Settings) -> Self {
        let (scale, temperature) =
            (settings.logits_temperature(), settings.sampling.effective_temperature());
        Self { scale, temperature, equal: settings.method.chooses_answers(), ..Self::default() }
    }

    /// Takes note of the next step; says what begins to go wrong with it.
    pub fn step(&mut self, step: &Step) -> Vec<Alarm> {
        let logit = |token: u32| {
            let at = step.candidates.iter().position(|&candidate| candidate == token);
            at.map(|at| step.logits[at])
        };
        let behind =
            logit(step.base_choice).zip(logit(step.chosen)).map_or(0.0, |(base, chosen)| base - chosen);
        let base_ess = || {
            let masses = masses(&step.logits, self.temperature);
            let sum: f64 = masses.iter().sum();
            sum * sum / masses.iter().map(|mass| mass * mass).sum::<f64>()
        };
        let ess = step.ess.map(|ess| (ess, base_ess()));
        let equal = step.block.as_ref().is_some_and(|block| {
            block.scores.len() > 1 && block.scores.iter().all(|score| *score == block.scores[0])
        });
        let mut alarms = Vec::new();
        if equal && !std::mem::replace(&mut self.equal, true) {
            alarms.push(Alarm::EqualScores);
        }
        self.tokens.push(step.chosen);
        let repeats = self.tokens.last_chunk::<4>().is_some_and(|four| !self.seen.insert(*four));
        self.last.push_back(Sign { ess, repeats, behind: self.scale * behind });
        if self.last.len() < Self::WINDOW {
            return alarms;
        }
        if self.last.len() > Self::WINDOW {
            self.last.pop_front();
        }
        // What is wrong stays so until it is clearly over.
        let (begins, lasts) = (self.look(1.0), self.look(0.75));
        for ((wrong, begins), lasts) in self.wrong.iter_mut().zip(begins).zip(lasts) {
            alarms.extend(begins.filter(|_| !*wrong));
            *wrong = begins.is_some() || *wrong && lasts.is_some();
        }
        alarms
    }

    /// What is wrong over the last steps, by limits that are this much nearer.
    fn look(&self, limits: f64) -> [Option<Alarm>; 3] {
        let steps = self.last.len() as f64;
        let asked = self.last.iter().filter_map(|sign| sign.ess);
        let (sum, base, count) =
            asked.fold((0.0, 0.0, 0.0), |(s, b, n), (ess, base)| (s + ess, b + base, n + 1.0));
        let (ess, base) = (sum / count, base / count);
        let repeats = self.last.iter().filter(|sign| sign.repeats).count() as f64 / steps;
        let behind = self.last.iter().map(|sign| sign.behind).sum::<f64>() / steps;
        [
            (2.0 * count >= steps && ess < Self::FEWEST / limits && base > 2.0 * limits * ess)
                .then_some(Alarm::Collapsed { ess, base }),
            (repeats >= limits * Self::REPEATING).then_some(Alarm::Repeats(repeats)),
            (behind >= limits * Self::BEHIND).then_some(Alarm::Unlikely(behind)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(chosen: u32, base_choice: u32, ess: f64) -> Step {
        Step {
            candidates: vec![chosen, base_choice],
            logits: if chosen == base_choice { vec![0.0, 0.0] } else { vec![-2.0, 0.0] },
            fused: vec![0.0, 0.0],
            base_choice,
            ess: Some(ess),
            ..Step::unguided(vec![chosen], vec![0.0], chosen, -1.0)
        }
    }

    fn alarms(steps: impl IntoIterator<Item = Step>) -> Vec<(usize, Alarm)> {
        let mut watch = HackingWatch::new(&Settings::default());
        let steps = steps.into_iter().enumerate();
        steps.flat_map(|(i, step)| watch.step(&step).into_iter().map(move |alarm| (i, alarm))).collect()
    }

    #[test]
    fn an_ordinary_text_raises_no_alarm() {
        assert_eq!(alarms((0..80).map(|i| step(i, i, 2.0))), []);
    }

    #[test]
    fn each_alarm_is_raised_once_while_it_lasts() {
        let unlikely = alarms((0..40).map(|i| step(i, i + 1000, 2.0)));
        assert_eq!(unlikely, [(15, Alarm::Unlikely(2.0))]);
        let repeating = alarms((0..60).map(|i| step(i % 5, i % 5, 2.0)));
        assert_eq!(repeating, [(15, Alarm::Repeats(0.5))]);
        let collapsed = alarms((0..40).map(|i| step(i, i, if i < 8 { 2.0 } else { 1.0 / 1.01 })));
        // With equal logits the base policy has two candidates.
        assert!(
            matches!(collapsed[..], [(at, Alarm::Collapsed { base, .. })] if at > 15 && base == 2.0)
        );
        // It comes, goes, and comes again.
        let twice = alarms((0..120).map(|i| step(i, i + if i / 40 == 1 { 0 } else { 1000 }, 2.0)));
        assert_eq!(twice.len(), 2);
    }

    #[test]
    fn a_block_of_equal_scores_is_reported_once() {
        let step = |scores: &[f64]| {
            let block = crate::step::Block {
                continuations: vec![vec![1]; scores.len()],
                scores: scores.to_vec(),
                shaped: None,
                threshold: None,
                bound: None,
                weights: vec![1.0 / scores.len() as f64; scores.len()],
                rewards: None,
                parents: None,
            };
            Step {
                block: Some(std::sync::Arc::new(block)),
                ..Step::unguided(vec![1], vec![0.0], 1, -1.0)
            }
        };
        let mut watch = HackingWatch::new(&Settings::default());
        assert_eq!(watch.step(&step(&[1.0, 2.0])), []);
        assert_eq!(watch.step(&step(&[2.0, 2.0])), [Alarm::EqualScores]);
        assert_eq!(watch.step(&step(&[2.0, 2.0])), []);
    }
}
