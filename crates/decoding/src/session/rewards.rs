//! The rewards of candidates: in the step, or off the loop where they take long.

use std::time::{Duration, Instant};

use stackelberg_engine::Error as EngineError;
use stackelberg_engine::reward::ask;

use super::remote::{Answered, Remote, off_the_loop};
use super::state::Session;
use crate::choice::Unscored;
use crate::error::{Error, Result};
use crate::input::{Answers, Asked, Input};
use crate::line::Pending;
use crate::request::Event;
use crate::scorer::Scorer;
use crate::work::{Kind, Work};

impl Session {
    /// Takes in what was asked off the loop.
    pub(super) fn take_answers(&mut self, events: &mut Vec<Event>) {
        if self.asked == 0 && self.works.iter().all(|work| work.in_flight.is_empty()) {
            return;
        }
        let idle = !self.can_begin() && self.works.iter_mut().all(Work::waits);
        let mut patience = if idle { Duration::from_millis(20) } else { Duration::ZERO };
        while self.asked > 0 || self.works.iter().any(|work| !work.in_flight.is_empty()) {
            let answered = match patience.is_zero() {
                true => self.answers.1.try_recv().ok(),
                false => self.answers.1.recv_timeout(patience).ok(),
            };
            let Some(Answered { ticket, what }) = answered else { return };
            patience = Duration::ZERO;
            self.asked -= usize::from(!matches!(what, Remote::Policy { .. }));
            // Of a request that was cancelled or failed.
            if !self.requests.contains_key(&ticket) {
                continue;
            }
            match what {
                Remote::Policy { sample, line, found } => {
                    self.continued((ticket, sample), line, found, events);
                }
                Remote::Candidates(sample, found) => {
                    let work = self
                        .works
                        .iter_mut()
                        .find(|work| work.ticket == ticket && work.sample == sample);
                    let Some(work) = work else { continue };
                    let said = found.and_then(|found| work.score(found));
                    self.told(ticket, sample, said, events);
                }
                Remote::Finished(finished, scores, took) => {
                    if let Some(active) = self.requests.get_mut(&ticket) {
                        active.scoring += took;
                    }
                    self.scored(ticket, finished, scores, events);
                }
                Remote::Failed(why) => self.fail(ticket, EngineError::Scorer(why).into(), events),
            }
        }
    }

    /// The rewards of all candidates: those of one reward together; those from outside off the loop.
    pub(super) fn score(&mut self, events: &mut Vec<Event>) {
        let mut asking = Vec::new();
        let mut failed = Vec::new();
        for (place, work) in self.works.iter_mut().enumerate() {
            if !work.asks() {
                continue;
            }
            match work.asked() {
                Ok(asked) if asked.is_remote() => {
                    work.lines().into_iter().for_each(|line| line.pending = Pending::Remote);
                    if let Kind::One { line, .. } = &mut work.kind {
                        line.pending = Pending::Remote;
                    }
                    let (ticket, sample) = (work.ticket, work.sample);
                    self.asked += 1;
                    off_the_loop(self.answers.0.clone(), ticket, move || {
                        Remote::Candidates(sample, answers(asked))
                    });
                }
                Ok(asked) => asking.push((place, asked)),
                Err(error) => failed.push((work.ticket, error)),
            }
        }
        let inputs = asking.iter_mut().flat_map(|(_, asked)| &mut asked.inputs);
        let mut questions: Vec<_> = inputs.map(Input::question).collect();
        let began = Instant::now();
        let mut rewards = ask(&mut questions).into_iter();
        drop(questions);
        let mut found = Vec::with_capacity(asking.len());
        for (place, Asked { inputs, texts }) in asking {
            let own: stackelberg_engine::Result<Vec<_>> = rewards.by_ref().take(inputs.len()).collect();
            let inputs = own.map_err(Error::from).map(|own| inputs.into_iter().zip(own).collect());
            found.push((place, inputs.and_then(|inputs| answers_of(inputs, texts))));
        }
        self.rewarding += began.elapsed();
        let mut said = Vec::with_capacity(found.len());
        for (place, found) in found {
            let work = &mut self.works[place];
            said.push((work.ticket, work.sample, found.and_then(|found| work.score(found))));
        }
        failed.into_iter().for_each(|(ticket, error)| self.fail(ticket, error, events));
        said.into_iter().for_each(|(ticket, sample, said)| self.told(ticket, sample, said, events));
    }
}

/// What rewards say about one sequence.
fn answers(Asked { mut inputs, texts }: Asked) -> Result<Answers> {
    let rewards = ask(&mut inputs.iter_mut().map(Input::question).collect::<Vec<_>>());
    let rewards = rewards.into_iter().collect::<stackelberg_engine::Result<Vec<_>>>()?;
    answers_of(inputs.into_iter().zip(rewards).collect(), texts)
}

/// Rewards of candidates, and those of texts, which are scored now.
fn answers_of(
    inputs: Vec<(Input, Vec<f64>)>,
    texts: Option<(Scorer, Vec<Unscored>)>,
) -> Result<Answers> {
    let texts = texts.map(|(scorer, texts)| scorer.whole(&texts)).transpose()?;
    Ok(Answers { inputs, texts: texts.unwrap_or_default() })
}
