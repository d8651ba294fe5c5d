//! The command line that runs, for records. It is not always that of the process: Python's interpreter runs it, too.

use std::ffi::OsString;
use std::sync::Mutex;

/// The program's name and its arguments.
static ARGUMENTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps the command line that runs now.
pub(crate) fn keep(arguments: &[OsString]) {
    if let Ok(mut kept) = ARGUMENTS.lock() {
        *kept = arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
    }
}

/// The program's name and its arguments.
pub(crate) fn all() -> Vec<String> {
    ARGUMENTS.lock().map(|kept| kept.clone()).unwrap_or_default()
}
