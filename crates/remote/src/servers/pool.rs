//! Several servers that are alike: each call goes to the least busy one, and is sent again if it fails for a while.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::server::{Failure, Server};
use crate::retry::{LONGEST_ASKED, uniform};

/// Failures in a row after which a server is left alone for a while.
const SUSPICIOUS: usize = 4;
/// The longest wait that doubling leads to.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A call that servers are too busy for is given up after so long.
const LONGEST_BUSY: Duration = Duration::from_secs(600);

/// The servers.
pub(crate) struct Servers {
    all: Vec<Server>,
    patience: Patience,
    room: Semaphore,
}

/// How long a call is tried, and how many at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Failures after which a call is given up. A server that is too busy does not count.
    pub(crate) failures: usize,
    /// Malformed responses after which a call is given up.
    pub(crate) malformed: usize,
    /// The wait after a first failure. It doubles with each further one in a row.
    pub(crate) first_wait: Duration,
    /// Calls that are under way at once, at all servers together.
    pub(crate) at_once: usize,
}

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) struct Ended {
    /// A sentence that names the server.
    pub(crate) problem: String,
    /// The status with which the server refused the call, if that is why.
    pub(crate) refused: Option<u16>,
}

impl Servers {
    /// Servers that are alike; there is at least one.
    pub(crate) fn new(all: Vec<Server>, patience: Patience) -> Self {
        Self { all, patience, room: Semaphore::new(patience.at_once) }
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[Server] {
        &self.all
    }

    /// Posts a body to the least busy server, and reads the response.
    ///
    /// # Errors
    /// No server answers. `read` says what is wrong with a response.
    pub(crate) async fn ask<T>(
        &self,
        path: &str,
        body: &Value,
        read: impl Fn(&Value) -> Result<T, String>,
    ) -> Result<T, Ended> {
        self.try_some(None, path, body, read).await
    }

    /// Posts a body to the server with this number, and reads the response.
    ///
    /// # Errors
    /// As [`Servers::ask`].
    pub(crate) async fn ask_one<T>(
        &self,
        number: usize,
        path: &str,
        body: &Value,
        read: impl Fn(&Value) -> Result<T, String>,
    ) -> Result<T, Ended> {
        self.try_some(Some(number), path, body, read).await
    }

    async fn try_some<T>(
        &self,
        only: Option<usize>,
        path: &str,
        body: &Value,
        read: impl Fn(&Value) -> Result<T, String>,
    ) -> Result<T, Ended> {
        let _room = self.room.acquire().await;
        let body = body.to_string();
        let began = Instant::now();
        let (mut tries, mut failures, mut malformed) = (0, 0, 0);
        let mut failed_at = None;
        loop {
            let number = self.available(only, failed_at).await;
            let server = &self.all[number];
            tries += 1;
            let failure = match server.ask(path, &body, &read).await {
                Ok(found) => {
                    server.succeeded();
                    return Ok(found);
                }
                Err(failure) => failure,
            };
            let ended = |problem: String, refused| match tries {
                1 => Ended { problem, refused },
                n => Ended { problem: format!("{problem}, after {n} tries"), refused },
            };
            let (problem, wait, busy) = match failure {
                Failure::Final { problem, refused } => return Err(ended(problem, refused)),
                Failure::Malformed(problem) => {
                    malformed += 1;
                    (problem, None, false)
                }
                Failure::Temporary { problem, wait, busy } => (problem, wait, busy),
            };
            failures += usize::from(!busy);
            let asks_too_much = wait > Some(LONGEST_ASKED) || began.elapsed() > LONGEST_BUSY;
            let Patience { failures: most, malformed: most_malformed, first_wait, .. } = self.patience;
            if failures >= most || malformed >= most_malformed || asks_too_much {
                return Err(ended(problem, None));
            }
            failed_at = Some(number);
            let in_a_row = server.failed();
            if let Some(wait) = wait {
                server.leave_alone(wait);
            } else if busy || in_a_row >= SUSPICIOUS {
                server.leave_alone(doubled(first_wait, in_a_row / SUSPICIOUS));
            }
            sleep(doubled(first_wait, failures)).await;
        }
    }

    /// The least busy server, once one need not be left alone.
    async fn available(&self, only: Option<usize>, failed_at: Option<usize>) -> usize {
        loop {
            let number = only.unwrap_or_else(|| self.least_busy(failed_at));
            let rest = self.all[number].rest();
            if rest.is_zero() {
                return number;
            }
            // Not all at the same time.
            sleep(rest.min(LONGEST_BUSY).mul_f64(1.0 + 0.25 * uniform())).await;
        }
    }

    /// The server with the fewest calls among those that are not left alone, rather not the one at which the call has just
    /// failed; else the one that is available first.
    fn least_busy(&self, failed_at: Option<usize>) -> usize {
        let key = |&number: &usize| {
            let server = &self.all[number];
            (server.rest(), failed_at == Some(number), server.busy())
        };
        (0..self.all.len()).min_by_key(key).unwrap_or(0)
    }
}

/// The wait after so many failures, shortened at random by up to one half.
fn doubled(first: Duration, failures: usize) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(LONGEST_WAIT).mul_f64(0.5 + 0.5 * uniform())
}
