//! The session: many requests decoded together on one local policy.
//!
//! ```text
//! step: admit ─► logits ─► choices that need no look ahead ─► ONE forward (prefill chunks, candidates, tokens)
//!                                                             ─► rewards of the candidates ─► choices
//! ```
//!
//! Requests with different settings, methods and rewards come and go at any step, and each has its own events. What an
//! answer becomes does not depend on which others are under way: the kernels are batch-invariant, and every sequence has
//! random numbers of its own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use stackelberg_engine::model::Segment;
use stackelberg_engine::reward::{PromptInput, RewardState, ask};
use stackelberg_engine::{Branches, Checkpoint, Error as EngineError, Prefix, Reward, Tensor};

use crate::choice::{Unscored, choose, scores};
use crate::error::{Error, Result};
use crate::line::{Line, Pending};
use crate::prefixes::{CacheCounts, Prefixes};
use crate::randomness::Randomness;
use crate::request::{Event, Request, Sample, Ticket, Want};
use crate::score::Score;
use crate::sequence::{Said, Sequence};
use crate::settings::Method;
use crate::work::{Finished, Input, Kind, Work};

/// Limits of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sequences that are decoded at once; more requests wait. At least 1.
    pub sequences: usize,
    /// Tokens of prompts that one forward prefills, so that a long prompt does not stall the others. At least 1.
    pub prefill: usize,
    /// Bytes of prefilled prompts that are kept for requests with the same beginning.
    pub cache: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sequences: 16, prefill: 256, cache: 256 << 20 }
    }
}

/// The default limits, with this number of sequences.
impl From<usize> for Limits {
    fn from(sequences: usize) -> Self {
        Self { sequences: sequences.max(1), ..Self::default() }
    }
}

/// Decodes requests on a policy. One thread owns it.
pub struct Session {
    policy: Checkpoint,
    limits: Limits,
    next: u64,
    requests: BTreeMap<Ticket, Active>,
    /// Requests that wait for their first sequence, in order.
    waiting: VecDeque<Ticket>,
    works: Vec<Work>,
    prefixes: Prefixes,
    answers: (Sender<Answered>, Receiver<Answered>),
    /// Questions that are asked off the loop.
    asked: usize,
}

/// A request under way.
struct Active {
    request: Arc<Request>,
    max_tokens: usize,
    prompt: Prefilling,
    /// The next sample to begin.
    next_sample: usize,
    samples: usize,
    finished: Vec<Finished>,
    /// The steps of each sample, where one is chosen at the end and its steps are wanted.
    steps: BTreeMap<usize, Vec<Said>>,
    /// Steps that were told.
    told: usize,
    /// Whether a chunk of the prompt was part of the last forward pass.
    prefilled: bool,
    /// Time spent on the prompt. It counts for the first sample.
    prefill: Duration,
    /// Time spent on scoring the finished answers.
    scoring: Duration,
}

/// A prompt, as far as it is prefilled.
struct Prefilling {
    /// Whether the cache was asked for its beginning.
    begun: bool,
    prefix: Prefix,
    /// Hidden state of its last token, `[1, d]`, once all of it is prefilled.
    hidden: Option<Tensor>,
}

/// What came back from off the loop.
struct Answered {
    ticket: Ticket,
    what: Remote,
}

enum Remote {
    /// Rewards of a sequence's candidates.
    Candidates(usize, Result<Vec<(Input, Vec<f64>)>>),
    /// Rewards of finished answers.
    Finished(Vec<Finished>, Result<Vec<Score>>, Duration),
}

impl Session {
    /// A session without requests.
    pub fn new(policy: Checkpoint, limits: Limits) -> Self {
        let prefixes = Prefixes::new(limits.cache);
        Self {
            policy,
            limits,
            next: 0,
            requests: BTreeMap::new(),
            waiting: VecDeque::new(),
            works: Vec::new(),
            prefixes,
            answers: channel(),
            asked: 0,
        }
    }

    /// Takes a request in. It begins with one of the next steps.
    ///
    /// # Errors
    /// A setting is out of range, the method lacks its reward or value head, or the prompt does not fit the context.
    pub fn submit(&mut self, request: Request) -> Result<Ticket> {
        let max_tokens = check(&self.policy, &request)?;
        let ticket = Ticket(self.next);
        self.next += 1;
        let (settings, samples) = (&request.settings, request.settings.samples);
        let samples = match request.want {
            Want::Answer if !settings.method.chooses_answers() => 1,
            Want::Answer | Want::Samples { .. } => samples,
        };
        let prompt = Prefilling { begun: false, prefix: self.policy.model.empty(), hidden: None };
        let active = Active {
            request: Arc::new(request),
            max_tokens,
            prompt,
            next_sample: 0,
            samples,
            finished: Vec::new(),
            steps: BTreeMap::new(),
            told: 0,
            prefilled: false,
            prefill: Duration::ZERO,
            scoring: Duration::ZERO,
        };
        self.requests.insert(ticket, active);
        self.waiting.push_back(ticket);
        Ok(ticket)
    }

    /// Drops a request; nothing more is told of it. One that is finished is left alone.
    pub fn cancel(&mut self, ticket: Ticket) {
        self.requests.remove(&ticket);
        self.waiting.retain(|waiting| *waiting != ticket);
        self.works.retain(|work| work.ticket != ticket);
    }

    /// Whether no request is under way.
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// Requests that are under way or wait.
    pub fn requests(&self) -> usize {
        self.requests.len()
    }

    /// What the cache of prefilled prompts has done.
    pub fn cache(&self) -> CacheCounts {
        self.prefixes.counts
    }

    /// One step of all sequences. Events of a request come in order. If all sequences wait for rewards from outside, the
    /// step waits for one of them, a moment at most.
    pub fn step(&mut self) -> Vec<Event> {
        let began = Instant::now();
        let mut events = Vec::new();
        self.take_answers(&mut events);
        self.admit(&mut events);
        self.expect(&mut events);
        // Rewards that do not read the policy's look ahead: what they choose takes part in the forward pass.
        self.score(&mut events);
        self.forward(&mut events);
        self.score(&mut events);
        self.finish(&mut events);
        self.share(began.elapsed());
        events
    }

    /// The time of a step counts for all that took part in it: sequences and prompts, in equal shares.
    fn share(&mut self, took: Duration) {
        let prefilling = self.requests.values_mut().filter(|active| active.prefilled);
        let shares: Vec<&mut Duration> = self
            .works
            .iter_mut()
            .map(|work| &mut work.elapsed)
            .chain(prefilling.map(|active| &mut active.prefill))
            .collect();
        let share = took / shares.len().max(1) as u32;
        shares.into_iter().for_each(|elapsed| *elapsed += share);
    }

    /// Takes in what was asked off the loop.
    fn take_answers(&mut self, events: &mut Vec<Event>) {
        let waits = |work: &mut Work| work.lines().iter().all(|line| line.pending == Pending::Remote);
        let full = self.works.len() >= self.limits.sequences;
        let idle = (self.waiting.is_empty() || full) && self.works.iter_mut().all(waits);
        let mut patience =
            if idle && self.asked > 0 { Duration::from_millis(20) } else { Duration::ZERO };
        while self.asked > 0 {
            let answered = match patience.is_zero() {
                true => self.answers.1.try_recv().ok(),
                false => self.answers.1.recv_timeout(patience).ok(),
            };
            let Some(Answered { ticket, what }) = answered else { return };
            patience = Duration::ZERO;
            self.asked -= 1;
            // Of a request that was cancelled or failed.
            if !self.requests.contains_key(&ticket) {
                continue;
            }
            match what {
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
                    let done = scores.and_then(|scores| self.done(ticket, finished, scores));
                    self.closed(ticket, done, events);
                }
            }
        }
    }

    /// Begins sequences while there is room for them.
    fn admit(&mut self, events: &mut Vec<Event>) {
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
                active.prompt.prefix = self.policy.model.empty();
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
    fn expect(&mut self, events: &mut Vec<Event>) {
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
    fn forward(&mut self, events: &mut Vec<Event>) {
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
            for line in work.lines() {
                lines.push(line.segment().is_some());
            }
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

    /// The rewards of all candidates: those of one reward together; those from outside off the loop.
    fn score(&mut self, events: &mut Vec<Event>) {
        let mut asking = Vec::new();
        let mut failed = Vec::new();
        for (place, work) in self.works.iter_mut().enumerate() {
            if !work.asks() {
                continue;
            }
            match work.inputs() {
                Ok(inputs) if inputs.iter().any(|input| input.state.is_remote()) => {
                    work.lines().into_iter().for_each(|line| line.pending = Pending::Remote);
                    if let Kind::One { line, .. } = &mut work.kind {
                        line.pending = Pending::Remote;
                    }
                    let (ticket, sample) = (work.ticket, work.sample);
                    self.asked += 1;
                    off_the_loop(self.answers.0.clone(), ticket, move || {
                        Remote::Candidates(sample, answers(inputs))
                    });
                }
                Ok(inputs) => asking.push((place, inputs)),
                Err(error) => failed.push((work.ticket, error)),
            }
        }
        let mut questions: Vec<_> =
            asking.iter_mut().flat_map(|(_, inputs)| inputs.iter_mut().map(Input::question)).collect();
        let mut rewards = ask(&mut questions).into_iter();
        drop(questions);
        let mut said = Vec::with_capacity(asking.len());
        for (place, inputs) in asking {
            let own: stackelberg_engine::Result<Vec<_>> = rewards.by_ref().take(inputs.len()).collect();
            let work = &mut self.works[place];
            let found = own.map_err(Error::from).map(|own| inputs.into_iter().zip(own).collect());
            said.push((work.ticket, work.sample, found.and_then(|found| work.score(found))));
        }
        failed.into_iter().for_each(|(ticket, error)| self.fail(ticket, error, events));
        said.into_iter().for_each(|(ticket, sample, said)| self.told(ticket, sample, said, events));
    }

    /// Puts finished sequences together by request, and scores the requests that are complete.
    fn finish(&mut self, events: &mut Vec<Event>) {
        let finished: Vec<Work> = self.works.extract_if(.., |work| work.is_finished()).collect();
        for work in finished {
            let ticket = work.ticket;
            let outcome = work.finish();
            let Some(active) = self.requests.get_mut(&ticket) else { continue };
            match outcome {
                Ok((finished, said)) => {
                    let sample = finished.sample;
                    active.finished.push(finished);
                    self.told(ticket, sample, Ok(said), events);
                }
                Err(error) => self.fail(ticket, error, events),
            }
            let Some(active) = self.requests.get_mut(&ticket) else { continue };
            if active.finished.len() == active.samples {
                self.complete(ticket, events);
            }
        }
    }

    /// All sequences of a request are finished: their rewards, and the answer.
    fn complete(&mut self, ticket: Ticket, events: &mut Vec<Event>) {
        let Some(active) = self.requests.get_mut(&ticket) else { return };
        let mut finished = std::mem::take(&mut active.finished);
        finished.sort_by_key(|finished| finished.sample);
        let request = active.request.clone();
        let Some(reward) = request.reward.clone() else {
            let done = self.done(ticket, finished, Vec::new());
            return self.closed(ticket, done, events);
        };
        let (policy, began) = (self.policy.clone(), Instant::now());
        let score = move |finished: Vec<Finished>| {
            let unscored: Vec<Unscored> = finished.iter().map(|f| f.unscored.clone()).collect();
            let input = (&request.prompt[..], request.asked.as_deref());
            let found = scores(&policy, &reward, input, &unscored);
            (finished, found, began.elapsed())
        };
        let remote = |reward: &Reward| matches!(reward, Reward::Text(text) if text.is_remote());
        let waits =
            active.request.reward.as_ref().is_some_and(|reward| reward.each().iter().any(remote));
        if waits && finished.iter().any(|finished| finished.unscored.known.is_none()) {
            self.asked += 1;
            return off_the_loop(self.answers.0.clone(), ticket, move || {
                let (finished, found, took) = score(finished);
                Remote::Finished(finished, found, took)
            });
        }
        let (finished, found, took) = score(finished);
        active.scoring += took;
        let done = found.and_then(|scores| self.done(ticket, finished, scores));
        self.closed(ticket, done, events);
    }

    /// The answer, or all samples, with the steps that are told now.
    fn done(
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
                let mut answer = finished.sequence.finish(score);
                answer.elapsed = finished.elapsed;
                Sample { answer, hidden: finished.hidden }
            };
            return Ok((finished.into_iter().zip(scores).map(sample).collect(), Vec::new()));
        }
        let (index, kl) = choose(&request.settings, &request.id, &scores)?;
        let calls = finished.len();
        let all = finished.iter().map(|finished| finished.elapsed).sum::<Duration>();
        let said = active.steps.remove(&index).unwrap_or_default();
        let chosen = finished.into_iter().nth(index).ok_or(Error::Stopped)?;
        let mut answer = chosen.sequence.finish(scores.into_iter().nth(index));
        answer.elapsed = chosen.elapsed;
        if request.settings.method.chooses_answers() {
            (answer.reward_calls, answer.kl) = (calls, Some(kl));
            answer.elapsed = all + active.scoring;
        }
        Ok((vec![Sample { answer, hidden: chosen.hidden }], said))
    }

    /// A request ends.
    fn closed(
        &mut self,
        ticket: Ticket,
        done: Result<(Vec<Sample>, Vec<Said>)>,
        events: &mut Vec<Event>,
    ) {
        match done {
            Ok((samples, said)) => {
                for (number, (step, text)) in said.into_iter().enumerate() {
                    let step = Box::new(step);
                    events.push(Event::Token { ticket, number, step, text });
                }
                self.requests.remove(&ticket);
                events.push(Event::Done { ticket, samples });
            }
            Err(error) => self.fail(ticket, error, events),
        }
    }

    /// Tells steps that were decided, or keeps them until it is known whether their sample is the answer.
    fn told(&mut self, ticket: Ticket, sample: usize, said: Result<Vec<Said>>, events: &mut Vec<Event>) {
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

    fn fail(&mut self, ticket: Ticket, error: Error, events: &mut Vec<Event>) {
        if self.requests.contains_key(&ticket) {
            self.cancel(ticket);
            events.push(Event::Failed { ticket, error });
        }
    }

    /// The policy itself failed.
    fn fail_all(&mut self, error: EngineError, events: &mut Vec<Event>) {
        let said = error.to_string();
        let tickets: Vec<Ticket> = self.works.iter().map(|work| work.ticket).collect();
        for ticket in tickets {
            self.fail(ticket, EngineError::Scorer(said.clone()).into(), events);
        }
    }
}

impl Active {
    /// Begins the next sample.
    fn begin(&mut self, policy: &Checkpoint, ticket: Ticket) -> Result<Work> {
        let request = &self.request;
        let (sample, settings) = (self.next_sample, &request.settings);
        self.next_sample += 1;
        let input = PromptInput { tokens: &request.prompt, prompt: request.asked.as_deref() };
        let state = match (request.want, settings.method, &request.reward) {
            (Want::Samples { .. }, ..) => None,
            (_, Method::Args, Some(reward)) => Some(reward.state(policy, input)?),
            (_, Method::Cd, _) => request.value.clone().map(RewardState::Value),
            _ => None,
        };
        let (seed, number) = (settings.seed, sample as u64);
        let streams = (
            Randomness::new(seed, &request.id, number),
            Randomness::of_perturbation(seed, &request.id, number),
        );
        let guide = state.as_ref().map(RewardState::span);
        let sequence = Sequence::new(policy, settings.clone(), guide, streams, self.max_tokens);
        let (prefix, hidden) = (self.prompt.prefix.clone(), self.prompt.hidden.clone());
        let hidden = hidden.ok_or(EngineError::NoTokens)?;
        let line = Line { sequence, prefix, hidden, state, ahead: None, pending: Pending::Logits };
        let keep_hidden = request.want == Want::Samples { hidden: true };
        // A head reads the hidden state that the last token leaves.
        let guided = request.want == Want::Answer && settings.method == Method::Args;
        let unseen = !guided || settings.perturbation != crate::Perturbation::None;
        let reads = request.reward.as_ref().is_some_and(Reward::reads_policy);
        let mut work = Work::new((ticket, sample), line, keep_hidden || unseen && reads, keep_hidden);
        work.elapsed = std::mem::take(&mut self.prefill);
        Ok(work)
    }
}

/// Checks a request; gives the maximum number of new tokens.
pub(crate) fn check(policy: &Checkpoint, request: &Request) -> Result<usize> {
    let (settings, model) = (&request.settings, &policy.model);
    settings.check(model.config().vocabulary)?;
    match (request.want, settings.method, &request.reward, &request.value) {
        (Want::Answer, Method::Cd, _, None) => return Err(Error::NoValueHead),
        (Want::Samples { .. }, ..) | (_, Method::Base | Method::Cd, ..) | (.., Some(_), _) => {}
        (_, method, None, _) => return Err(Error::NoReward(method.name())),
    }
    let prompt = request.prompt.len();
    let of_reward = request.reward.as_ref().map_or(usize::MAX, |reward| reward.context(model));
    let context = model.context().min(of_reward);
    if prompt == 0 {
        return Err(EngineError::NoTokens.into());
    }
    if prompt >= context {
        return Err(EngineError::Context { tokens: prompt + 1, context }.into());
    }
    Ok(settings.max_new_tokens.min(context - prompt))
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

/// Rewards of one sequence's inputs.
fn answers(mut inputs: Vec<Input>) -> Result<Vec<(Input, Vec<f64>)>> {
    let rewards = ask(&mut inputs.iter_mut().map(Input::question).collect::<Vec<_>>());
    let rewards = rewards.into_iter().collect::<stackelberg_engine::Result<Vec<_>>>()?;
    Ok(inputs.into_iter().zip(rewards).collect())
}

/// Computes something on a thread of its own.
fn off_the_loop(to: Sender<Answered>, ticket: Ticket, work: impl FnOnce() -> Remote + Send + 'static) {
    std::thread::spawn(move || {
        let what = work();
        // Nobody listens any more if the session is gone.
        let _ = to.send(Answered { ticket, what });
    });
}
