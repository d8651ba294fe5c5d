//! What decoding promises, on tiny models and on the real default model.

mod common;
#[path = "../../engine/tests/common/weights.rs"]
mod weights;

mod blocks;
mod cd;
mod choices;
mod device;
mod golden;
mod kl;
mod rejection;
mod remote_policy;
mod remote_states;
mod segments;
mod session;
mod soft;
mod theory;
mod tiny;
mod tokens;
