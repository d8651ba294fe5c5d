//! Rewards outside of this process.

mod http;
mod program;
mod protocol;

pub use http::HttpReward;
pub use program::ProgramReward;
