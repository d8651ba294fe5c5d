//! The command that a head was trained with, for its records.

use stackelberg_data::words;

use crate::arguments;

/// The command line without --resume: it trains the same head from the beginning.
pub(super) fn command_line() -> String {
    let arguments = arguments::all().into_iter().skip(1).filter(|arg| arg != "--resume");
    words::command_line(std::iter::once("stackelberg".to_owned()).chain(arguments))
}
