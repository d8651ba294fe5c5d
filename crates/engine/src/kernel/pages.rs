//! The layout of cached keys and values: pages of 64 tokens, in the order in which attention reads them.

use super::weight::LANES;

/// Tokens per page.
pub(crate) const PAGE: usize = 64;

/// The shape of a model's keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) layers: usize,
    pub(crate) kv_heads: usize,
    /// Width of a head, an even number.
    pub(crate) dim: usize,
}

/// Keys and values of 64 tokens in all layers. Each layer and key-value head has its keys as two panels
/// `[dim][32 tokens]`, then its values as panels `[64 tokens][32]`, of which the last one is padded with zeros.
///
/// Sequences with a common prefix share pages.
#[derive(Debug, Clone)]
pub(crate) struct Page(Vec<f32>);

impl Layout {
    /// Width of a head's values, padded to whole panels.
    pub(super) fn padded(&self) -> usize {
        self.dim.next_multiple_of(LANES)
    }

    /// Size of one head in one layer of a page, in numbers.
    pub(super) fn head(&self) -> usize {
        PAGE * (self.dim + self.padded())
    }

    /// Bytes of a page.
    pub(crate) fn page_bytes(&self) -> usize {
        self.layers * self.kv_heads * self.head() * size_of::<f32>()
    }

    /// An empty page. The system commits its memory when it is first written to.
    pub(crate) fn page(&self) -> Page {
        Page(vec![0.0; self.layers * self.kv_heads * self.head()])
    }

    /// Size of a token in one layer outside of a page, in numbers: its keys, then its values.
    pub(crate) fn token(&self) -> usize {
        2 * self.kv_heads * self.dim
    }

    /// The range of one layer's heads in a page.
    pub(super) fn in_layer(&self, layer: usize) -> std::ops::Range<usize> {
        let size = self.kv_heads * self.head();
        layer * size..(layer + 1) * size
    }

    /// The range of one head of one layer in a page.
    pub(super) fn at(&self, layer: usize, head: usize) -> std::ops::Range<usize> {
        let start = (layer * self.kv_heads + head) * self.head();
        start..start + self.head()
    }

    /// Writes one token's key and value into its head's part of a page.
    pub(super) fn put(&self, part: &mut [f32], slot: usize, key: &[f32], value: &[f32]) {
        let (keys, values) = part.split_at_mut(PAGE * self.dim);
        let panel = &mut keys[slot / LANES * self.dim * LANES..];
        for (step, key) in panel.chunks_exact_mut(LANES).zip(key) {
            step[slot % LANES] = *key;
        }
        for (panel, value) in values.chunks_exact_mut(PAGE * LANES).zip(value.chunks(LANES)) {
            panel[slot * LANES..][..value.len()].copy_from_slice(value);
        }
    }

    /// Writes one token in all layers, given as `[layers][token]`.
    pub(crate) fn put_token<'a>(
        &self,
        page: &mut Page,
        slot: usize,
        layers: impl Iterator<Item = &'a [f32]>,
    ) {
        for (layer, token) in layers.enumerate() {
            let (keys, values) = token.split_at(self.kv_heads * self.dim);
            let heads = keys.chunks_exact(self.dim).zip(values.chunks_exact(self.dim));
            for (head, (key, value)) in heads.enumerate() {
                self.put(&mut page.0[self.at(layer, head)], slot, key, value);
            }
        }
    }
}

impl Page {
    pub(super) fn as_slice(&self) -> &[f32] {
        &self.0
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.0
    }
}
