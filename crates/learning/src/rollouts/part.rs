//! A part of a dataset's shards, so that several machines can fill one dataset.

use std::str::FromStr;

/// The largest number of parts.
const MOST: usize = 65_536;

/// One of `of` parts of a dataset: the shards whose number modulo `of` is `index`. Parsed from `INDEX/OF`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    index: usize,
    of: usize,
}

impl Part {
    /// All shards.
    pub const ALL: Self = Self { index: 0, of: 1 };

    /// Whether this part contains the shard.
    pub fn has(self, shard: usize) -> bool {
        shard % self.of == self.index
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((_, of)) if of > MOST => Err(format!("N must be at most {MOST}")),
            Some((index, of)) if index < of => Ok(Self { index, of }),
            _ => Err("give I/N with I from 0 to N - 1, as 0/4".to_owned()),
        }
    }
}
