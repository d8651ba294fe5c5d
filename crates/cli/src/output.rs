//! Output to standard output or to a file. Ctrl-C removes an unfinished file.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Result;
use stackelberg_data::Output;

use crate::interrupt;

/// Opens `path`, or standard output for `None`.
pub(crate) fn open(path: Option<&Path>) -> Result<Output> {
    let output = Output::create(path.unwrap_or(Path::new("-")))?;
    if let Some(unfinished) = output.temporary_path() {
        interrupt::remove_unfinished(unfinished)?;
    }
    Ok(output)
}

/// Completes an output of [`open`].
pub(crate) fn finish(output: Output) -> Result<()> {
    output.finish()?;
    interrupt::forget();
    Ok(())
}

/// Prints a line to standard output. A closed pipe is an error, with which the command ends quietly.
macro_rules! say {
    ($($what:tt)*) => { $crate::output::print(format_args!($($what)*)) };
}

/// Prints a line to standard error. If nobody reads it, it is lost.
macro_rules! note {
    ($($what:tt)*) => { $crate::output::print_error(format_args!($($what)*)) };
}

pub(crate) use {note, say};

/// See [`say`].
pub(crate) fn print(what: Arguments<'_>) -> io::Result<()> {
    writeln!(io::stdout(), "{what}")
}

/// See [`note`].
pub(crate) fn print_error(what: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{what}");
}
