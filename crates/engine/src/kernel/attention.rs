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
use super::elementwise::{exp, sum, tree, vectorised};
use super::output::Output;
use super::pages::{Kv, Layout, PAGE, Page};
use super::rotary::{Angles, Rotary, STILL};
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
const TILE: usize = 24;
/// Below this number of products, one thread is faster than several.
const SMALL: usize = 1 << 18;

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
                    tiles.push((run, head, row..row + rows));
                });
            }
        }
        let work = |i: usize| {
            let (run, head, rows) = &tiles[i];
            SCRATCH.with_borrow_mut(|scratch| self.tile::<W>(run, *head, rows.clone(), out, scratch));
        };
        if products < SMALL { (0..tiles.len()).for_each(work) } else { pool::run(tiles.len(), &work) }
    }

    /// Attention of some rows of a run, for all query heads of one key-value head. The index `t` counts rows first,
    /// then the heads of the group.
    fn tile<W: Kv>(
        &self,
        run: &Run<'_>,
        head: usize,
        rows: Range<usize>,
        out: &Output<'_>,
        scratch: &mut Scratch,
    ) {
        let Attention { heads, layout, scale, cap, .. } = *self.attention;
        let window = self.attention.sight[self.layer].window;
        let (dim, padded, group) = (layout.dim, layout.padded(), heads / layout.kv_heads);
        let count = rows.len() * group;
        let Scratch { q, scores, shares, part, sums, running, own } = scratch;
        for (buffer, size) in [
            (&mut *q, count * dim),
            (scores, 2 * count * LANES),
            (shares, count * PAGE),
            (part, padded * count),
            (sums, padded * count),
        ] {
            buffer.clear();
            buffer.resize(size, 0.0);
        }
        running.clear();
        running.resize(count, (f32::NEG_INFINITY, 0.0));
        for (t, q) in q.chunks_exact_mut(dim).enumerate() {
            let (row, query) = (rows.start + t / group, head * group + t % group);
            self.rotate(run.rows.start + row, query, scale, q);
        }
        let (pages, branch) = match &run.keys {
            Keys::Read(pages) => (&**pages, false),
            Keys::Branch(pages, kept) => {
                let token = layout.token();
                let kept =
                    &kept[(self.layer * run.rows.len() + rows.start) * token..][..rows.len() * token];
                own.fill(kept, head, &layout, q, group, self.variant);
                (*pages, true)
            }
        };
        let last = run.position(rows.end - 1);
        // Number of keys in the pages that are visible to the last row.
        let stored = if branch { last } else { last + 1 };
        // The first key that is visible at a position.
        let first = |position: usize| window.map_or(0, |window| (position + 1).saturating_sub(window));
        for page in first(run.position(rows.start)) / PAGE..=last / PAGE {
            let before = page * PAGE;
            let stored = stored.saturating_sub(before).min(PAGE);
            let [keys, values]: [&[W]; 2] = match pages.get(page) {
                Some(page) => layout.parts(page, self.layer, head),
                None => [&[], &[]],
            };
            for (panel, scores) in scores.chunks_exact_mut(count * LANES).enumerate() {
                if stored > panel * LANES {
                    let size = W::len(dim * LANES);
                    let keys = &keys[panel * size..][..size];
                    tile::rows(self.variant, keys, q, dim, scores, false);
                }
            }
            // The slot of the candidates' own keys, if it lies in this page.
            let slot = (branch && last / PAGE == page).then_some(last % PAGE);
            vectorised!(self.variant, {
                let (low, high) = scores.split_at_mut(count * LANES);
                let halves = low.chunks_exact_mut(LANES).zip(high.chunks_exact_mut(LANES));
                let states = running.iter_mut().zip(sums.chunks_exact_mut(padded));
                for (t, ((halves, shares), (state, sums))) in
                    halves.zip(shares.as_chunks_mut::<PAGE>().0).zip(states).enumerate()
                {
                    let position = run.position(rows.start + t / group);
                    let in_page = |key: usize| key.saturating_sub(before).min(PAGE);
                    let seen = in_page(first(position))..in_page(position + 1);
                    if let Some(slot) = slot {
                        let half = if slot < LANES { &mut *halves.0 } else { &mut *halves.1 };
                        half[slot % LANES] = own.scores[t];
                    }
                    if let Some(cap) = cap {
                        for score in halves.0.iter_mut().chain(halves.1.iter_mut()) {
                            *score = cap * tanh(*score / cap);
                        }
                    }
                    let shrink = fold(halves.0, halves.1, seen, shares, state);
                    if shrink != 1.0 {
                        sums.iter_mut().for_each(|sum| *sum *= shrink);
                    }
                    if let Some(slot) = slot {
                        own.shares[2 * t] = std::mem::take(&mut shares[slot]);
                    }
                }
            });
            for (panel, part) in part.chunks_exact_mut(count * LANES).enumerate() {
                if stored > 0 {
                    let size = W::len(stored.next_multiple_of(2) * LANES);
                    let values = &values[panel * W::len(PAGE * LANES)..][..size];
                    tile::rows(self.variant, values, shares, PAGE, part, false);
                } else {
                    part.fill(0.0);
                }
                if slot.is_some() {
                    own.add(panel, group, part, self.variant);
                }
            }
            vectorised!(self.variant, {
                for (t, sums) in sums.chunks_exact_mut(padded).enumerate() {
                    for (panel, sums) in sums.chunks_exact_mut(LANES).enumerate() {
                        let part = &part[(panel * count + t) * LANES..][..LANES];
                        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
                    }
                }
            });
        }
        for (t, (sums, (_, total))) in sums.chunks_exact(padded).zip(running).enumerate() {
            let (row, query) = (run.rows.start + rows.start + t / group, head * group + t % group);
            // SAFETY: every (row, query head) belongs to exactly one tile, and a tile to one thread.
            let out = unsafe { out.part(row, query * dim..(query + 1) * dim) };
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum / *total);
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

/// One step of the online softmax for one row: folds the scores of the visible keys of a page (`seen`) into the running
/// maximum and total. `shares` gets `exp(score - maximum)`, and zero for the other keys. Returns the factor on earlier
/// sums.
#[inline(always)]
fn fold(
    low: &[f32],
    high: &[f32],
    seen: Range<usize>,
    shares: &mut [f32; PAGE],
    (most, total): &mut (f32, f32),
) -> f32 {
    for (to, from) in shares.chunks_exact_mut(LANES).zip([low, high]) {
        to.copy_from_slice(&from[..LANES]);
    }
    shares[..seen.start].fill(f32::NEG_INFINITY);
    shares[seen.end..].fill(f32::NEG_INFINITY);
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut lanes = [*most; 16];
    for chunk in shares.as_chunks::<16>().0 {
        for (lane, &score) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, score);
        }
    }
    let new = tree(lanes, larger);
    if seen.is_empty() {
        shares.fill(0.0);
        return 1.0;
    }
    for share in shares.iter_mut() {
        *share = exp(*share - new);
    }
    shares[..seen.start].fill(0.0);
    shares[seen.end..].fill(0.0);
    let shrink = exp(*most - new);
    *total = *total * shrink + sum(shares, |x| x);
    *most = new;
    shrink
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    /// `[t][dim]`
    q: Vec<f32>,
    /// Two panels of `[t][32]`.
    scores: Vec<f32>,
    /// `[t][64]`
    shares: Vec<f32>,
    /// Weighted values of one page: panels of `[t][32]`.
    part: Vec<f32>,
    /// Weighted values of all pages so far, relative to the running maximum: `[t][padded]`.
    sums: Vec<f32>,
    /// Running maximum and total, `[t]`.
    running: Vec<(f32, f32)>,
    own: Own,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}
