//! The forward pass of a step: sequences that begin, logits, prefill chunks, candidates and tokens.

use stackelberg_engine::model::Segment;
use stackelberg_engine::{Branches, Checkpoint, Error as EngineError, Prefix, Tensor};

use super::active::Active;
use super::state::{Limits, Session};
use crate::line::{Line, Pending};
use crate::next::Distribution;
use crate::policy::Policy;
use crate::request::{Event, Ticket};

/// Tokens that each prompt prefills in a forward while there is room, so that a short prompt does not wait for a long one.
const SHARE: usize = 32;

impl Session {
    /// Begins sequences while there is room for them.
    pub(super) fn admit(&mut self, events: &mut Vec<Event>) {
        let mut prefilling = 0;
        let mut begun = Vec::new();
        for &ticket in &self.waiting {
            if self.works.len() + prefilling >= self.limits.sequences.max(1) {
                break;
            }
            if self.waits_for_another(ticket) {
                prefilling += 1;
                continue;
            }
            let Some(active) = self.requests.get_mut(&ticket) else { continue };
            let together = together(&self.policy);
            if active.prompt.hidden.is_none() {
                if let Some(policy) = self.policy.local().filter(|_| !active.prompt.begun) {
                    let prompt = &active.request.prompt;
                    active.prompt.begun = true;
                    active.prompt.prefix = self.prefixes.find(&policy.model, prompt);
                }
                prefilling += 1;
                continue;
            }
            let mut next = active.begins(together);
            let mut failed = None;
            while next > 0 && failed.is_none() && fits(&self.limits, self.works.len() + prefilling, next)
            {
                for _ in 0..next {
                    match active.begin(&self.policy, ticket) {
                        Ok(work) => self.works.push(work),
                        Err(error) => failed = Some(error),
                    }
                }
                next = active.begins(together);
            }
            if failed.is_some() {
                begun.push((ticket, failed));
                continue;
            }
            if next > 0 {
                break;
            }
            if active.samples == active.request.most_samples() {
                active.prompt.prefix = Prefix::default();
            }
            begun.push((ticket, None));
        }
        for (ticket, error) in begun {
            self.waiting.retain(|waiting| *waiting != ticket);
            if let Some(error) = error {
                self.fail(ticket, error, events);
            }
        }
    }

    /// Whether a request waits that could begin now.
    pub(super) fn can_begin(&self) -> bool {
        let active = self.waiting.front().and_then(|ticket| self.requests.get(ticket));
        active.is_some_and(|active| {
            fits(&self.limits, self.works.len(), active.begins(together(&self.policy)))
        })
    }

    /// Whether the beginning of a request's prompt is that of a prompt which is being prefilled: what they have in common need
    /// not be run twice.
    fn waits_for_another(&self, ticket: Ticket) -> bool {
        let Some(active) = self.requests.get(&ticket).filter(|active| !active.prompt.begun) else {
            return false;
        };
        let prompt = &active.request.prompt;
        let mut others = self.requests.values().filter(|other| other.prompt.prefills());
        let Some(policy) = self.policy.local() else { return false };
        others.any(|other| self.prefixes.gains(&policy.model, prompt, &other.request.prompt))
    }

    /// The logits of all lines that wait for them; where no reward is needed, the choice.
    pub(super) fn expect(&mut self, policy: &Checkpoint, events: &mut Vec<Event>) {
        let mut hidden = Vec::new();
        for work in &mut self.works {
            let lines = work.lines().into_iter();
            let ready = lines.filter(|line| line.pending == Pending::Logits);
            hidden.extend(ready.map(|line| line.hidden.clone()));
        }
        if hidden.is_empty() {
            return;
        }
        let rows = Tensor::cat(&hidden, 0)
            .map_err(EngineError::from)
            .and_then(|rows| policy.model.logits(&rows))
            .and_then(|logits| Ok(logits.to_vec2::<f32>()?));
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => return self.fail_all(error, events),
        };
        let mut rows = rows.into_iter().map(Distribution::Logits);
        let mut said = Vec::with_capacity(self.works.len());
        for work in &mut self.works {
            // Each work takes its rows, also if it fails at one of them.
            let lines = work.lines().into_iter();
            let ready = lines.filter(|line| line.pending == Pending::Logits).count();
            let mut own = rows.by_ref().take(ready).collect::<Vec<_>>().into_iter();
            said.push((work.ticket, work.sample, work.expect(&mut own)));
            work.finish_paths();
        }
        said.into_iter().for_each(|(ticket, sample, said)| self.told(ticket, sample, said, events));
    }

    /// The forward pass of everything that has to be run, in one.
    pub(super) fn forward(&mut self, policy: &Checkpoint, events: &mut Vec<Event>) {
        let mut segments = Vec::new();
        let mut chunks = Vec::new();
        self.requests.values_mut().for_each(|active| active.prefilled = false);
        let prefilling = |active: &Active| active.prompt.prefills();
        let left = self.requests.values().filter(|active| prefilling(active));
        let left = left.map(|active| active.request.prompt.len() - active.prompt.prefix.len());
        let shares = shares(&left.collect::<Vec<_>>(), self.limits.prefill.max(1));
        let begun = self.requests.iter_mut().filter(|(_, active)| prefilling(active));
        for ((ticket, active), share) in begun.zip(shares).filter(|(_, share)| *share > 0) {
            let prompt = &active.request.prompt;
            let done = active.prompt.prefix.len();
            let chunk = &prompt[done..done + share];
            active.prefilled = true;
            segments.push(Segment::Read(&mut active.prompt.prefix, chunk));
            chunks.push((*ticket, done + chunk.len() == prompt.len()));
        }
        let mut lines = Vec::new();
        for work in &mut self.works {
            let mut tokens = 0;
            for line in work.lines() {
                let segment = line.segment();
                lines.push(segment.is_some());
                tokens += segment.map_or(0, |segment| match segment {
                    Segment::Read(_, tokens) | Segment::Branch(_, tokens) => tokens.len(),
                });
            }
            work.tokens_run += tokens;
        }
        for work in &mut self.works {
            segments.extend(work.lines().into_iter().filter_map(Line::segment));
        }
        if segments.is_empty() {
            return;
        }
        let run = run(policy, segments);
        let mut run = run.into_iter();
        let mut failed = Vec::new();
        for ((ticket, complete), found) in chunks.into_iter().zip(run.by_ref()) {
            let Some(active) = self.requests.get_mut(&ticket) else { continue };
            match found
                .and_then(|branches| Ok(branches.hidden.narrow(0, branches.tokens.len() - 1, 1)?))
            {
                Ok(hidden) if complete => {
                    active.prompt.hidden = Some(hidden);
                    self.prefixes.keep(&policy.model, &active.prompt.prefix);
                }
                Ok(_) => {}
                Err(error) => failed.push((ticket, error.into())),
            }
        }
        let mut lines = lines.into_iter();
        for work in &mut self.works {
            let mut outcome = Ok(());
            let mut ran = false;
            for line in work.lines() {
                if lines.next() != Some(true) {
                    continue;
                }
                match run.next() {
                    Some(Ok(branches)) => {
                        ran |= matches!(line.pending, Pending::Token(_));
                        line.run(branches);
                    }
                    Some(Err(error)) => outcome = Err(error.into()),
                    None => {}
                }
            }
            if ran && outcome.is_ok() {
                outcome = work.keep_hidden();
            }
            if let Err(error) = outcome {
                failed.push((work.ticket, error));
            }
        }
        failed.into_iter().for_each(|(ticket, error)| self.fail(ticket, error, events));
    }
}

/// The most samples of a request that begin together: those that one call to a server draws. What they become must not depend
/// on what else is under way.
fn together(policy: &Policy) -> usize {
    policy.server().map_or(1, |server| server.most_continuations().max(1))
}

/// Whether so many more sequences may begin beside those that are under way. If nothing is, a call begins whatever its size.
fn fits(limits: &Limits, under_way: usize, next: usize) -> bool {
    under_way == 0 || under_way + next <= limits.sequences.max(1)
}

/// The tokens that each prompt prefills in a forward, of so many that are left of each: at first [`SHARE`] of each, then the rest
/// of the oldest.
fn shares(left: &[usize], mut room: usize) -> Vec<usize> {
    let mut shares = vec![0; left.len()];
    for most in [SHARE, usize::MAX] {
        for (share, &left) in shares.iter_mut().zip(left) {
            let more = (left - *share).min(most).min(room);
            *share += more;
            room -= more;
        }
    }
    shares
}

/// Runs segments in one forward. If that fails, each is run alone, so that one sequence's error is not another's.
fn run(
    policy: &Checkpoint,
    mut segments: Vec<Segment<'_>>,
) -> Vec<stackelberg_engine::Result<Branches>> {
    match policy.model.forward(&mut segments) {
        Ok(run) => run.into_iter().map(Ok).collect(),
        Err(_) => segments
            .iter_mut()
            .map(|segment| {
                let mut run = policy.model.forward(std::slice::from_mut(segment))?;
                run.pop().ok_or(EngineError::NoTokens)
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn a_short_prompt_has_its_share_beside_a_long_one() {
        assert_eq!(shares(&[8000, 20], 256), [236, 20]);
        assert_eq!(shares(&[10, 8000, 8000], 256), [10, 214, 32]);
        assert_eq!(shares(&[8000; 10], 256), [32, 32, 32, 32, 32, 32, 32, 32, 0, 0]);
        assert_eq!(shares(&[5, 3], 6), [5, 1]);
        assert_eq!(shares(&[40], 1), [1]);
        assert_eq!(shares(&[], 9), [0; 0]);
    }
}
