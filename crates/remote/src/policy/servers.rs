//! Several servers that are alike: each call goes to the least busy one, and is sent again if it fails for a while.

use std::time::{Duration, Instant};

use serde_json::Value;
use stackelberg_decoding::policy::{Call, Found};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::request::{Dialect, body};
use super::response::found;
use super::server::{Failure, Server};
use crate::key::Key;
use crate::retry::uniform;

/// Calls that are under way at once, at all servers together.
const AT_ONCE: usize = 512;
/// Failures after which a call is given up. A server that is too busy does not count.
const FAILURES: usize = 9;
/// Failures in a row after which a server is left alone for a while.
const SUSPICIOUS: usize = 4;
/// The wait after a first failure. It doubles with each further one in a row.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait that doubling leads to.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A call that servers are too busy for is given up after so long.
const PATIENCE: Duration = Duration::from_secs(600);

/// The servers.
pub(super) struct Servers {
    pub(super) all: Vec<Server>,
    /// The model's name.
    pub(super) model: String,
    pub(super) dialect: Dialect,
    room: Semaphore,
}

impl Servers {
    /// Of `http://A/v1,http://B/v1#NAME`. The name is empty if none is given.
    ///
    /// # Errors
    /// A sentence says what is wrong with an address or the key.
    pub(super) fn new(addresses: &str, key: Option<&Key>) -> Result<Self, String> {
        let (addresses, model) = addresses.split_once('#').unwrap_or((addresses, ""));
        let addresses = addresses.split(',').map(str::trim).filter(|address| !address.is_empty());
        let all = addresses.map(|address| Server::new(address, key)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            all,
            model: model.to_owned(),
            dialect: Dialect::default(),
            room: Semaphore::new(AT_ONCE),
        })
    }

    /// What the policy says to a call.
    ///
    /// # Errors
    /// A sentence says why no server answers.
    pub(super) async fn find(&self, call: &Call) -> Result<Found, String> {
        let _room = self.room.acquire().await;
        let body = body(self.dialect, &self.model, call);
        let began = Instant::now();
        let mut failures = 0;
        loop {
            let server = self.available().await;
            let (problem, wait, busy) = match self.once(server, &body, call).await {
                Ok(found) => {
                    server.succeeded();
                    return Ok(found);
                }
                Err(Failure::Final(problem)) => return Err(problem),
                Err(Failure::Temporary { problem, wait, busy }) => (problem, wait, busy),
            };
            failures += usize::from(!busy);
            if failures >= FAILURES || began.elapsed() > PATIENCE || wait > Some(PATIENCE) {
                return Err(format!("{problem}, after {} tries", failures.max(1)));
            }
            let in_a_row = server.failed();
            if let Some(wait) = wait {
                server.leave_alone(wait);
            } else if busy || in_a_row >= SUSPICIOUS {
                server.leave_alone(doubled(in_a_row / SUSPICIOUS));
            }
            sleep(doubled(failures)).await;
        }
    }

    /// The least busy server, once one need not be left alone.
    async fn available(&self) -> &Server {
        loop {
            let server = self.least_busy();
            let rest = server.rest();
            if rest.is_zero() {
                return server;
            }
            // Not all at the same time.
            sleep(rest.min(PATIENCE).mul_f64(1.0 + 0.25 * uniform())).await;
        }
    }

    async fn once(&self, server: &Server, body: &Value, call: &Call) -> Result<Found, Failure> {
        let _busy = server.begin();
        let response = server.post("completions", body).await?;
        // A wrong answer may be that of one broken server.
        found(&response, call).map_err(|problem| Failure::Temporary {
            problem: server.named(problem),
            wait: None,
            busy: false,
        })
    }

    /// The server with the fewest calls among those that are not left alone; else the one that is available first.
    fn least_busy(&self) -> &Server {
        let key = |server: &&Server| (server.rest(), server.busy());
        self.all.iter().min_by_key(key).unwrap_or(&self.all[0])
    }
}

/// The wait after so many failures, shortened at random by up to one half.
fn doubled(failures: usize) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(LONGEST_WAIT).mul_f64(0.5 + 0.5 * uniform())
}
