//! The command line as a user runs it.

mod common;
#[path = "../../evaluation/tests/judge_server/mod.rs"]
mod judge_server;
#[path = "../../engine/tests/common/tiny.rs"]
mod tiny;

mod bench;
mod certificates;
mod evaluate;
mod experiment;
mod generate;
mod held_out;
mod help;
mod import;
mod judge;
mod limits;
mod models;
mod remote_policy;
mod remote_states;
mod rollout;
mod serve;
mod shape;
mod signals;
mod text_rewards;
mod threshold;
mod train_value;
mod tune;
