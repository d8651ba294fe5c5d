//! What comes of requests: events, finished answers, failures.

use std::sync::Arc;
use std::time::Instant;

use stackelberg_engine::{Error as EngineError, state_row};

use super::remote::{Remote, off_the_loop};
use super::state::Session;
use crate::choice::{Choice, Unscored, block, choose, scores};
use crate::error::{Error, Result};
use crate::generation::Generation;
use crate::policy::Policy;
use crate::request::{Event, Request, Sample, Ticket, Want};
use crate::score::Score;
use crate::sequence::Said;
use crate::states;
use crate::step::Block;
use crate::stopping::{Saved, further};
use crate::work::{Cost, Finished, Work};

impl Session {
    /// Puts finished sequences together by request, and scores the requests that are complete.
    pub(super) fn finish(&mut self, events: &mut Vec<Event>) {
        let finished: Vec<Work> = self.works.extract_if(.., |work| work.is_finished()).collect();
        for work in finished {
            let ticket = work.ticket;
            let outcome = work.finish();
            let Some(active) = self.requests.get_mut(&ticket) else { continue };
            match outcome {
                Ok(mut finished) => {
                    active.ended += 1;
                    // Of several, the chosen one's steps are told.
                    let only = if let [only] = &mut finished[..] { Some(only) } else { None };
                    let only = only.map(|only| (only.sample, std::mem::take(&mut only.said)));
                    active.finished.append(&mut finished);
                    if let Some((sample, said)) = only {
                        self.told(ticket, sample, Ok(said), events);
                    }
                }
                Err(error) => self.fail(ticket, error, events),
            }
            let Some(active) = self.requests.get_mut(&ticket) else { continue };
            if active.ended == active.samples {
                self.complete(ticket, events);
            }
        }
    }

    /// All sequences of a request are finished: their rewards, and the answer.
    pub(super) fn complete(&mut self, ticket: Ticket, events: &mut Vec<Event>) {
        let Some(active) = self.requests.get_mut(&ticket) else { return };
        let mut finished = std::mem::take(&mut active.finished);
        finished.sort_by_key(|finished| finished.sample);
        let request = active.request.clone();
        let (policy, began) = (self.policy.clone(), Instant::now());
        let unknown = finished.iter().any(|finished| finished.unscored.known.is_none());
        let waits = request.reward.as_ref().is_some_and(|reward| policy.waits_for(reward));
        let server = match (&*policy, request.want) {
            (Policy::Remote(_), Want::Samples { hidden: true }) => true,
            _ => waits && unknown,
        };
        let score = move |mut finished: Vec<Finished>| {
            let found = kept_states(&policy, &request, &mut finished)
                .and_then(|()| rewards(&policy, &request, &finished));
            (finished, found, began.elapsed())
        };
        if server {
            self.asked += 1;
            return off_the_loop(self.answers.0.clone(), ticket, move || {
                let (finished, found, took) = score(finished);
                Remote::Finished(finished, found, took)
            });
        }
        let (finished, found, took) = score(finished);
        active.scoring += took;
        self.rewarding += took;
        self.scored(ticket, finished, found, events);
    }

    /// The finished sequences of a request are scored: more samples are drawn, or the request ends.
    pub(super) fn scored(
        &mut self,
        ticket: Ticket,
        mut finished: Vec<Finished>,
        scores: Result<Vec<Score>>,
        events: &mut Vec<Event>,
    ) {
        let Some(active) = self.requests.get_mut(&ticket) else { return };
        let further = match &scores {
            Ok(scores) if active.samples < active.request.most_samples() => {
                further(&active.request.settings, &rewards_of(scores), mean_tokens(&finished))
            }
            _ => 0,
        };
        match scores {
            Ok(scores) if further > 0 => {
                for (finished, score) in finished.iter_mut().zip(scores) {
                    if finished.unscored.known.replace(score).is_none() {
                        finished.cost.tokens_scored += finished.unscored.tokens.len();
                        finished.cost.texts += 1;
                    }
                }
                active.finished = finished;
                active.samples += further;
                self.waiting.push_front(ticket);
            }
            scores => {
                let done = scores.and_then(|scores| self.done(ticket, finished, scores));
                self.closed(ticket, done, events);
            }
        }
    }

    /// The answer, or all samples, with the steps that are told now.
    pub(super) fn done(
        &mut self,
        ticket: Ticket,
        finished: Vec<Finished>,
        scores: Vec<Score>,
    ) -> Result<(Vec<Sample>, Vec<Said>)> {
        let Some(active) = self.requests.get_mut(&ticket) else { return Ok(Default::default()) };
        let request = &active.request;
        if let Want::Samples { .. } = request.want {
            let scores = scores.into_iter().map(Some).chain(std::iter::repeat(None));
            let sample = |(finished, score): (Finished, Option<Score>)| {
                let answer = finished.sequence.finish(score);
                let Cost { elapsed, tokens_run, tokens_scored, .. } = finished.cost;
                let answer = Generation { elapsed, tokens_run, tokens_scored, ..answer };
                Sample { answer, hidden: finished.hidden }
            };
            return Ok((finished.into_iter().zip(scores).map(sample).collect(), Vec::new()));
        }
        let log_weights: Vec<f64> = finished.iter().map(|finished| finished.log_weight).collect();
        let Choice { index, kl, weights, response } =
            choose(&request.settings, &request.id, &scores, &log_weights)?;
        let (calls, method) = (finished.len(), request.settings.method);
        let mut all = Cost::default();
        for Finished { cost, unscored, .. } in &finished {
            all.elapsed += cost.elapsed;
            all.tokens_run += cost.tokens_run;
            all.tokens_scored += cost.tokens_scored;
            all.texts += cost.texts;
            all.saved += cost.saved;
            // It was scored now, and to choose.
            if method.chooses() && unscored.known.is_none() {
                all.tokens_scored += unscored.tokens.len();
                all.texts += 1;
            }
        }
        if calls < request.most_samples() && method.chooses_answers() {
            all.saved += Saved::new(&request.settings, &rewards_of(&scores), mean_tokens(&finished));
        }
        let Cost { mut elapsed, tokens_run, tokens_scored, texts, saved } = all;
        let (tokens_saved, reward_lost) = (saved.tokens.round() as usize, saved.reward);
        let mut said = active.steps.remove(&index).unwrap_or_default();
        if let Some((step, _)) = said.first_mut() {
            let texts = finished.iter().map(|finished| finished.unscored.tokens.clone()).collect();
            let block = block(texts, rewards_of(&scores), weights.clone(), response.as_ref());
            (step.block, step.continuation) = (Some(Arc::new(block)), Some(index));
        }
        let last = match request.settings.decodes_blocks() {
            true => last_block(&finished, index, &scores, &weights),
            false => None,
        };
        let mut chosen = finished.into_iter().nth(index).ok_or(Error::Stopped)?;
        let begins = chosen.said.iter_mut().rfind(|(step, _)| step.block.is_some());
        if let Some(((step, _), last)) = begins.zip(last) {
            step.block = Some(Arc::new(last));
        }
        said.extend(chosen.said);
        let answer = chosen.sequence.finish(scores.into_iter().nth(index));
        if method.chooses() {
            elapsed += active.scoring;
        }
        if self.policy.server().is_some() {
            elapsed = active.arrived.elapsed();
        }
        let mut answer =
            Generation { elapsed, tokens_run, tokens_scored, tokens_saved, reward_lost, ..answer };
        if method.chooses_answers() {
            (answer.reward_calls, answer.kl) = (calls, Some(kl));
        }
        if request.settings.decodes_blocks() {
            (answer.reward_calls, answer.kl) = (texts, Some((chosen.kl + kl).max(0.0)));
        }
        Ok((vec![Sample { answer, hidden: chosen.hidden }], said))
    }

    /// A request ends.
    pub(super) fn closed(
        &mut self,
        ticket: Ticket,
        done: Result<(Vec<Sample>, Vec<Said>)>,
        events: &mut Vec<Event>,
    ) {
        match done {
            Ok((samples, said)) => {
                let told = self.requests.remove(&ticket).map_or(0, |active| active.told);
                for (number, (step, text)) in (told..).zip(said) {
                    let step = Box::new(step);
                    events.push(Event::Token { ticket, number, step, text });
                }
                events.push(Event::Done { ticket, samples });
            }
            Err(error) => self.fail(ticket, error, events),
        }
    }

    /// Tells steps that were decided, or keeps them until it is known whether their sample is the answer.
    pub(super) fn told(
        &mut self,
        ticket: Ticket,
        sample: usize,
        said: Result<Vec<Said>>,
        events: &mut Vec<Event>,
    ) {
        let said = match said {
            Ok(said) => said,
            Err(error) => return self.fail(ticket, error, events),
        };
        let Some(active) = self.requests.get_mut(&ticket).filter(|active| active.request.steps) else {
            return;
        };
        let chooses = active.samples > 1 && active.request.want == Want::Answer;
        if chooses {
            return active.steps.entry(sample).or_default().extend(said);
        }
        for (step, text) in said {
            let number = active.told;
            active.told += 1;
            events.push(Event::Token { ticket, number, step: Box::new(step), text });
        }
    }

    pub(super) fn fail(&mut self, ticket: Ticket, error: Error, events: &mut Vec<Event>) {
        if self.requests.contains_key(&ticket) {
            self.cancel(ticket);
            events.push(Event::Failed { ticket, error });
        }
    }

    /// The policy itself failed.
    pub(super) fn fail_all(&mut self, error: EngineError, events: &mut Vec<Event>) {
        let said = error.to_string();
        let tickets: Vec<Ticket> = self.works.iter().map(|work| work.ticket).collect();
        for ticket in tickets {
            self.fail(ticket, EngineError::Scorer(said.clone()).into(), events);
        }
    }
}

/// The rewards of finished sequences; none without a reward.
fn rewards(policy: &Policy, request: &Request, finished: &[Finished]) -> Result<Vec<Score>> {
    let Some(reward) = &request.reward else { return Ok(Vec::new()) };
    let unscored: Vec<Unscored> = finished.iter().map(|finished| finished.unscored.clone()).collect();
    scores(policy, reward, (&request.prompt, request.asked.as_deref()), &unscored)
}

/// Where hidden states are kept and a server runs the policy, they are asked for now: those of all sequences together.
fn kept_states(policy: &Policy, request: &Request, finished: &mut [Finished]) -> Result<()> {
    let (Policy::Remote(policy), Want::Samples { hidden: true }) = (policy, request.want) else {
        return Ok(());
    };
    let answers: Vec<&[u32]> = finished.iter().map(|finished| &finished.unscored.tokens[..]).collect();
    let found = states::of_all(policy, &request.prompt, &answers)?;
    for (finished, rows) in finished.iter_mut().zip(found) {
        // The reward may read the last one.
        if let Some(width) = rows.len().checked_div(finished.unscored.tokens.len()) {
            finished.unscored.last = Some(state_row(&rows[rows.len() - width..])?);
        }
        finished.hidden = rows;
    }
    Ok(())
}

fn rewards_of(scores: &[Score]) -> Vec<f64> {
    scores.iter().map(|score| score.reward).collect()
}

/// The record of the chosen answer's last block, with the rewards by which one of several finished answers was chosen. `None` if
/// nothing is to be added: there was one, or their rewards were the scores of the block.
fn last_block(finished: &[Finished], chosen: usize, scores: &[Score], weights: &[f64]) -> Option<Block> {
    if finished.len() < 2 || finished.iter().all(|finished| finished.unscored.known.is_some()) {
        return None;
    }
    let last = |finished: &Finished| {
        let (step, _) = finished.said.iter().rfind(|(step, _)| step.block.is_some())?;
        Some((step.block.clone()?, step.continuation?))
    };
    let (block, _) = last(&finished[chosen])?;
    let mut rewards = vec![None; block.weights.len()];
    let mut shares = vec![0.0; block.weights.len()];
    let mut together = true;
    for ((finished, score), weight) in finished.iter().zip(scores).zip(weights) {
        match last(finished) {
            Some((other, index)) if Arc::ptr_eq(&other, &block) => {
                (rewards[index], shares[index]) = (Some(score.reward), *weight);
            }
            _ => together = false,
        }
    }
    // Particles may have finished in different blocks; then the weights of the scores stay.
    let weights = if together { shares } else { block.weights.clone() };
    Some(Block { rewards: Some(rewards), weights, ..(*block).clone() })
}

/// Mean number of tokens that a finished sequence ran.
fn mean_tokens(finished: &[Finished]) -> f64 {
    let tokens: usize = finished.iter().map(|finished| finished.cost.tokens_run).sum();
    tokens as f64 / finished.len().max(1) as f64
}
