//! Lines of a text file, plain or gzipped, read one at a time, with errors that name file and line.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// The lines of a file or of standard input (`-`). Blank lines are passed over; gzip is known by its
/// first bytes, whatever the file is called.
pub(crate) struct Lines {
    from: Box<dyn BufRead>,
    name: String,
    line: usize,
    bytes: Vec<u8>,
}

impl Lines {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let stdin = path == Path::new("-");
        let name = if stdin { "<stdin>".to_owned() } else { path.display().to_string() };
        let failed = |source| Error::Read { file: name.clone(), source };
        let mut plain: Box<dyn BufRead> = if stdin {
            Box::new(io::stdin().lock())
        } else {
            let file = File::open(path).map_err(failed)?;
            if path.is_dir() {
                return Err(failed(io::Error::other("it is a folder; name a file")));
            }
            Box::new(BufReader::with_capacity(1 << 16, file))
        };
        let zipped = plain.fill_buf().map_err(failed)?.starts_with(b"\x1f\x8b");
        let from: Box<dyn BufRead> =
            if zipped { Box::new(BufReader::new(MultiGzDecoder::new(plain))) } else { plain };
        Ok(Self { from, name, line: 0, bytes: Vec::new() })
    }

    /// Reads the next line that is not blank; `false` at the end. [`Lines::text`] then has it.
    pub(crate) fn advance(&mut self) -> Result<bool, Error> {
        loop {
            self.bytes.clear();
            let read = self.from.read_until(b'\n', &mut self.bytes);
            let read = read.map_err(|source| Error::Read { file: self.name.clone(), source })?;
            if read == 0 {
                return Ok(false);
            }
            self.line += 1;
            if self.line == 1 && self.bytes.starts_with(b"\xef\xbb\xbf") {
                self.bytes.drain(..3);
            }
            if !self.bytes.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    /// The line last read, without its end.
    pub(crate) fn text(&self) -> Result<&str, Error> {
        let text = std::str::from_utf8(&self.bytes).map_err(|e| {
            let at = e.valid_up_to() + 1;
            self.wrong(format!("not UTF-8 from byte {at} of the line on: save the file as UTF-8"))
        })?;
        Ok(text.trim_end_matches(['\r', '\n']))
    }

    /// The line last read as a JSON object.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let text = self.text()?;
        let mut reader = serde_json::Deserializer::from_str(text);
        let row =
            serde_path_to_error::deserialize(&mut reader).map_err(|e| self.wrong(diagnosis(&e)))?;
        reader.end().map_err(|_| {
            self.wrong("more than one JSON value on the line: write one object per line".to_owned())
        })?;
        Ok(row)
    }

    /// An error about the line last read.
    pub(crate) fn wrong(&self, problem: String) -> Error {
        Error::Line { file: self.name.clone(), line: self.line, problem }
    }

    /// How the input is called in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

fn diagnosis(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let field = error.path().to_string();
    let said = error.inner().to_string();
    let said = said.split(" at line ").next().unwrap_or(&said);
    let said = format!("{said} at column {}", error.inner().column());
    // `?` is a path lost when the line broke off.
    if field == "." || field == "?" { said } else { format!("{field}: {said}") }
}
