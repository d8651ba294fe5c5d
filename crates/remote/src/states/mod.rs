//! Hidden states of a policy's model that a server computes, through vLLM's `/pooling`.
//!
//! ```text
//! token ids ─► request ─► servers ─► base64 ─► rows of numbers
//! ```

mod client;
mod discovery;
mod pooling;

pub use client::StatesClient;
