//! `stackelberg train`: reward heads from preference pairs or ratings, value heads from rollouts.

mod command;
mod reward;
mod value;

use anyhow::Result;
use clap::{Args, Subcommand};

/// Train reward heads, and value heads on rollouts.
#[derive(Args)]
pub(crate) struct Train {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Reward(reward::TrainReward),
    Value(value::TrainValue),
}

impl Train {
    pub(crate) fn run(&self) -> Result<()> {
        match &self.what {
            What::Reward(train) => train.run(),
            What::Value(train) => train.run(),
        }
    }
}
