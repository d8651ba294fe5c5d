//! Calls to the server that runs the policy, and what comes of them.

use super::remote::{Answered, Remote};
use super::state::Session;
use crate::error::Error;
use crate::policy::{Found, RemotePolicy};
use crate::request::{Event, Ticket};

impl Session {
    /// Asks the server for what sequences need next. Each line of a sequence has its own call.
    pub(super) fn call(&mut self, policy: &RemotePolicy) {
        let most = policy.server.most_log_probs();
        for work in &mut self.works {
            let Some(active) = self.requests.get(&work.ticket) else { continue };
            let (ticket, sample) = (work.ticket, work.sample);
            for (line, call) in work.calls(&active.request, most) {
                let answers = self.answers.0.clone();
                let answer = move |found| {
                    let what = Remote::Policy { sample, line, found };
                    // Nobody listens any more if the session is gone.
                    let _ = answers.send(Answered { ticket, what });
                };
                work.in_flight.insert(line, policy.server.ask(call, Box::new(answer)));
            }
        }
    }

    /// Takes in what the server found for a line of a sequence.
    pub(super) fn continued(
        &mut self,
        (ticket, sample): (Ticket, usize),
        line: usize,
        found: Result<Found, String>,
        events: &mut Vec<Event>,
    ) {
        let mut works = self.works.iter_mut();
        let Some(work) = works.find(|work| work.ticket == ticket && work.sample == sample) else {
            return;
        };
        work.in_flight.remove(&line);
        let said = found.map_err(Error::Server).and_then(|found| work.found(line, found));
        work.finish_paths();
        self.told(ticket, sample, said, events);
    }
}
