//! The session: many requests decoded together on one policy.
//!
//! ```text
//! step: admit ─► logits ─► choices that need no look ahead ─► ONE forward (prefill chunks, candidates, tokens)
//!                                                             ─► rewards of the candidates ─► choices
//! ```
//!
//! If a server runs the policy, calls to it take the place of the forward pass: each sequence has its own, and the server
//! batches them.
//!
//! Requests with different settings, methods and rewards come and go at any step, and each has its own events. What an
//! answer becomes does not depend on which others are under way: the kernels are batch-invariant, and every sequence has
//! random numbers of its own.

mod active;
mod outcome;
mod pass;
mod remote;
mod rewards;
mod server;
mod state;

use std::time::{Duration, Instant};

use crate::policy::Policy;
use crate::request::Event;
pub(crate) use active::check;
pub use state::{Limits, Session};

impl Session {
    /// One step of all sequences. Events of a request come in order. If all sequences wait for rewards from outside, the
    /// step waits for one of them, a moment at most.
    pub fn step(&mut self) -> Vec<Event> {
        let began = Instant::now();
        let mut events = Vec::new();
        self.take_answers(&mut events);
        self.admit(&mut events);
        let policy = self.policy.clone();
        match &*policy {
            Policy::Local(policy) => {
                self.expect(policy, &mut events);
                // Rewards that do not read the policy's look ahead: what they choose takes part in the forward pass.
                self.score(&mut events);
                self.forward(policy, &mut events);
                self.score(&mut events);
            }
            Policy::Remote(policy) => {
                self.call(policy);
                self.score(&mut events);
            }
        }
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
}
