//! Which of two runs answers better? A judge model is asked, prompt by prompt, over any OpenAI-compatible
//! chat endpoint.
//!
//! # The way of a verdict
//!
//! Two runs that [`responses::pair`](stackelberg_data::generations::pair) has paired become [`Pair`]s. Each is asked about
//! once per [`Order`]: a [`Call`] fills the rating [`form`], the [`Client`] sends it and repeats what failed,
//! [`reply`] reads two scores of 1 to 10 out of what came back, and the [`Store`] keeps the [`Verdict`] before
//! anything else happens. [`ask`] does this for all calls, several at a time, and leaves out those that the
//! store has: no paid call is made twice. A [`Summary`] says who won, how sure that is, and how much of it is
//! the judge's liking for the first answer or the longer one.
//!
//! A call that gave no scores is a failure, never a tie.

mod ask;
mod client;
mod error;
pub mod form;
mod hash;
mod identity;
mod length;
mod pairs;
pub mod reply;
mod resampling;
mod store;
mod summary;
mod verdict;

pub use ask::{Asking, Outcome, Watch, ask};
pub use client::Client;
pub use error::Error;
pub use identity::Identity;
pub use length::length_controlled;
pub use pairs::{Call, Order, Pair, calls, judged_text, pairs};
pub use resampling::Resampling;
pub use stackelberg_remote::{Key, chat::Endpoint};
pub use store::{Spent, Store};
pub use summary::{Calls, Length, Position, Summary};
pub use verdict::{Failure, Kind, Verdict};
