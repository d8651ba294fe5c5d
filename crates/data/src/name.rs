//! How messages call a file.

use std::path::Path;

/// A file's name in messages: its path, `<stdin>` for `-`.
pub fn name_of(path: &Path) -> String {
    if path == Path::new("-") { "<stdin>".to_owned() } else { path.display().to_string() }
}
