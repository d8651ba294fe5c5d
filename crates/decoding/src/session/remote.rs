//! Rewards that take long, such as those of servers: they are asked off the loop.

use std::sync::mpsc::Sender;
use std::time::Duration;

use crate::error::Result;
use crate::input::Input;
use crate::request::Ticket;
use crate::score::Score;
use crate::work::Finished;

/// What came back from off the loop.
pub(super) struct Answered {
    pub(super) ticket: Ticket,
    pub(super) what: Remote,
}

pub(super) enum Remote {
    /// Rewards of a sequence's candidates.
    Candidates(usize, Result<Vec<(Input, Vec<f64>)>>),
    /// Rewards of finished answers.
    Finished(Vec<Finished>, Result<Vec<Score>>, Duration),
}

/// Computes something on a thread of its own.
pub(super) fn off_the_loop(
    to: Sender<Answered>,
    ticket: Ticket,
    work: impl FnOnce() -> Remote + Send + 'static,
) {
    std::thread::spawn(move || {
        let what = work();
        // Nobody listens any more if the session is gone.
        let _ = to.send(Answered { ticket, what });
    });
}
