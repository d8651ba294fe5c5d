//! Tests of the public interface of `stackelberg-data`.

mod common;
mod journal;
mod lines;
mod pairs;
mod prompts;
mod rated;
