//! Input of the commands: files, or standard input for `-`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use stackelberg_data::Prompt;
use stackelberg_registry::Registry;

use crate::output::note;

/// The path that stands for standard input.
pub(crate) fn stdin() -> PathBuf {
    PathBuf::from("-")
}

/// Tells the user that the command waits for input, if standard input is a terminal.
pub(crate) fn note_terminal<'p>(paths: impl IntoIterator<Item = &'p PathBuf>, what: &str) {
    let typed = paths.into_iter().any(|path| path == Path::new("-"));
    if typed && std::io::stdin().is_terminal() {
        note!("reading {what} as JSON lines from the terminal; press Ctrl-D to finish");
    }
}

/// Reads a text from standard input, without its last line break.
pub(crate) fn text() -> Result<String> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        note!("reading the prompt from the terminal; press Ctrl-D to finish");
    }
    let mut text =
        std::io::read_to_string(stdin).context("cannot read the prompt from standard input")?;
    let end = text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text).len());
    text.truncate(end.unwrap_or(text.len()));
    Ok(text)
}

/// Reads the prompts of a file, or of a known set, with their ids.
pub(crate) fn prompts(registry: &Registry, name: &str) -> Result<Vec<(String, Prompt)>> {
    note_terminal([&PathBuf::from(name)], "prompts");
    Ok(registry.prompts(name)?)
}
