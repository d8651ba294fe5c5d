//! SHA-256 digests in lower-case hexadecimal.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Incremental SHA-256.
#[derive(Clone, Default)]
pub struct Hash(Sha256);

impl Hash {
    /// A hash of no data yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes. The digest depends only on the concatenation of all bytes.
    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.update(bytes);
    }

    /// The digest: 64 hexadecimal digits.
    pub fn hex(self) -> String {
        hex::encode(self.0.finalize())
    }
}

/// The SHA-256 of bytes: 64 hexadecimal digits.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The first 12 digits of [`sha256`], used as a name.
pub fn short(bytes: impl AsRef<[u8]>) -> String {
    let mut digest = sha256(bytes);
    digest.truncate(12);
    digest
}

/// The SHA-256 of a file: 64 hexadecimal digits.
///
/// # Errors
/// The file cannot be read.
pub fn sha256_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Hash::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.hex()),
            n => hash.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn the_standards_example() -> io::Result<()> {
        assert_eq!(sha256("abc"), ABC);
        assert_eq!(short("abc"), &ABC[..12]);
        let mut hash = Hash::new();
        hash.update("a");
        hash.update("bc");
        assert_eq!(hash.hex(), ABC);
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("x");
        std::fs::write(&file, "abc")?;
        assert_eq!(sha256_file(&file)?, ABC);
        Ok(())
    }
}
