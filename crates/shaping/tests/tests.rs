//! Tests of the public interface of `stackelberg-shaping`.

mod common;
mod errors;
mod frontier;
mod golden;
mod interval;
mod kl_budget;
mod rules;
mod threshold;
