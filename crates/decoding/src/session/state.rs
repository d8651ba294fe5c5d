//! The state of a session: what is asked of it, and what is under way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::active::{Active, Prefilling, check};
use super::remote::Answered;
use crate::error::Result;
use crate::policy::Policy;
use crate::prefixes::{CacheCounts, Prefixes};
use crate::request::{Request, Ticket, Want};
use crate::stopping::first;
use crate::work::Work;

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

/// Decodes requests on a policy, local or on a server. One thread owns it.
pub struct Session {
    pub(super) policy: Arc<Policy>,
    pub(super) limits: Limits,
    pub(super) next: u64,
    pub(super) requests: BTreeMap<Ticket, Active>,
    /// Requests that wait for their first sequence, in order.
    pub(super) waiting: VecDeque<Ticket>,
    pub(super) works: Vec<Work>,
    pub(super) prefixes: Prefixes,
    pub(super) answers: (Sender<Answered>, Receiver<Answered>),
    /// Questions that are asked off the loop.
    pub(super) asked: usize,
    /// Time spent on rewards, in the loop.
    pub(super) rewarding: Duration,
}

impl Session {
    /// A session without requests.
    pub fn new(policy: impl Into<Policy>, limits: Limits) -> Self {
        let policy = Arc::new(policy.into());
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
            rewarding: Duration::ZERO,
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
        let samples = match request.want {
            Want::Answer => request.most_samples().min(first(&request.settings)),
            Want::Samples { .. } => request.most_samples(),
        };
        let prompt = Prefilling::new(&self.policy)?;
        let active = Active {
            request: Arc::new(request),
            max_tokens,
            prompt,
            ended: 0,
            next_sample: 0,
            samples,
            finished: Vec::new(),
            steps: BTreeMap::new(),
            told: 0,
            prefilled: false,
            prefill: Duration::ZERO,
            scoring: Duration::ZERO,
            arrived: Instant::now(),
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

    /// Time that steps have spent on rewards and value heads. Rewards that are asked off the loop are not counted.
    pub fn reward_time(&self) -> Duration {
        self.rewarding
    }

    /// What the cache of prefilled prompts has done.
    pub fn cache(&self) -> CacheCounts {
        self.prefixes.counts
    }
}
