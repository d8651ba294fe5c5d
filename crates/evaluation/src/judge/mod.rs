//! Comparison of two runs by a judge model, over any OpenAI-compatible chat endpoint.
//!
//! # Overview
//!
//! [`pairs`](fn@pairs) turns two runs that [`generations::pair`](stackelberg_data::generations::pair) has paired into
//! [`Pair`]s. [`calls`] makes one [`Call`] per pair and [`Order`] of the answers. [`ask`] sends the calls, several at a
//! time: it fills the rating [`form`], the [`Client`] sends the form and repeats failed requests, [`reply`] reads two
//! scores from 1 to 10, and the [`Store`] appends a [`Verdict`] to its file. Calls whose verdicts are in the file are not
//! sent again. The [`Summary`] has win rates with intervals, and estimates of the judge's preference for the first
//! answer and for the longer answer.
//!
//! A call without scores is a failure, not a tie.

mod ask;
mod client;
mod error;
pub mod form;
mod hash;
mod identity;
mod length;
mod pairs;
pub mod reply;
mod report;
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
pub use report::Report;
pub use resampling::Resampling;
pub use stackelberg_remote::{Key, chat::Endpoint};
pub use store::{Spent, Store};
pub use summary::{Calls, Length, Position, Summary};
pub use verdict::{Failure, Kind, Verdict};
