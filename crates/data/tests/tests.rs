//! Tests of the public interface of `stackelberg-data`.

mod common;
mod lines;
mod pairs;
mod prompts;
mod rated;
