/*!
Numbers that can be trusted about answers: metrics, paired comparisons, a judge, a report.

# Overview

[`responses::read`] reads answers, this project's or others', and [`responses::pair`] pairs two runs by prompt.
[`judge`] asks a model which of the two answers better.
*/

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod error;
pub mod judge;
pub mod report;
pub mod responses;

pub use error::{Error, Result};
