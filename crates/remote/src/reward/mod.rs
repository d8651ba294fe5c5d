//! Rewards outside of this process.

mod check;
mod http;
mod label;
mod program;
mod protocol;

pub use check::RewardCheck;
pub use http::HttpReward;
pub use program::ProgramReward;
