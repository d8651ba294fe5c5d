//! Checks that the lengths in a GGUF header fit into the file. Candle's reader trusts them and would allocate as much
//! memory as an untrusted file claims to need.

use std::io::{Error, ErrorKind, Read, Result, Seek};

/// Checks the lengths in the header of a file of `size` bytes. A file that is not GGUF is accepted, because the reader
/// reports that.
///
/// # Errors
/// A length goes beyond the end of the file.
pub(super) fn check(file: &mut (impl Read + Seek), size: u64) -> Result<()> {
    let mut header = Header { file, left: size, wide: false };
    let mut magic = [0; 4];
    header.fill(&mut magic)?;
    if &magic != b"GGUF" {
        return Ok(());
    }
    header.wide = header.number(4)? > 1;
    let tensors = header.length(24)?;
    let entries = header.length(12)?;
    for _ in 0..entries {
        header.text()?;
        let kind = header.number(4)?;
        header.value(kind, 0)?;
    }
    for _ in 0..tensors {
        header.text()?;
        let dimensions = header.number(4)?;
        if dimensions > 8 {
            return Err(wrong("a tensor of so many dimensions"));
        }
        let width = if header.wide { 8 } else { 4 };
        header.skip(dimensions * width + 4 + 8)?;
    }
    Ok(())
}

struct Header<'a, F> {
    file: &'a mut F,
    left: u64,
    wide: bool,
}

impl<F: Read + Seek> Header<'_, F> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| wrong("a cut header"))?;
        self.file.read_exact(bytes)
    }

    fn number(&mut self, bytes: usize) -> Result<u64> {
        let mut number = [0; 8];
        self.fill(&mut number[..bytes])?;
        Ok(u64::from_le_bytes(number))
    }

    /// A number of items, each of at least `each` bytes.
    fn length(&mut self, each: u64) -> Result<u64> {
        let length = self.number(if self.wide { 8 } else { 4 })?;
        match length.checked_mul(each).is_some_and(|bytes| bytes <= self.left) {
            true => Ok(length),
            false => Err(wrong("a length beyond its end")),
        }
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| wrong("a cut header"))?;
        self.file.seek_relative(bytes as i64)
    }

    fn text(&mut self) -> Result<()> {
        let length = self.length(1)?;
        self.skip(length)
    }

    fn value(&mut self, kind: u64, depth: usize) -> Result<()> {
        match (kind, width(kind)) {
            (8, _) => self.text(),
            (9, _) if depth < 4 => {
                let kind = self.number(4)?;
                let length = self.length(width(kind).unwrap_or(8))?;
                match width(kind) {
                    Some(width) => self.skip(length * width),
                    None => (0..length).try_for_each(|_| self.value(kind, depth + 1)),
                }
            }
            (_, Some(width)) => self.skip(width),
            _ => Err(wrong("a value of an unknown kind")),
        }
    }
}

/// Size of a value of this type in bytes; `None` for strings and arrays.
fn width(kind: u64) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}
