//! Cached keys and values: of the tokens of a prefix, and of candidate tokens that follow it.

mod pages;
mod slots;

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::kernel::{KvDtype, Layout, PAGE};
pub(crate) use pages::Pages;
pub(crate) use slots::{Slots, slots};

/// A prefilled sequence of tokens with its cached keys and values. All candidates for the next token share it.
///
/// A clone shares the memory of the common tokens; each of the two can be extended on its own. On a GPU, the memory is
/// copied when one of them is extended.
#[derive(Debug, Clone)]
pub struct Prefix {
    tokens: Vec<u32>,
    memory: Memory,
}

/// The storage of keys and values. It depends on the device.
#[derive(Debug, Clone)]
pub(crate) enum Memory {
    Pages(Pages),
    Slots(Slots),
}

/// The result of a forward pass of some tokens after a prefix. The tokens are candidates for the next token, one of
/// which [`Prefix::commit`] can append without running it again, or consecutive tokens, which are part of the prefix
/// already.
#[derive(Debug, Clone)]
pub struct Branches {
    /// The tokens, `n` of them.
    pub tokens: Vec<u32>,
    /// Hidden states of the tokens after the final norm, `[n, d]`, f32 on the CPU.
    pub hidden: Tensor,
    /// Keys and values that are not in the prefix.
    pub(crate) kept: Kept,
    /// Length of the prefix for which the tokens were run.
    pub(crate) behind: usize,
}

/// Keys and values of candidates.
#[derive(Debug, Clone)]
pub(crate) enum Kept {
    /// On the CPU, `[layers][n][token]`; empty for consecutive tokens.
    Rows(Vec<f32>),
    /// On a device, in the layout of [`Slots`] for n tokens; `None` for consecutive tokens.
    Slots(Option<Tensor>),
}

/// The empty prefix of no model.
impl Default for Prefix {
    fn default() -> Self {
        Self::in_pages(Layout { layers: 0, kv_heads: 0, dim: 0, kv: KvDtype::F32 })
    }
}

/// A hidden state that a server computed, as a tensor `[1, d]`.
///
/// # Errors
/// There is no memory.
pub fn state_row(state: &[f32]) -> Result<Tensor> {
    Ok(Tensor::from_slice(state, (1, state.len()), &Device::Cpu)?)
}

impl Prefix {
    /// The empty prefix of no model, and the state that stands for the hidden state of its last token, `[1, 1]`: for texts whose
    /// policy a server runs. No model can extend the prefix.
    ///
    /// # Errors
    /// There is no memory.
    pub fn without_model() -> Result<(Self, Tensor)> {
        Ok((Self::default(), Tensor::zeros((1, 1), DType::F32, &Device::Cpu)?))
    }

    pub(crate) fn in_pages(layout: Layout) -> Self {
        Self { tokens: Vec::new(), memory: Memory::Pages(Pages::new(layout)) }
    }

    pub(crate) fn on_device(layout: Layout, device: &Device) -> Self {
        Self { tokens: Vec::new(), memory: Memory::Slots(Slots::new(layout, device)) }
    }

    /// The tokens of the prefix.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether the prefix has no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Drops all but the first `tokens` tokens.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens.truncate(tokens);
        if let Memory::Pages(pages) = &mut self.memory {
            pages.truncate(self.tokens.len());
        }
    }

    /// Tokens and bytes of a page, where keys and values are in pages that clones share.
    pub(crate) fn page(&self) -> Option<(usize, usize)> {
        match &self.memory {
            Memory::Pages(pages) => Some((PAGE, pages.page_bytes())),
            Memory::Slots(_) => None,
        }
    }

    /// The keys and values.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The number of tokens, and the keys and values for writing.
    pub(crate) fn memory_mut(&mut self) -> (usize, &mut Memory) {
        (self.tokens.len(), &mut self.memory)
    }

    /// Appends tokens whose keys and values have been written.
    pub(crate) fn advance(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
    }

    /// Appends the candidate with the index `chosen` to the prefix, with its keys and values. The model is not run.
    ///
    /// # Errors
    /// The candidates were run after a prefix of another length, or there is no such candidate.
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
