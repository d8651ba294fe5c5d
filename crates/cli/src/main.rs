//! The `stackelberg` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(stackelberg_cli::run(std::env::args_os()))
}
