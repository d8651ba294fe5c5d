//! Tests of the crate, as one program.

#[path = "common/fixture.rs"]
mod fixture;

mod findings;
mod judge;
mod judge_server;
mod report;
mod text;
