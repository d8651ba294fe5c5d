//! Calls to the server that runs the policy, and what comes of them.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::remote::{Answered, Remote};
use super::state::Session;
use crate::error::Error;
use crate::policy::{Call, Found, RemotePolicy, Wanted};
use crate::request::{Event, Ticket};

/// A call for lines of a request, each by its work, the number of its sample, and its own number.
struct Joined {
    ticket: Ticket,
    call: Call,
    lines: Vec<(usize, usize, usize)>,
}

impl Session {
    /// Asks the server for what sequences need next. Lines of a request that continue the same text share a call; others
    /// have calls of their own.
    pub(super) fn call(&mut self, policy: &RemotePolicy) {
        let most = policy.server.most_log_probs();
        let together = policy.server.most_continuations();
        let mut calls: Vec<Joined> = Vec::new();
        for (index, work) in self.works.iter_mut().enumerate() {
            let Some(active) = self.requests.get(&work.ticket) else { continue };
            let (ticket, sample) = (work.ticket, work.sample);
            for (line, call) in work.calls(&active.request, most) {
                let mut own = calls.iter_mut().rev().take_while(|joined| joined.ticket == ticket);
                let line = (index, sample, line);
                match own.find(|joined| joined.lines.len() < together && joined.call.joins(&call)) {
                    Some(joined) => joined.lines.push(line),
                    None => calls.push(Joined { ticket, call, lines: vec![line] }),
                }
            }
        }
        for Joined { ticket, mut call, lines } in calls {
            if let Wanted::Continuation { n, .. } = &mut call.wanted {
                *n = lines.len();
            }
            let (answers, told) = (self.answers.0.clone(), lines.clone());
            let answer = move |found| answer(&answers, ticket, &told, found);
            let in_flight = Arc::new(policy.server.ask(call, Box::new(answer)));
            for (index, _, line) in lines {
                self.works[index].in_flight.insert(line, in_flight.clone());
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

/// Tells each line of a call what was found for it. A call that failed fails its request: that is told once.
fn answer(
    to: &Sender<Answered>,
    ticket: Ticket,
    lines: &[(usize, usize, usize)],
    found: Result<Vec<Found>, String>,
) {
    let found = found.and_then(|found| match found.len() == lines.len() {
        true => Ok(found),
        false => {
            let (n, wanted) = (found.len(), lines.len());
            Err(format!("the server gave {n} continuations where {wanted} were asked for"))
        }
    });
    let each = match found {
        Ok(found) => found.into_iter().map(Ok).collect(),
        Err(problem) => vec![Err(problem)],
    };
    for (&(_, sample, line), found) in lines.iter().zip(each) {
        // Nobody listens any more if the session is gone.
        let _ = to.send(Answered { ticket, what: Remote::Policy { sample, line, found } });
    }
}
