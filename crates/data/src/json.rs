//! Reads JSON files into memory: JSON lines or one array, plain or gzipped. Errors name file and line.

use std::io::{self, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::error::{Error, Result};
pub use crate::name::name_of;

/// Reads a file, or standard input for `-`, decompresses gzip and removes a byte order mark.
///
/// # Errors
/// The file cannot be read or decompressed, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let file = name_of(path);
    let failed = |source| Error::Read { file: file.clone(), source };
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().read_to_end(&mut bytes).map_err(failed)?;
    } else {
        bytes = std::fs::read(path).map_err(failed)?;
    }
    if bytes.starts_with(b"\x1f\x8b") {
        let mut plain = Vec::new();
        MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).map_err(failed)?;
        bytes = plain;
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|e| {
        let whole = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = 1 + whole.iter().filter(|b| **b == b'\n').count();
        Error::Line { file: file.clone(), line, problem: "not UTF-8: save the file as UTF-8".to_owned() }
    })
}

/// The lines that are not blank, with their numbers from 1.
pub fn filled_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty())
}

/// Splits a text into JSON values: the elements of one array, or the lines that are not blank. Each value comes with
/// the number of the line on which it begins. [`parse`] parses them.
///
/// # Errors
/// An array is malformed or truncated. `file` is the file's name in errors.
pub fn values<'a>(file: &str, text: &'a str) -> Result<Vec<(usize, &'a str)>> {
    let blank = |at: usize| text[at..].len() - text[at..].trim_start().len();
    let mut at = blank(0);
    if !text[at..].starts_with('[') {
        return Ok(filled_lines(text).collect());
    }
    at += 1;
    // Lines are counted from the previous value on.
    let (mut counted, mut line) = (0, 1);
    let mut line_of = |at: usize| {
        line += text[counted..at].bytes().filter(|b| *b == b'\n').count();
        counted = at;
        line
    };
    let wrong = |line, problem: String| Error::Line { file: file.to_owned(), line, problem };
    let breaks_off = || "the array breaks off: its ']' is missing".to_owned();
    let mut found = Vec::new();
    loop {
        at += blank(at);
        let first = found.is_empty();
        match text.as_bytes().get(at) {
            None => return Err(wrong(line_of(at), breaks_off())),
            Some(b']') if text[at + 1..].trim_start().is_empty() => return Ok(found),
            Some(b']') => {
                let problem = "text after the array's ']': keep one array".to_owned();
                return Err(wrong(line_of(at), problem));
            }
            Some(b',') if !first => at += 1,
            Some(_) if !first => {
                return Err(wrong(line_of(at), "expected ',' or ']' after this element".to_owned()));
            }
            Some(_) => {}
        }
        at += blank(at);
        let line = line_of(at);
        let mut elements = serde_json::Deserializer::from_str(&text[at..]).into_iter();
        let element: Option<serde_json::Result<IgnoredAny>> = elements.next();
        let length = elements.byte_offset();
        match element {
            Some(Ok(_)) => found.push((line, &text[at..at + length])),
            Some(Err(e)) => {
                return Err(wrong(line + e.line() - 1, format!("malformed JSON: {}", bare(&e))));
            }
            None => return Err(wrong(line, breaks_off())),
        }
        at += length;
    }
}

/// Parses one value.
///
/// # Errors
/// The JSON is malformed, or text follows the value.
pub fn parse(text: &str) -> std::result::Result<Value, String> {
    let mut from = serde_json::Deserializer::from_str(text);
    let value = serde::Deserialize::deserialize(&mut from).map_err(|e: serde_json::Error| {
        format!("malformed JSON at column {}: {}", e.column(), bare(&e))
    })?;
    let more = "more than one JSON value on the line: write one per line".to_owned();
    from.end().map(|()| value).map_err(|_| more)
}

/// The message of serde_json without its line and column.
fn bare(error: &serde_json::Error) -> String {
    let said = error.to_string();
    said.split(" at line ").next().unwrap_or(&said).to_owned()
}
