//! Connecting to the servers of a model: all are asked what they are, and must be alike.

use std::time::Duration;

use futures_util::future::join_all;
use stackelberg_engine::{Error, Result};
use stackelberg_http::redacted;

use super::{Background, Patience, Server, Servers};
use crate::address;
use crate::key::Key;

/// The longest time of a call.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The servers of a model.
pub(crate) struct Connected<F> {
    pub(crate) servers: Servers,
    /// What the first one said of itself.
    pub(crate) facts: F,
    pub(crate) background: Background,
}

/// Connects to `http://HOST:PORT/v1#NAME`; more addresses follow commas. `ask` finds out what a server is, given the model's name
/// (empty for the only one); all are asked at the same time. `difference` says how a server's facts differ from those of the first,
/// if they do. `threads` names the threads that serve the connections.
///
/// # Errors
/// An address is malformed, a server cannot be asked or is unlike the first.
pub(crate) fn connect<F>(
    threads: &str,
    addresses: &str,
    key: Option<&Key>,
    patience: Patience,
    ask: impl AsyncFn(&Server, &str) -> std::result::Result<F, String>,
    difference: impl Fn(&F, &F) -> Option<String>,
) -> Result<Connected<F>> {
    let background = Background::new(threads)
        .map_err(|error| Error::Scorer(format!("cannot start threads: {error}")))?;
    let (addresses, model) = address::split_name(addresses);
    let server =
        |address: &str| Server::new(address.trim_end_matches('/'), redacted(address), key, TIMEOUT);
    let all = address::several(addresses).map(server).collect::<std::result::Result<Vec<_>, _>>();
    let servers = Servers::new(all.map_err(Error::Scorer)?, patience);
    let asked = join_all(servers.all().iter().map(|server| ask(server, model)));
    let facts = background.wait(asked).into_iter().collect::<std::result::Result<Vec<F>, String>>();
    let mut facts = facts.map_err(Error::Scorer)?.into_iter();
    let none = "give an address that begins with http:// or https://";
    let first = facts.next().ok_or_else(|| Error::Scorer(none.to_owned()))?;
    let at = servers.all()[0].shown();
    for (server, own) in servers.all()[1..].iter().zip(facts) {
        if let Some(problem) = difference(&own, &first) {
            let problem = format!("is not like {at}: {problem}; servers of one model must be alike");
            return Err(Error::Scorer(server.named(problem)));
        }
    }
    Ok(Connected { servers, facts: first, background })
}
