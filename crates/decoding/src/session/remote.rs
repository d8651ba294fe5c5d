//! Rewards that take long, such as those of servers: they are asked off the loop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Sender;
use std::thread::Builder;
use std::time::Duration;

use crate::error::Result;
use crate::input::Answers;
use crate::policy::Found;
use crate::request::Ticket;
use crate::score::Score;
use crate::work::Finished;

/// What came back from off the loop.
pub(super) struct Answered {
    pub(super) ticket: Ticket,
    pub(super) what: Remote,
}

pub(super) enum Remote {
    /// What the policy's server found for a line of a sequence.
    Policy { sample: usize, line: usize, found: std::result::Result<Found, String> },
    /// Rewards of a sequence's candidates and texts.
    Candidates(usize, Result<Answers>),
    /// Rewards of finished answers.
    Finished(Vec<Finished>, Result<Vec<Score>>, Duration),
    /// Nothing: the work panicked, or had no thread.
    Failed(String),
}

/// Computes something on a thread of its own. There is always an answer.
pub(super) fn off_the_loop(
    to: Sender<Answered>,
    ticket: Ticket,
    work: impl FnOnce() -> Remote + Send + 'static,
) {
    let sender = to.clone();
    let run = move || {
        let what = catch_unwind(AssertUnwindSafe(work));
        let what = what.unwrap_or_else(|_| Remote::Failed("the reward panicked".to_owned()));
        // Nobody listens any more if the session is gone.
        let _ = sender.send(Answered { ticket, what });
    };
    if let Err(error) = Builder::new().name("reward".to_owned()).spawn(run) {
        let what = Remote::Failed(format!("cannot start a thread for the reward: {error}"));
        let _ = to.send(Answered { ticket, what });
    }
}
