//! The forward pass of a step: sequences that begin, logits, prefill chunks, candidates and tokens.

use stackelberg_engine::model::Segment;
use stackelberg_engine::{Branches, Checkpoint, Error as EngineError, Tensor};

use super::active::Active;
use super::state::Session;
use crate::line::{Line, Pending};
use crate::request::Event;

impl Session {
    /// Begins sequences while there is room for them.
    pub(super) fn admit(&mut self, events: &mut Vec<Event>) {
        let mut prefilling = 0;
        let mut begun = Vec::new();
        for &ticket in &self.waiting {
            if self.works.len() + prefilling >= self.limits.sequences.max(1) {
                break;
            }
            let Some(active) = self.requests.get_mut(&ticket) else { continue };
            if active.prompt.hidden.is_none() {
                if !active.prompt.begun {
                    let prompt = &active.request.prompt;
                    active.prompt.begun = true;
                    active.prompt.prefix = self.prefixes.find(&self.policy.model, prompt);
                }
                prefilling += 1;
                continue;
            }
            while active.next_sample < active.samples
                && self.works.len() + prefilling < self.limits.sequences.max(1)
            {
                match active.begin(&self.policy, ticket) {
                    Ok(work) => self.works.push(work),
                    Err(error) => {
                        begun.push((ticket, Some(error)));
                        break;
                    }
                }
            }
            if active.next_sample == active.samples {
                if active.samples == active.request.most_samples() {
                    active.prompt.prefix = self.policy.model.empty();
                }
                begun.push((ticket, None));
            }
        }
        for (ticket, error) in begun {
            self.waiting.retain(|waiting| *waiting != ticket);
            if let Some(error) = error {
                self.fail(ticket, error, events);
            }
        }
    }

    /// The logits of all lines that wait for them; where no reward is needed, the choice.
    pub(super) fn expect(&mut self, events: &mut Vec<Event>) {
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
            .and_then(|rows| self.policy.model.logits(&rows))
            .and_then(|logits| Ok(logits.to_vec2::<f32>()?));
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => return self.fail_all(error, events),
        };
        let mut rows = rows.into_iter();
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
    pub(super) fn forward(&mut self, events: &mut Vec<Event>) {
        let mut segments = Vec::new();
        let mut chunks = Vec::new();
        let mut room = self.limits.prefill.max(1);
        self.requests.values_mut().for_each(|active| active.prefilled = false);
        let prefilling = |active: &Active| active.prompt.begun && active.prompt.hidden.is_none();
        for (ticket, active) in self.requests.iter_mut().filter(|(_, active)| prefilling(active)) {
            if room == 0 {
                break;
            }
            let prompt = &active.request.prompt;
            let done = active.prompt.prefix.len();
            let chunk = &prompt[done..prompt.len().min(done + room)];
            room -= chunk.len();
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
        let run = run(&self.policy, segments);
        let mut run = run.into_iter();
        let mut failed = Vec::new();
        for ((ticket, complete), found) in chunks.into_iter().zip(run.by_ref()) {
            let Some(active) = self.requests.get_mut(&ticket) else { continue };
            match found
                .and_then(|branches| Ok(branches.hidden.narrow(0, branches.tokens.len() - 1, 1)?))
            {
                Ok(hidden) if complete => {
                    active.prompt.hidden = Some(hidden);
                    self.prefixes.keep(&self.policy.model, &active.prompt.prefix);
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
