//! Hashes that identify texts in verdict files.

use stackelberg_data::hash::Hash;

/// The first half of the SHA-256 of texts and their lengths, as 32 hexadecimal digits.
pub(super) fn hash(parts: &[&str]) -> String {
    let mut hash = Hash::new();
    for part in parts {
        // Without the lengths, one text could have the hash of two others.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut digest = hash.hex();
    digest.truncate(32);
    digest
}
