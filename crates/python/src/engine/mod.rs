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
//!
//! Rollouts, trainings and evaluations are work on a thread of its own ([`work`]), which tells its caller how far it is.

mod answer;
mod answers;
mod callable;
mod evaluation;
mod failure;
mod models;
mod policy;
mod rollouts;
mod scorer;
mod thread;
mod training;
mod wait;
mod work;

pub(crate) use answers::Answers;
pub(crate) use evaluation::evaluate;
pub(crate) use policy::Policy;
pub(crate) use rollouts::{Rollouts, rollout};
pub(crate) use scorer::Scorer;
pub(crate) use training::{train_reward, train_value};
