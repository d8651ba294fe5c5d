//! Policies that a server runs: vLLM, llama-server, or `stackelberg serve`, through `/v1/completions`.
//!
//! ```text
//! ask ─► request ─► the least busy server ─► response ─► tokens and log-probabilities
//!                     ▲ waits, other servers │
//!                     └──────────────────────┘
//! ```

mod client;
mod discovery;
mod request;
mod response;
mod server;
mod servers;

pub use client::PolicyClient;
