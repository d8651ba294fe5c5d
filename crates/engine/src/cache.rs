//! What a model remembers of the tokens it has read, and of tokens it only looked at.

mod pages;
mod slots;

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::kernel::Layout;
pub(crate) use pages::Pages;
pub(crate) use slots::{Slots, slots};

/// Keys and values of a text that the model has read: shared by every look ahead from its end.
///
/// A clone goes its own way and shares the memory of what both have read (on a GPU until one of them reads on).
#[derive(Debug, Clone)]
pub struct Prefix {
    tokens: Vec<u32>,
    memory: Memory,
}

/// Where they are: the model's way to run decides.
#[derive(Debug, Clone)]
pub(crate) enum Memory {
    Pages(Pages),
    Slots(Slots),
}

/// Tokens that were run behind a prefix: the candidates of a step, of which [`Prefix::commit`] takes one in
/// without running it again; or the rest of a text.
#[derive(Debug, Clone)]
pub struct Branches {
    /// The tokens, `n` of them.
    pub tokens: Vec<u32>,
    /// Their hidden states after the final norm, `[n, d]`, f32 on the CPU.
    pub hidden: Tensor,
    /// Keys and values that are not in the prefix.
    pub(crate) kept: Kept,
    /// Length of the prefix that they were run behind.
    pub(crate) behind: usize,
}

/// Keys and values beside a prefix.
#[derive(Debug, Clone)]
pub(crate) enum Kept {
    /// `[layers][n][token]`; none of tokens that were read.
    Rows(Vec<f32>),
    /// As [`Slots`] has them, of n tokens; none of tokens that were read.
    Slots(Option<Tensor>),
}

impl Prefix {
    pub(crate) fn in_pages(layout: Layout) -> Self {
        Self { tokens: Vec::new(), memory: Memory::Pages(Pages::new(layout)) }
    }

    pub(crate) fn on_device(layout: Layout, device: &Device) -> Self {
        Self { tokens: Vec::new(), memory: Memory::Slots(Slots::new(layout, device)) }
    }

    /// The tokens read so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether nothing was read yet.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Forgets all but the first tokens.
    pub(crate) fn truncate(&mut self, tokens: usize) {
        self.tokens.truncate(tokens);
        if let Memory::Pages(pages) = &mut self.memory {
            pages.truncate(self.tokens.len());
        }
    }

    /// Where keys and values are.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The same for writing, behind as many tokens.
    pub(crate) fn memory_mut(&mut self) -> (usize, &mut Memory) {
        (self.tokens.len(), &mut self.memory)
    }

    /// The tokens whose keys and values were written behind the text are part of it now.
    pub(crate) fn advance(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
    }

    /// Makes the chosen branch part of the prefix. Nothing is run.
    ///
    /// # Errors
    /// The branches were run behind a prefix of another length, or there is no such branch.
    pub fn commit(&mut self, branches: &Branches, chosen: usize) -> Result<()> {
        let (behind, tokens, len) = (branches.behind, branches.tokens.len(), self.len());
        let refused = Error::NoBranch { chosen, tokens, behind, len };
        let Some(&token) = branches.tokens.get(chosen).filter(|_| behind == len) else {
            return Err(refused);
        };
        match (&mut self.memory, &branches.kept) {
            (Memory::Pages(pages), Kept::Rows(rows)) if !rows.is_empty() => {
                pages.put(len, rows, tokens, chosen);
            }
            (Memory::Slots(slots), Kept::Slots(Some(kept))) => slots.put(len, kept, chosen)?,
            _ => return Err(refused),
        }
        self.tokens.push(token);
        Ok(())
    }
}
