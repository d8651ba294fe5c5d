//! Reads a text file line by line, plain or gzipped. Errors name file, line and field.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::error::{Error, Result};
use crate::name::name_of;

/// The lines of a file or of standard input (`-`). Blank lines are skipped. Gzip is detected by its first bytes,
/// independently of the file's name.
pub struct Lines {
    from: Box<dyn BufRead>,
    /// Whether the first bytes have been checked for gzip. Opening must not wait for standard input.
    checked: bool,
    name: String,
    line: usize,
    bytes: Vec<u8>,
}

impl Lines {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    /// The file cannot be read, or is a folder.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::read(path, source);
        let from: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            let file = File::open(path).map_err(failed)?;
            if path.is_dir() {
                return Err(failed(io::Error::other("it is a folder; name a file")));
            }
            Box::new(BufReader::with_capacity(1 << 16, file))
        };
        Ok(Self { from, checked: false, name: name_of(path), line: 0, bytes: Vec::new() })
    }

    /// Reads up to the end of the next line; decompresses the file if its first bytes are those of gzip.
    fn read(&mut self) -> io::Result<usize> {
        if !self.checked {
            self.checked = true;
            if self.from.fill_buf()?.starts_with(b"\x1f\x8b") {
                let zipped = std::mem::replace(&mut self.from, Box::new(io::empty()));
                self.from = Box::new(BufReader::new(MultiGzDecoder::new(zipped)));
            }
        }
        self.from.read_until(b'\n', &mut self.bytes)
    }

    /// Reads the next line that is not blank, for [`Lines::text`] and [`Lines::json`]; `false` at the end.
    ///
    /// # Errors
    /// The file cannot be read or decompressed.
    pub fn advance(&mut self) -> Result<bool> {
        loop {
            self.bytes.clear();
            let read = self.read().map_err(|source| Error::Read { file: self.name.clone(), source })?;
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

    /// The current line without its line break.
    ///
    /// # Errors
    /// The line is not UTF-8.
    pub fn text(&self) -> Result<&str> {
        let text = std::str::from_utf8(&self.bytes).map_err(|e| {
            let at = e.valid_up_to() + 1;
            self.wrong(format!("not UTF-8 from byte {at} of the line on: save the file as UTF-8"))
        })?;
        Ok(text.trim_end_matches(['\r', '\n']))
    }

    /// Parses the current line as a JSON object.
    ///
    /// # Errors
    /// The line is not UTF-8 or not a JSON object, a field is missing or has another type, or text follows the object.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        let text = self.text()?;
        if !text.trim_start().starts_with('{') {
            return Err(self.wrong("not a JSON object: write one {...} per line"));
        }
        serde_json::from_str(text).map_err(|_| self.wrong(diagnosis::<T>(text)))
    }

    /// Parses the next line that is not blank as a JSON object; `None` at the end.
    ///
    /// # Errors
    /// As [`Lines::advance`] and [`Lines::json`].
    pub fn next_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        if self.advance()? { self.json().map(Some) } else { Ok(None) }
    }

    /// An error about the current line.
    pub fn wrong(&self, problem: impl Display) -> Error {
        Error::line(&self.name, self.line, problem)
    }

    /// The file's name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Parses a malformed line again, with tracking of the path, to name the invalid field.
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
    // The path is `?` if the line is truncated.
    if field == "." || field == "?" { said } else { format!("{field}: {said}") }
}
