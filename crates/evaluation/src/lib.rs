/*!
Numbers that can be trusted about answers: metrics, paired comparisons, a judge, a report.

# Overview

[`responses::read`] reads answers, this project's or others', and [`responses::pair`] pairs two runs by prompt.
[`judge`] asks a model which of the two answers better.
*/

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod compare;
mod error;
pub mod findings;
pub mod judge;
pub mod metrics;
pub mod report;
pub mod responses;
pub mod text;
pub mod words;

pub use error::{Error, Result};
