//! What the server promises its clients, on a tiny model.

mod common;
#[path = "../../engine/tests/common/tiny.rs"]
mod tiny;

mod answers;
mod connections;
mod guidance;
mod limits;
mod logprobs;
mod operations;
mod playground;
mod pooling;
mod refused;
mod rewards;
mod tokens;
