//! The command line, which the script `stackelberg` of the package runs.

use std::ffi::OsString;

use pyo3::{Python, pyfunction};

/// Runs a command line, whose first argument is the program's name, and returns the exit code.
#[pyfunction]
pub(crate) fn command_line(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| stackelberg_cli::run(arguments))
}
