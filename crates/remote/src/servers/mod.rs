//! Servers that are asked over HTTP: one, or several that are alike.
//!
//! ```text
//! ask ─► the least busy server ─► response ─► what the caller reads in it
//!          ▲ waits, other servers │
//!          └──────────────────────┘
//! ```

mod background;
mod connect;
mod pool;
mod server;

pub(crate) use background::Background;
pub(crate) use connect::{Connected, connect};
pub(crate) use pool::{Ended, Patience, Servers};
pub(crate) use server::{Failure, LONGEST_ANSWER, Server};
