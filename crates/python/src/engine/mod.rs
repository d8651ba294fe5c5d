//! Models that generate and score.
//!
//! ```text
//! Policy ─► Models (policy, rewards, value heads by name)          on the caller's side, without the GIL
//!   └ submit ─► Answers ◄── events ── decoding thread (Session)    one thread per policy
//! ```
//!
//! A [`Policy`] starts the thread that loads its models and owns the [`Session`](stackelberg_decoding::Session). Several Python
//! threads may submit requests. A caller waits for events without the GIL and handles Python's signals meanwhile ([`wait`]). A
//! reward may be a Python function ([`callable`]), which is called with the GIL on a thread of its own, never on the decoding
//! thread.

mod answer;
mod answers;
mod callable;
mod failure;
mod models;
mod policy;
mod scorer;
mod thread;
mod wait;

pub(crate) use answers::Answers;
pub(crate) use policy::Policy;
pub(crate) use scorer::Scorer;
