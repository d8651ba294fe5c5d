//! What a model remembers of the tokens it has read, and of tokens it only looked at.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::kernel::{Layout, PAGE, Page};

/// Keys and values of a text that the model has read: shared by every look ahead from its end.
///
/// A clone goes its own way and shares the memory of what both have read.
#[derive(Debug, Clone)]
pub struct Prefix {
    tokens: Vec<u32>,
    pages: Vec<Arc<Page>>,
    layout: Layout,
}

/// Tokens that were run behind a prefix: the candidates of a step, of which [`Prefix::commit`] takes one in
/// without running it again; or the rest of a text.
#[derive(Debug, Clone)]
pub struct Branches {
    /// The tokens, `n` of them.
    pub tokens: Vec<u32>,
    /// Their hidden states after the final norm, `[n, d]`.
    pub hidden: Tensor,
    /// Keys and values that are not in the prefix, `[layers][n][token]`.
    pub(crate) kept: Vec<f32>,
    /// Length of the prefix that they were run behind.
    pub(crate) behind: usize,
}

impl Prefix {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { tokens: Vec::new(), pages: Vec::new(), layout }
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
        self.pages.truncate(self.tokens.len().div_ceil(PAGE));
    }

    pub(crate) fn pages(&self) -> &[Arc<Page>] {
        &self.pages
    }

    /// Pages with room for `more` tokens; those to be written to are no other text's.
    pub(crate) fn room(&mut self, more: usize) -> &mut [Arc<Page>] {
        for page in self.len() / PAGE..(self.len() + more).div_ceil(PAGE) {
            self.page(page);
        }
        &mut self.pages
    }

    /// The tokens whose keys and values were written into the [room](Self::room) are part of the text now.
    pub(crate) fn advance(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
    }

    /// Makes the chosen branch part of the prefix. Nothing is run.
    ///
    /// # Errors
    /// The branches were run behind a prefix of another length, or there is no such branch.
    pub fn commit(&mut self, branches: &Branches, chosen: usize) -> Result<()> {
        let (layout, slot, page) = (self.layout, self.len() % PAGE, self.len() / PAGE);
        let Some(&token) = branches.tokens.get(chosen).filter(|_| branches.behind == self.len()) else {
            let (behind, tokens) = (branches.behind, branches.tokens.len());
            return Err(Error::NoBranch { chosen, tokens, behind, len: self.len() });
        };
        let size = layout.token();
        let layers = branches.kept.chunks_exact(branches.tokens.len() * size);
        let layers = layers.map(|layer| &layer[chosen * size..(chosen + 1) * size]);
        layout.put_token(self.page(page), slot, layers);
        self.tokens.push(token);
        Ok(())
    }

    /// A page for writing: a new one at the end; one shared with other texts is copied first.
    fn page(&mut self, page: usize) -> &mut Page {
        if page == self.pages.len() {
            self.pages.push(Arc::new(self.layout.page()));
        }
        Arc::make_mut(&mut self.pages[page])
    }
}
