//! The layout of cached keys and values: pages of 64 tokens, in the order in which attention reads them.

use super::dtype::KvDtype;
use super::weight::{LANES, Pair, Weight};

/// Tokens per page.
pub(crate) const PAGE: usize = 64;

/// The shape of a model's keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) layers: usize,
    pub(crate) kv_heads: usize,
    /// Width of a head, an even number.
    pub(crate) dim: usize,
    /// How they are stored in pages.
    pub(crate) kv: KvDtype,
}

/// Keys and values of 64 tokens in all layers. Each layer and key-value head has its keys as two panels
/// `[dim][32 tokens]`, then its values as panels `[64 tokens][32]`, of which the last one is padded with zeros. The numbers of
/// a panel are stored as a [`Weight`] stores them.
///
/// Sequences with a common prefix share pages.
#[derive(Debug, Clone)]
pub(crate) enum Page {
    F32(Vec<f32>),
    Bf16(Vec<Pair>),
}

/// A storage format of keys and values.
pub(super) trait Kv: Weight + 'static {
    /// The numbers of a page, which is of this format.
    fn of(page: &Page) -> &[Self];

    /// The same, for writing.
    fn of_mut(page: &mut Page) -> &mut [Self];

    /// The length of a slice that holds so many numbers, which fill whole steps.
    fn len(numbers: usize) -> usize {
        numbers / (2 * LANES) * Self::STEP
    }
}

impl Kv for f32 {
    fn of(page: &Page) -> &[Self] {
        match page {
            Page::F32(numbers) => numbers,
            Page::Bf16(_) => unreachable!("a model has pages of one format"),
        }
    }

    fn of_mut(page: &mut Page) -> &mut [Self] {
        match page {
            Page::F32(numbers) => numbers,
            Page::Bf16(_) => unreachable!("a model has pages of one format"),
        }
    }
}

impl Kv for Pair {
    fn of(page: &Page) -> &[Self] {
        match page {
            Page::Bf16(numbers) => numbers,
            Page::F32(_) => unreachable!("a model has pages of one format"),
        }
    }

    fn of_mut(page: &mut Page) -> &mut [Self] {
        match page {
            Page::Bf16(numbers) => numbers,
            Page::F32(_) => unreachable!("a model has pages of one format"),
        }
    }
}

impl Layout {
    /// Width of a head's values, padded to whole panels.
    pub(super) fn padded(&self) -> usize {
        self.dim.next_multiple_of(LANES)
    }

    /// Size of one head in one layer of a page, in numbers.
    fn head(&self) -> usize {
        PAGE * (self.dim + self.padded())
    }

    /// Size of a page, in numbers.
    fn numbers(&self) -> usize {
        self.layers * self.kv_heads * self.head()
    }

    /// Bytes of a page.
    pub(crate) fn page_bytes(&self) -> usize {
        match self.kv {
            KvDtype::F32 => size_of::<f32>() * <f32 as Kv>::len(self.numbers()),
            KvDtype::Bf16 => size_of::<Pair>() * <Pair as Kv>::len(self.numbers()),
        }
    }

    /// An empty page. The system commits its memory when it is first written to.
    pub(crate) fn page(&self) -> Page {
        match self.kv {
            KvDtype::F32 => Page::F32(vec![0.0; <f32 as Kv>::len(self.numbers())]),
            KvDtype::Bf16 => Page::Bf16(vec![Pair::default(); <Pair as Kv>::len(self.numbers())]),
        }
    }

    /// Size of a token in one layer outside of a page, in numbers: its keys, then its values.
    pub(crate) fn token(&self) -> usize {
        2 * self.kv_heads * self.dim
    }

    /// The heads of one layer in a page.
    pub(super) fn heads<'a, W: Kv>(
        &self,
        page: &'a mut Page,
        layer: usize,
    ) -> impl Iterator<Item = &'a mut [W]> {
        let size = W::len(self.head());
        let start = layer * self.kv_heads * size;
        W::of_mut(page)[start..start + self.kv_heads * size].chunks_exact_mut(size)
    }

    /// Keys and values of one head of one layer in a page.
    pub(super) fn parts<'a, W: Kv>(&self, page: &'a Page, layer: usize, head: usize) -> [&'a [W]; 2] {
        let size = W::len(self.head());
        let start = (layer * self.kv_heads + head) * size;
        W::of(page)[start..start + size].split_at(W::len(PAGE * self.dim)).into()
    }

    /// Writes one token's key and value into its head's part of a page.
    pub(super) fn put<W: Kv>(&self, part: &mut [W], slot: usize, key: &[f32], value: &[f32]) {
        let (keys, values) = part.split_at_mut(W::len(PAGE * self.dim));
        let panel = &mut keys[slot / LANES * W::len(self.dim * LANES)..];
        for (step, key) in panel.chunks_exact_mut(W::STEP).zip(key.chunks(2)) {
            for (input, key) in key.iter().enumerate() {
                W::set(step, slot % LANES, input, *key);
            }
        }
        for (panel, value) in values.chunks_exact_mut(W::len(PAGE * LANES)).zip(value.chunks(LANES)) {
            let step = &mut panel[slot / 2 * W::STEP..][..W::STEP];
            for (lane, value) in value.iter().enumerate() {
                W::set(step, lane, slot % 2, *value);
            }
        }
    }

    /// Writes one token in all layers, given as `[layers][token]`.
    pub(crate) fn put_token<'a>(
        &self,
        page: &mut Page,
        slot: usize,
        layers: impl Iterator<Item = &'a [f32]>,
    ) {
        match self.kv {
            KvDtype::F32 => self.put_layers::<f32>(page, slot, layers),
            KvDtype::Bf16 => self.put_layers::<Pair>(page, slot, layers),
        }
    }

    fn put_layers<'a, W: Kv>(
        &self,
        page: &mut Page,
        slot: usize,
        layers: impl Iterator<Item = &'a [f32]>,
    ) {
        for (layer, token) in layers.enumerate() {
            let (keys, values) = token.split_at(self.kv_heads * self.dim);
            let tokens = keys.chunks_exact(self.dim).zip(values.chunks_exact(self.dim));
            for (part, (key, value)) in self.heads::<W>(page, layer).zip(tokens) {
                self.put(part, slot, key, value);
            }
        }
    }
}
