//! Keys and values on the CPU: reference-counted pages.

use std::sync::Arc;

use crate::kernel::{KvDtype, Layout, PAGE, Page};

/// Keys and values of a sequence, in pages. Sequences with a common prefix share pages.
#[derive(Debug, Clone)]
pub(crate) struct Pages {
    layout: Layout,
    pages: Vec<Arc<Page>>,
}

impl Pages {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, pages: Vec::new() }
    }

    /// How keys and values are stored.
    pub(crate) fn kv(&self) -> KvDtype {
        self.layout.kv
    }

    /// Bytes of a page.
    pub(super) fn page_bytes(&self) -> usize {
        self.layout.page_bytes()
    }

    pub(super) fn truncate(&mut self, tokens: usize) {
        self.pages.truncate(tokens.div_ceil(PAGE));
    }

    pub(crate) fn as_slice(&self) -> &[Arc<Page>] {
        &self.pages
    }

    /// The pages, with room for `more` tokens after the first `len`. The pages to be written to are not shared.
    pub(crate) fn room(&mut self, len: usize, more: usize) -> &mut [Arc<Page>] {
        for page in len / PAGE..(len + more).div_ceil(PAGE) {
            self.page(page);
        }
        &mut self.pages
    }

    /// Appends the token with the index `chosen` of `n` tokens, `rows` `[layers][n][token]`, after the first `len`.
    pub(super) fn put(&mut self, len: usize, rows: &[f32], n: usize, chosen: usize) {
        let layout = self.layout;
        let size = layout.token();
        let layers = rows.chunks_exact(n * size);
        let layers = layers.map(|layer| &layer[chosen * size..(chosen + 1) * size]);
        layout.put_token(self.page(len / PAGE), len % PAGE, layers);
    }

    /// A page for writing. It is allocated if it is the next one, and copied if it is shared.
    fn page(&mut self, page: usize) -> &mut Page {
        if page == self.pages.len() {
            self.pages.push(Arc::new(self.layout.page()));
        }
        Arc::make_mut(&mut self.pages[page])
    }
}
