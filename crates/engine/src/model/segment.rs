//! The input of a forward pass.

use crate::cache::Prefix;

/// Tokens to run after a prefix.
#[derive(Debug)]
pub enum Segment<'a> {
    /// The tokens follow one another and are appended to the prefix.
    Read(&'a mut Prefix, &'a [u32]),
    /// Each token is an alternative next token of the prefix, which does not change.
    Branch(&'a Prefix, &'a [u32]),
}

impl Segment<'_> {
    pub(super) fn prefix(&self) -> &Prefix {
        match self {
            Self::Read(prefix, _) => prefix,
            Self::Branch(prefix, _) => prefix,
        }
    }

    pub(super) fn tokens(&self) -> &[u32] {
        match self {
            Self::Read(_, tokens) | Self::Branch(_, tokens) => tokens,
        }
    }

    /// The tokens with their positions in the sequence.
    pub(super) fn placed(&self) -> impl Iterator<Item = (u32, usize)> {
        let (past, step) = (self.prefix().len(), usize::from(matches!(self, Self::Read(..))));
        self.tokens().iter().enumerate().map(move |(i, token)| (*token, past + i * step))
    }
}
