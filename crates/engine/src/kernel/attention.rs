//! Causal attention over paged keys and values. Rows of several sequences run together; shared prefixes are not copied.
//!
//! All query heads of a group and several rows are multiplied with the keys of their key-value head in one small matrix
//! product per page. The results of the pages are combined by an online softmax. Prefilling and looking ahead compute
//! the same: a candidate's own key takes the place that the next key of its sequence would have.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use super::candidates::Own;
use super::dtype::KvDtype;
use super::elementwise::vectorised;
use super::output::Output;
use super::pages::{Kv, Layout, PAGE, Page};
use super::rotary::{Angles, Rotary, STILL};
use super::softmax::{Sums, fold};
use super::tanh::tanh;
use super::weight::{LANES, Pair};
use super::{Variant, pool, tile};

/// Attention parameters that the layers of a model share.
pub(crate) struct Attention {
    pub(crate) heads: usize,
    pub(crate) layout: Layout,
    /// Factor on the products of queries and keys.
    pub(crate) scale: f32,
    /// `Some(c)`: scores are soft-capped, `s` becomes `c tanh(s / c)`.
    pub(crate) cap: Option<f32>,
    /// The rotations that the layers choose from.
    pub(crate) rotary: Vec<Rotary>,
    /// Rotation and window of each layer.
    pub(crate) sight: Vec<Sight>,
}

/// Rotation and attention window of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sight {
    /// Index of the layer's rotation; `None` for a layer without positions.
    pub(crate) rotary: Option<usize>,
    /// Number of visible tokens, including the query's own; `None` means all.
    pub(crate) window: Option<usize>,
}

/// Rows of a forward pass that belong to one sequence.
pub(crate) struct Run<'a> {
    pub(crate) rows: Range<usize>,
    /// Number of tokens before these rows.
    pub(crate) past: usize,
    pub(crate) keys: Keys<'a>,
}

/// Keys and values of a run: where the cached ones are read, and where the new ones are written.
pub(crate) enum Keys<'a> {
    /// The rows follow one another and are written into the pages. The pages written to must not be shared with
    /// another sequence.
    Read(&'a mut [Arc<Page>]),
    /// The rows are alternatives to each other and are written to a separate buffer, `[layers][rows][token]`.
    Branch(&'a [Arc<Page>], &'a mut [f32]),
}

impl Run<'_> {
    fn position(&self, row: usize) -> usize {
        match self.keys {
            Keys::Read(_) => self.past + row,
            Keys::Branch(..) => self.past,
        }
    }
}

impl Attention {
    /// The angles of all rows, for each rotation.
    pub(crate) fn angles(&self, runs: &[Run<'_>]) -> Vec<Angles> {
        let positions = || runs.iter().flat_map(|run| (0..run.rows.len()).map(|row| run.position(row)));
        self.rotary.iter().map(|rotary| rotary.angles(positions())).collect()
    }

    /// Width of a row of queries, keys and values, side by side.
    pub(crate) fn width(&self) -> usize {
        (self.heads + 2 * self.layout.kv_heads) * self.layout.dim
    }
}

/// Attention of one layer. `qkv` holds queries, keys and values of all rows side by side,
/// `[rows, (heads + 2 kv_heads) dim]`, before rotation; `out` is `[rows, heads * dim]`. New keys and values are written
/// where the runs say.
pub(crate) fn attend(
    attention: &Attention,
    layer: usize,
    qkv: &[f32],
    angles: &[Angles],
    runs: &mut [Run<'_>],
    out: &mut [f32],
) {
    let angles = attention.sight[layer].rotary.map_or(&STILL, |rotary| &angles[rotary]);
    let pass = Pass { attention, layer, qkv, angles, variant: Variant::detect() };
    let out = Output::new(out, attention.heads * attention.layout.dim);
    match attention.layout.kv {
        KvDtype::F32 => pass.run::<f32>(runs, &out),
        KvDtype::Bf16 => pass.run::<Pair>(runs, &out),
    }
}

struct Pass<'a> {
    attention: &'a Attention,
    layer: usize,
    qkv: &'a [f32],
    angles: &'a Angles,
    variant: Variant,
}

/// Rows of a tile times heads of a group. At most 32, so that the tile's own keys fit one panel.
const TILE: usize = 32;
/// Pages whose weighted values are summed before they are added to those of other spans.
const SPAN: usize = 4;
/// Below this number of tiles per thread, threads share the spans of a tile.
const FEW: usize = 4;
/// Below this number of products, one thread is faster than several.
const SMALL: usize = 1 << 18;

/// Some rows of a run, for all query heads of one key-value head.
struct Tile<'a> {
    run: &'a Run<'a>,
    head: usize,
    rows: Range<usize>,
}

impl Pass<'_> {
    fn run<W: Kv>(&self, runs: &mut [Run<'_>], out: &Output<'_>) {
        self.keep::<W>(runs);
        self.look_back::<W>(runs, out);
    }

    /// Rotates the new keys and stores new keys and values.
    fn keep<W: Kv>(&self, runs: &mut [Run<'_>]) {
        let layout = self.attention.layout;
        let Layout { dim, kv_heads, .. } = layout;
        let rows: usize = runs.iter().map(|run| run.rows.len()).sum();
        let (mut parts, mut tokens) = (Vec::new(), Vec::new());
        for run in runs {
            let (from, end) = (run.past, run.past + run.rows.len());
            match &mut run.keys {
                Keys::Read(pages) => {
                    for (page, i) in pages[from / PAGE..].iter_mut().zip(from / PAGE..end.div_ceil(PAGE))
                    {
                        let page = Arc::get_mut(page).expect("a page written to is not shared");
                        let positions = from.max(i * PAGE)..end.min((i + 1) * PAGE);
                        let first = run.rows.start + positions.start - from;
                        let heads = layout.heads::<W>(page, self.layer).enumerate();
                        parts.extend(heads.map(|(head, part)| (head, part, positions.clone(), first)));
                    }
                }
                Keys::Branch(_, own) => {
                    let size = run.rows.len() * layout.token();
                    let own = own[self.layer * size..][..size].chunks_exact_mut(layout.token());
                    tokens.extend(run.rows.clone().zip(own));
                }
            }
        }
        for (row, token) in tokens {
            let (keys, values) = token.split_at_mut(kv_heads * dim);
            for (head, key) in keys.chunks_exact_mut(dim).enumerate() {
                self.rotate(row, self.attention.heads + head, 1.0, key);
            }
            values.copy_from_slice(&self.row(row)[(self.attention.heads + kv_heads) * dim..]);
            // As they will be in a page.
            token.iter_mut().for_each(|x| *x = W::stored(*x));
        }
        let fill = |(head, part, positions, first): (usize, &mut [W], Range<usize>, usize)| {
            let mut key = vec![0f32; dim];
            for (row, position) in (first..).zip(positions) {
                self.rotate(row, self.attention.heads + head, 1.0, &mut key);
                layout.put(
                    part,
                    position % PAGE,
                    &key,
                    self.head(row, self.attention.heads + kv_heads + head),
                );
            }
        };
        if rows < 16 { parts.into_iter().for_each(fill) } else { pool::share(parts.into_iter(), fill) }
    }

    fn look_back<W: Kv>(&self, runs: &[Run<'_>], out: &Output<'_>) {
        let Attention { heads, layout, .. } = self.attention;
        let group = heads / layout.kv_heads;
        let mut tiles = Vec::new();
        let mut products = 0;
        for run in runs {
            products += run.rows.len() * heads * layout.dim * (run.past + run.rows.len());
            for head in 0..layout.kv_heads {
                tile::blocks(run.rows.len(), (TILE / group).max(1), |row, rows| {
                    tiles.push(Tile { run, head, rows: row..row + rows });
                });
            }
        }
        let work = |i: usize| {
            SCRATCH.with_borrow_mut(|scratch| {
                let Scratch { buffers, span, all } = scratch;
                let tile: &Tile<'_> = &tiles[i];
                self.prepare(tile, buffers);
                all.clear(tile.rows.len() * group, layout.padded());
                for pages in self.spans(tile) {
                    self.look_at::<W>(tile, pages, buffers, span);
                    vectorised!(self.variant, all.add(span));
                }
                self.write(tile, all, out);
            });
        };
        if products < SMALL {
            (0..tiles.len()).for_each(work);
        } else if pool::count() > 1 && tiles.len() < FEW * pool::count() {
            self.split::<W>(&tiles, out);
        } else {
            pool::run(tiles.len(), &work);
        }
    }

    /// Attention of a few tiles, with their spans shared among the threads.
    fn split<W: Kv>(&self, tiles: &[Tile<'_>], out: &Output<'_>) {
        let mut sums: Vec<Vec<Sums>> =
            tiles.iter().map(|tile| self.spans(tile).map(|_| Sums::default()).collect()).collect();
        let spans = tiles.iter().zip(&mut sums).flat_map(|(tile, sums)| {
            self.spans(tile).zip(sums).map(move |(pages, sums)| (tile, pages, sums))
        });
        pool::share(spans, |(tile, pages, sums)| {
            SCRATCH.with_borrow_mut(|Scratch { buffers, .. }| {
                self.prepare(tile, buffers);
                self.look_at::<W>(tile, pages, buffers, sums);
            });
        });
        for (tile, mut spans) in tiles.iter().zip(sums) {
            let (all, rest) = spans.split_first_mut().expect("a tile has at least one page");
            for span in rest {
                vectorised!(self.variant, all.add(span));
            }
            self.write(tile, all, out);
        }
    }

    /// The pages that rows of a tile see, by spans. Spans begin at multiples of [`SPAN`], so that they do not depend on
    /// what is computed together.
    fn spans(&self, tile: &Tile<'_>) -> impl Iterator<Item = Range<usize>> + use<> {
        let end = tile.run.position(tile.rows.end - 1) / PAGE + 1;
        let start = self.first(tile.run.position(tile.rows.start)) / PAGE;
        (start / SPAN..end.div_ceil(SPAN)).map(move |i| start.max(i * SPAN)..end.min((i + 1) * SPAN))
    }

    /// The first key that is visible at a position.
    fn first(&self, position: usize) -> usize {
        let window = self.attention.sight[self.layer].window;
        window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// Rotates the queries of a tile.
    fn prepare(&self, tile: &Tile<'_>, Buffers { q, scores, shares, .. }: &mut Buffers) {
        let Attention { heads, layout, scale, .. } = *self.attention;
        let (dim, group) = (layout.dim, heads / layout.kv_heads);
        let Tile { run, head, rows } = tile;
        let count = rows.len() * group;
        for (buffer, size) in
            [(&mut *q, count * dim), (scores, 2 * count * LANES), (shares, count * PAGE)]
        {
            buffer.clear();
            buffer.resize(size, 0.0);
        }
        for (t, q) in q.chunks_exact_mut(dim).enumerate() {
            let (row, query) = (rows.start + t / group, head * group + t % group);
            self.rotate(run.rows.start + row, query, scale, q);
        }
    }

    /// Attention of a tile that was prepared, over some of its pages. The index `t` counts rows first, then the heads of
    /// the group.
    fn look_at<W: Kv>(
        &self,
        tile: &Tile<'_>,
        span: Range<usize>,
        buffers: &mut Buffers,
        sums: &mut Sums,
    ) {
        let Attention { heads, layout, cap, .. } = *self.attention;
        let (dim, padded, group) = (layout.dim, layout.padded(), heads / layout.kv_heads);
        let Tile { run, head, rows } = tile;
        let count = rows.len() * group;
        let Buffers { q, scores, shares, own } = buffers;
        sums.clear(count, padded);
        let last = run.position(rows.end - 1);
        let (pages, branch) = match &run.keys {
            Keys::Read(pages) => (&**pages, false),
            Keys::Branch(pages, kept) => {
                // The candidates' own keys come after all others.
                if span.contains(&(last / PAGE)) {
                    let token = layout.token();
                    let kept = &kept[(self.layer * run.rows.len() + rows.start) * token..]
                        [..rows.len() * token];
                    own.fill(kept, *head, &layout, q, group, self.variant);
                }
                (*pages, true)
            }
        };
        // Number of keys in the pages that are visible to the last row.
        let stored = if branch { last } else { last + 1 };
        let end = span.end;
        for page in span {
            let before = page * PAGE;
            let stored = stored.saturating_sub(before).min(PAGE);
            let parts = |page: usize| -> [&[W]; 2] {
                match pages.get(page) {
                    Some(page) => layout.parts(page, self.layer, *head),
                    None => [&[], &[]],
                }
            };
            let [keys, values] = parts(page);
            // Panels of keys and values, each of which is fetched into the cache while the one before is read.
            let (wide, tall) = (W::len(dim * LANES), W::len(PAGE * LANES));
            let mut rest = keys.chunks_exact(wide).chain(values.chunks_exact(tall)).skip(1);
            let following = if page + 1 < end { parts(page + 1)[0] } else { &[] };
            let mut next = || rest.next().unwrap_or(&following[..wide.min(following.len())]);
            for (panel, scores) in scores.chunks_exact_mut(count * LANES).enumerate() {
                let next = next();
                if stored > panel * LANES {
                    let keys = &keys[panel * wide..][..wide];
                    tile::rows_before(self.variant, keys, q, dim, scores, false, next);
                }
            }
            // The slot of the candidates' own keys, if it lies in this page.
            let slot = (branch && last / PAGE == page).then_some(last % PAGE);
            let shares = shares.as_chunks_mut::<PAGE>().0;
            vectorised!(self.variant, {
                let (low, high) = scores.split_at(count * LANES);
                let halves = low.as_chunks::<LANES>().0.iter().zip(high.as_chunks::<LANES>().0);
                for ((low, high), shares) in halves.zip(&mut *shares) {
                    shares[..LANES].copy_from_slice(low);
                    shares[LANES..].copy_from_slice(high);
                }
                if let Some(slot) = slot {
                    shares.iter_mut().zip(&own.scores).for_each(|(shares, score)| shares[slot] = *score);
                }
                if let Some(cap) = cap {
                    let scores = shares.as_flattened_mut().iter_mut();
                    scores.for_each(|score| *score = cap * tanh(*score / cap));
                }
                for (row, shares) in rows.clone().zip(shares.chunks_exact_mut(group)) {
                    let position = run.position(row);
                    let in_page = |key: usize| key.saturating_sub(before).min(PAGE);
                    let (start, end) = (in_page(self.first(position)), in_page(position + 1));
                    if end - start < PAGE {
                        for shares in shares {
                            shares[..start].fill(f32::NEG_INFINITY);
                            shares[end..].fill(f32::NEG_INFINITY);
                        }
                    }
                }
                fold(shares, sums);
            });
            if let Some(slot) = slot {
                for (own, shares) in own.shares.chunks_exact_mut(2).zip(&mut *shares) {
                    own[0] = std::mem::take(&mut shares[slot]);
                }
            }
            for (panel, sums) in sums.values.chunks_exact_mut(count * LANES).enumerate() {
                let next = next();
                if stored > 0 {
                    let size = W::len(stored.next_multiple_of(2) * LANES);
                    let (values, shares) = (&values[panel * tall..][..size], shares.as_flattened());
                    tile::rows_before(self.variant, values, shares, PAGE, sums, true, next);
                }
                if slot.is_some() {
                    own.add(panel, group, sums, self.variant);
                }
            }
        }
    }

    /// Writes the result of a tile.
    fn write(&self, Tile { run, head, rows }: &Tile<'_>, sums: &Sums, out: &Output<'_>) {
        let Attention { heads, layout, .. } = *self.attention;
        let (dim, group) = (layout.dim, heads / layout.kv_heads);
        let count = sums.running.len();
        for (t, (_, total)) in sums.running.iter().enumerate() {
            let (row, query) = (run.rows.start + rows.start + t / group, head * group + t % group);
            // SAFETY: every (row, query head) belongs to exactly one tile, which one thread writes.
            let out = unsafe { out.part(row, query * dim..(query + 1) * dim) };
            for (out, panel) in out.chunks_mut(LANES).zip(sums.values.chunks_exact(count * LANES)) {
                let values = &panel[t * LANES..][..LANES];
                out.iter_mut().zip(values).for_each(|(out, value)| *out = value / *total);
            }
        }
    }

    fn row(&self, row: usize) -> &[f32] {
        let width = self.attention.width();
        &self.qkv[row * width..(row + 1) * width]
    }

    /// A head of a row: query heads first, then keys, then values.
    fn head(&self, row: usize, head: usize) -> &[f32] {
        let dim = self.attention.layout.dim;
        &self.row(row)[head * dim..(head + 1) * dim]
    }

    /// Writes a head of a row, rotated to its position and scaled.
    fn rotate(&self, row: usize, head: usize, scale: f32, to: &mut [f32]) {
        let Angles { half, cos, sin } = self.angles;
        let half = *half;
        let (turned, still) = self.head(row, head).split_at(2 * half);
        let (first, second) = turned.split_at(half);
        let (cos, sin) = (&cos[row * half..][..half], &sin[row * half..][..half]);
        let (to_turned, to_still) = to.split_at_mut(2 * half);
        let (to_first, to_second) = to_turned.split_at_mut(half);
        for i in 0..half {
            to_first[i] = (first[i] * cos[i] - second[i] * sin[i]) * scale;
            to_second[i] = (second[i] * cos[i] + first[i] * sin[i]) * scale;
        }
        to_still.iter_mut().zip(still).for_each(|(to, x)| *to = x * scale);
    }
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    buffers: Buffers,
    /// Of one span.
    span: Sums,
    /// Of all spans.
    all: Sums,
}

/// Buffers for one tile.
#[derive(Default)]
struct Buffers {
    /// `[t][dim]`
    q: Vec<f32>,
    /// Two panels of `[t][32]`.
    scores: Vec<f32>,
    /// `[t][64]`
    shares: Vec<f32>,
    own: Own,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}
