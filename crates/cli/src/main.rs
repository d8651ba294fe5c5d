//! The `stackelberg` command. One file per subcommand: parse, call, print.

#![warn(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod evaluate;
mod experiment;
mod filling;
mod generate;
mod help;
mod import;
mod input;
mod interrupt;
mod judge;
mod limits;
mod model;
mod models;
mod output;
mod progress;
mod rollout;
mod sampling;
mod score;
mod serve;
mod shape;
mod shaping;
mod terminal;
mod threshold;
mod train;
mod training;
mod tune;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use output::note;

/// Reward-guided decoding for causal language models, with provably optimal reward shaping.
#[derive(Parser)]
#[command(name = "stackelberg", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Generate(Box<generate::Generate>),
    Serve(Box<serve::Serve>),
    Rollout(Box<rollout::Rollout>),
    Score(score::Score),
    Judge(Box<judge::Judge>),
    Threshold(threshold::Threshold),
    Train(train::Train),
    Shape(shape::Shape),
    Evaluate(Box<evaluate::Evaluate>),
    Tune(Box<tune::Tune>),
    Experiment(experiment::Command),
    Bench(bench::Bench),
    Models(models::Models),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

impl Command {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Generate(generate) => generate.run(),
            Self::Serve(serve) => serve.run(),
            Self::Rollout(rollout) => rollout.run(),
            Self::Score(score) => score.run(),
            Self::Threshold(threshold) => threshold.run(),
            Self::Train(train) => train.run(),
            Self::Shape(shape) => shape.run(),
            Self::Judge(judge) => judge.run(),
            Self::Evaluate(evaluate) => evaluate.run(),
            Self::Tune(tune) => tune.run(),
            Self::Experiment(experiment) => experiment.run(),
            Self::Bench(bench) => bench.run(),
            Self::Models(models) => models.run(),
            Self::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "stackelberg", &mut script);
                Ok(std::io::stdout().write_all(&script)?)
            }
        }
    }
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Plain lines in pipes and files. A closed pipe loses them.
    log.with_ansi(false).log_internal_errors(false).init();
    choose_kernel();
    let result = parse().command.run();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader closed the pipe, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) if is_interrupted(&error) => {
            note!("{error}");
            ExitCode::from(interrupt::exit_code())
        }
        Err(error) => {
            note!("error: {}", said(&error));
            ExitCode::from(2)
        }
    }
}

/// Parses the command line. A value that is no good is an error of one line.
fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|error| {
        if error.kind() != clap::error::ErrorKind::ValueValidation {
            error.exit();
        }
        note!("{}", error.to_string().lines().next().unwrap_or_default());
        std::process::exit(2)
    })
}

/// Selects the kernel named by STACKELBERG_KERNEL. If this processor lacks it, the best available kernel is used.
fn choose_kernel() {
    let Ok(name) = std::env::var("STACKELBERG_KERNEL") else { return };
    if let Err(error) = stackelberg_engine::kernel::choose(&name) {
        note!("warning: STACKELBERG_KERNEL: {error}; using the first of them");
    }
}

/// An error and its causes on one line. A cause that the message so far already ends with is not repeated.
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

fn is_interrupted(error: &anyhow::Error) -> bool {
    let experiment = error.downcast_ref::<stackelberg_experiment::Error>();
    error.is::<interrupt::Interrupted>()
        || matches!(experiment, Some(stackelberg_experiment::Error::Interrupted(_)))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
    };
    error.chain().any(io)
}
