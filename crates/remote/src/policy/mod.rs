//! Policies that a server runs: vLLM, llama-server, or `stackelberg serve`, through `/v1/completions`.
//!
//! ```text
//! ask ─► request ─► servers ─► response ─► tokens and log-probabilities
//! ```

mod client;
mod discovery;
mod request;
mod response;

pub use client::PolicyClient;
