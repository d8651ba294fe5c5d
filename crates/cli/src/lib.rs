//! The `stackelberg` command line: [`run`]. One file per subcommand: parse, call, print.
//!
//! It is a library, so that the Python package has the same command line as the program.

#![warn(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod arguments;
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

use std::ffi::OsString;
use std::io::{ErrorKind, Write};

use clap::error::ErrorKind as ClapErrorKind;
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

/// Runs a command line, whose first argument is the program's name, and returns the exit code: 0; 2 after an error, which is
/// printed; 128 and the signal's number after a signal that stopped the command. A second signal ends the process.
///
/// It reads the environment, and it watches for signals in commands that can stop: a process runs one command line.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Plain lines in pipes and files. A closed pipe loses them. A second command line of a process keeps the first one's log.
    let _ = log.with_ansi(false).log_internal_errors(false).try_init();
    choose_kernel();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    arguments::keep(&arguments);
    let code = match Cli::try_parse_from(arguments) {
        Ok(cli) => exit_code(cli.command.run()),
        Err(error) if is_help(error.kind()) => {
            // Help that nobody reads is no failure.
            let _ = error.print();
            u8::try_from(error.exit_code()).unwrap_or(2)
        }
        Err(error) => {
            note!("{}", in_one_line(&error.to_string()));
            2
        }
    };
    // Only the end of a Rust program does this by itself.
    let _ = std::io::stdout().flush();
    code
}

fn is_help(kind: ClapErrorKind) -> bool {
    use ClapErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    matches!(kind, DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand | DisplayVersion)
}

/// An error of a command line in one line, without the summary of its usage.
fn in_one_line(error: &str) -> String {
    let problem = error.split("\n\nUsage:").next().unwrap_or_default();
    let problem = problem.split("\n\nFor more information").next().unwrap_or_default();
    let lines: Vec<&str> = problem.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(" ").replace(" tip: ", "; ")
}

/// The exit code of a command, whose error is printed.
fn exit_code(outcome: anyhow::Result<()>) -> u8 {
    match outcome {
        Ok(()) => 0,
        // The reader closed the pipe, as `head` does.
        Err(error) if is_broken_pipe(&error) => 0,
        Err(error) if is_interrupted(&error) => {
            note!("{error}");
            interrupt::exit_code()
        }
        Err(error) => {
            note!("error: {}", said(&error));
            2
        }
    }
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
