//! What commands read: files, or standard input for `-`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::Result;
use stackelberg_data::Prompt;
use stackelberg_registry::Registry;

/// Standard input, as commands name it.
pub(crate) fn stdin() -> PathBuf {
    PathBuf::from("-")
}

/// Tells the user that the command waits for lines, where they have to be typed.
pub(crate) fn note_terminal<'p>(paths: impl IntoIterator<Item = &'p PathBuf>, what: &str) {
    let typed = paths.into_iter().any(|path| path == Path::new("-"));
    if typed && std::io::stdin().is_terminal() {
        eprintln!("reading {what} as JSON lines from the terminal; Ctrl-D ends them");
    }
}

/// Prompts of a file, or of a known set, with their ids.
pub(crate) fn prompts(registry: &Registry, name: &str) -> Result<Vec<(String, Prompt)>> {
    note_terminal([&PathBuf::from(name)], "prompts");
    Ok(registry.prompts(name)?)
}
