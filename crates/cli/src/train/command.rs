//! The command that a head was trained with, for its records.

/// The command line without --resume: it trains the same head from the beginning.
pub(super) fn command_line() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--resume").collect();
    format!("stackelberg {}", arguments.join(" "))
}
