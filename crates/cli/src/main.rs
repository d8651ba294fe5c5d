//! The `stackelberg` command. One file per subcommand: parse, call, print.

#![warn(clippy::unwrap_used)]

mod bench;
mod generate;
mod import;
mod judge;
mod model;
mod models;
mod output;
mod plot;
mod prompts;
mod record;
mod rollout;
mod rows;
mod sampling;
mod score;
mod shape;
mod shaping;
mod summary;
mod terminal;
mod threshold;
mod train;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Make any causal language model follow a reward, with provably optimal reward shaping.
#[derive(Parser)]
#[command(name = "stackelberg", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Generate(Box<generate::Generate>),
    Rollout(Box<rollout::Rollout>),
    Score(score::Score),
    Judge(Box<judge::Judge>),
    Threshold(threshold::Threshold),
    Train(train::Train),
    Shape(shape::Shape),
    Bench(bench::Bench),
    /// List models, prompts, data and rewards that are known by name.
    Models,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let result = match Cli::parse().command {
        Command::Generate(generate) => generate.run(),
        Command::Rollout(rollout) => rollout.run(),
        Command::Score(score) => score.run(),
        Command::Judge(judge) => judge.run(),
        Command::Threshold(threshold) => threshold.run(),
        Command::Train(train) => train.run(),
        Command::Shape(shape) => shape.run(),
        Command::Bench(bench) => bench.run(),
        Command::Models => models::run(),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "stackelberg", &mut std::io::stdout());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has enough of it.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) if error.is::<generate::Interrupted>() => {
            eprintln!("{error}");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {}", said(&error));
            ExitCode::from(2)
        }
    }
}

/// An error and its causes; those that a message has told already are not told again.
fn said(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !said.ends_with(&cause) {
            said.push_str(if said.is_empty() { "" } else { ": " });
            said.push_str(&cause);
        }
    }
    said
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
    };
    error.chain().any(io)
}
