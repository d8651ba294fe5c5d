//! Output to standard output or to a file. Ctrl-C removes an unfinished file.

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
