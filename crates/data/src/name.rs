//! Names of files in messages.

use std::path::Path;

/// The name of a file in messages: its path, or `<stdin>` for `-`.
pub fn name_of(path: &Path) -> String {
    if path == Path::new("-") { "<stdin>".to_owned() } else { path.display().to_string() }
}
