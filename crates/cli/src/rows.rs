//! JSON lines, read one at a time, with errors that name file, line and field.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

/// The lines of a JSONL file or of standard input (`-`). Blank lines are passed over.
pub(crate) struct Rows {
    from: Box<dyn BufRead>,
    name: String,
    line: usize,
    bytes: Vec<u8>,
}

impl Rows {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let (from, name): (Box<dyn BufRead>, String) = if path == Path::new("-") {
            if io::stdin().is_terminal() {
                eprintln!("reading JSON lines from the terminal; Ctrl-D ends them");
            }
            (Box::new(io::stdin().lock()), "<stdin>".to_owned())
        } else {
            let name = path.display().to_string();
            let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
            if path.is_dir() {
                bail!("cannot read {name}: it is a folder; name a file");
            }
            (Box::new(BufReader::with_capacity(1 << 16, file)), name)
        };
        Ok(Self { from, name, line: 0, bytes: Vec::new() })
    }

    /// The next line. `None` at the end.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        loop {
            self.bytes.clear();
            let read = self.from.read_until(b'\n', &mut self.bytes);
            if read.with_context(|| format!("cannot read {}", self.name))? == 0 {
                return Ok(None);
            }
            self.line += 1;
            let bom: &[u8] = if self.line == 1 { b"\xef\xbb\xbf" } else { b"" };
            let bytes = self.bytes.strip_prefix(bom).unwrap_or(&self.bytes);
            if bytes.trim_ascii().is_empty() {
                continue;
            }
            let text = std::str::from_utf8(bytes).map_err(|e| {
                let at = e.valid_up_to() + 1;
                self.wrong(&format!("not UTF-8 from byte {at} of the line on: save the file as UTF-8"))
            })?;
            if !text.trim_start().starts_with('{') {
                return Err(self.wrong(&"not a JSON object: write one {...} per line"));
            }
            return match serde_json::from_str(text) {
                Ok(row) => Ok(Some(row)),
                Err(_) => Err(self.wrong(&diagnosis::<T>(text))),
            };
        }
    }

    /// An error about the line last read.
    pub(crate) fn wrong(&self, what: &dyn std::fmt::Display) -> anyhow::Error {
        anyhow!("{}:{}: {what}", self.name, self.line)
    }

    /// How the input is called in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// Reads a bad line again, slower, to say which field is wrong and where.
fn diagnosis<T: DeserializeOwned>(text: &str) -> String {
    let error =
        match serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_str(text)) {
            Err(error) => error,
            Ok(_) => {
                return "more than one JSON value on the line: write one object per line".to_owned();
            }
        };
    let field = error.path().to_string();
    let column = error.inner().column();
    let said = error.inner().to_string();
    let said = said.split(" at line ").next().unwrap_or(&said);
    let said = match error.inner().classify() {
        Category::Data => format!("{said} at column {column}"),
        Category::Eof => format!("{said}: the line breaks off"),
        _ => format!("{said} at column {column} (NaN and Infinity are not JSON)"),
    };
    if field == "." { said } else { format!("{field}: {said}") }
}

/// Paths as given on the command line, `-` for standard input.
pub(crate) fn stdin() -> PathBuf {
    PathBuf::from("-")
}
