//! Tests of the crate, as one program.

#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/judging.rs"]
mod judging;

mod findings;
mod judge;
mod judge_server;
mod judge_summary;
mod report;
mod text;
