//! Attention of a few rows over prefixes that they share, page by page, without a copy.
//!
//! All query heads of a group and several rows go through the keys of their key-value head together, as
//! one small matrix product; a page's shares are folded into a running softmax. Reading on and looking
//! ahead take the same way: a candidate's own key stands where its text's next key would.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use super::elementwise::{exp, sum, tree, vectorised};
use super::linear::Output;
use super::pages::{Layout, PAGE, Page};
use super::tanh::tanh;
use super::tile::{self, LANES};
use super::{Variant, pool};

/// What the layers of a model have in common.
pub(crate) struct Attention {
    pub(crate) heads: usize,
    pub(crate) layout: Layout,
    /// What products of queries and keys are multiplied by.
    pub(crate) scale: f32,
    /// `Some(c)`: a score s becomes `c tanh(s / c)`.
    pub(crate) cap: Option<f32>,
    /// The rotations that layers choose from.
    pub(crate) rotary: Vec<Rotary>,
    /// What each layer sees.
    pub(crate) sight: Vec<Sight>,
}

/// A rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rotary {
    /// Radians per position, of the pairs `(0, n), (1, n + 1)...` of a head's first 2n numbers; the others
    /// are left alone.
    pub(crate) frequencies: Vec<f32>,
    /// What cosines and sines are multiplied by.
    pub(crate) factor: f32,
}

/// What a layer sees of the tokens before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sight {
    /// Which rotation, if any.
    pub(crate) rotary: Option<usize>,
    /// How many tokens, the query's own included; `None`: all.
    pub(crate) window: Option<usize>,
}

/// Rows of a forward that belong to one text.
pub(crate) struct Run<'a> {
    pub(crate) rows: Range<usize>,
    /// Tokens before them.
    pub(crate) past: usize,
    pub(crate) keys: Keys<'a>,
}

/// Where a run's keys and values are, and where its own go.
pub(crate) enum Keys<'a> {
    /// Into the pages: the rows follow one another. No other text may share the pages written to.
    Read(&'a mut [Arc<Page>]),
    /// Beside them, `[layers][rows][token]`: the rows are alternatives.
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

/// One rotation's cosines and sines of the rows of a forward, `[rows][half]`.
pub(crate) struct Angles {
    half: usize,
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
}

/// Of a layer that does not rotate.
static STILL: Angles = Angles { half: 0, cos: Vec::new(), sin: Vec::new() };

impl Rotary {
    /// Its angles at these positions.
    pub(crate) fn angles(&self, positions: impl Iterator<Item = usize>) -> Angles {
        let Self { frequencies, factor } = self;
        let angles = positions.flat_map(|position| frequencies.iter().map(move |f| position as f32 * f));
        let (cos, sin) = angles.map(|angle| (angle.cos() * factor, angle.sin() * factor)).unzip();
        Angles { half: frequencies.len(), cos, sin }
    }
}

impl Angles {
    /// Turns a head of the row at this place.
    pub(super) fn turn(&self, row: usize, head: &mut [f32]) {
        let (first, second) = head.split_at_mut(self.half);
        let angles = self.cos[row * self.half..].iter().zip(&self.sin[row * self.half..]);
        for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(angles) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}

impl Attention {
    /// The angles of all rows, of each rotation.
    pub(crate) fn angles(&self, runs: &[Run<'_>]) -> Vec<Angles> {
        let positions = || runs.iter().flat_map(|run| (0..run.rows.len()).map(|row| run.position(row)));
        self.rotary.iter().map(|rotary| rotary.angles(positions())).collect()
    }

    /// Numbers to a row of q, k and v, side by side.
    pub(crate) fn width(&self) -> usize {
        (self.heads + 2 * self.layout.kv_heads) * self.layout.dim
    }
}

/// Attention of one layer: q, k and v of all rows side by side, `[rows, (heads + 2 kv_heads) dim]`, before
/// rotation, to `[rows, heads * dim]`. Keys and values go where the runs say.
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
    pass.keep(runs);
    pass.look_back(runs, &Output::new(out, attention.heads * attention.layout.dim));
}

struct Pass<'a> {
    attention: &'a Attention,
    layer: usize,
    qkv: &'a [f32],
    angles: &'a Angles,
    variant: Variant,
}

/// Rows to a tile, times the heads of a group; at most 32, so that its own keys make one panel.
const TILE: usize = 24;
/// Products below which several threads do not pay.
const SMALL: usize = 1 << 18;

impl Pass<'_> {
    /// Rotates the new keys and puts them and the values where they belong.
    fn keep(&self, runs: &mut [Run<'_>]) {
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
                        let page = Arc::get_mut(page).expect("pages written to are this text's own");
                        let positions = from.max(i * PAGE)..end.min((i + 1) * PAGE);
                        let first = run.rows.start + positions.start - from;
                        let heads = page.as_mut_slice()[layout.in_layer(self.layer)]
                            .chunks_exact_mut(layout.head());
                        parts.extend(
                            heads.enumerate().map(|(head, part)| (head, part, positions.clone(), first)),
                        );
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
        }
        let fill = |(head, part, positions, first): (usize, &mut [f32], Range<usize>, usize)| {
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

    fn look_back(&self, runs: &[Run<'_>], out: &Output<'_>) {
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
            SCRATCH.with_borrow_mut(|scratch| self.tile(run, *head, rows.clone(), out, scratch));
        };
        if products < SMALL { (0..tiles.len()).for_each(work) } else { pool::run(tiles.len(), &work) }
    }

    /// Some rows of a run, all query heads of one key-value head. `t` counts rows, then heads.
    fn tile(
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
        // Keys in the pages that the last row sees.
        let stored = if branch { last } else { last + 1 };
        // The first key that each row sees, and that any does.
        let first = |position: usize| window.map_or(0, |window| (position + 1).saturating_sub(window));
        for page in first(run.position(rows.start)) / PAGE..=last / PAGE {
            let before = page * PAGE;
            let stored = stored.saturating_sub(before).min(PAGE);
            let at = layout.at(self.layer, head);
            let (keys, values) = match pages.get(page) {
                Some(page) => page.as_slice()[at].split_at(PAGE * dim),
                None => (&[][..], &[][..]),
            };
            for (panel, scores) in scores.chunks_exact_mut(count * LANES).enumerate() {
                if stored > panel * LANES {
                    let keys = &keys[panel * dim * LANES..][..dim * LANES];
                    tile::rows(self.variant, keys, q, dim, scores, false);
                }
            }
            // The slot of the candidates' own keys, if it is in this page.
            let slot = (branch && last / PAGE == page).then_some(last % PAGE);
            vectorised(self.variant, || {
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
                    let values = &values[panel * PAGE * LANES..][..stored.next_multiple_of(2) * LANES];
                    tile::rows(self.variant, values, shares, PAGE, part, false);
                } else {
                    part.fill(0.0);
                }
                if slot.is_some() {
                    own.add(panel, group, part, self.variant);
                }
            }
            vectorised(self.variant, || {
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
            // SAFETY: every (row, query head) belongs to one tile, and a tile to one thread.
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

    /// A head of a row, turned to its position and scaled.
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

/// Folds the scores of the keys of a page that one row has `seen` into its running maximum and total: shares
/// relative to the new maximum, zero for the other keys. Gives what older sums shrink by.
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
    /// A page's weighted values: panels of `[t][32]`.
    part: Vec<f32>,
    /// All pages', relative to the running maximum: `[t][padded]`.
    sums: Vec<f32>,
    /// Maximum and total, `[t]`.
    running: Vec<(f32, f32)>,
    own: Own,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What candidates add to the pages: each its own key and value.
#[derive(Default)]
struct Own {
    /// One panel `[dim][32 candidates]`: a tile has no more.
    keys: Vec<f32>,
    /// Panels of one step: `[candidate][panel][2][32]`, the second input zero.
    values: Vec<f32>,
    /// Scores of every row against 32 candidates, `[t][32]`.
    all: Vec<f32>,
    /// Scores against the row's own, `[t]`.
    scores: Vec<f32>,
    /// Shares of the row's own, `[t][2]`, the second zero.
    shares: Vec<f32>,
    panels: usize,
}

impl Own {
    /// Keys and values of some candidates `[rows][token]`, and the scores of their queries.
    fn fill(
        &mut self,
        kept: &[f32],
        head: usize,
        layout: &Layout,
        q: &[f32],
        group: usize,
        variant: Variant,
    ) {
        let (dim, panels) = (layout.dim, layout.padded() / LANES);
        let tokens = kept.chunks_exact(layout.token());
        let rows = tokens.len();
        let reset = |buffer: &mut Vec<f32>, size: usize| {
            buffer.clear();
            buffer.resize(size, 0.0);
        };
        reset(&mut self.keys, dim * LANES);
        reset(&mut self.values, rows * panels * 2 * LANES);
        reset(&mut self.all, rows * group * LANES);
        reset(&mut self.scores, rows * group);
        reset(&mut self.shares, 2 * rows * group);
        self.panels = panels;
        for (row, token) in tokens.enumerate() {
            let (keys, values) = token.split_at(layout.kv_heads * dim);
            for (step, key) in self.keys.chunks_exact_mut(LANES).zip(&keys[head * dim..][..dim]) {
                step[row] = *key;
            }
            let to = self.values[row * panels * 2 * LANES..].chunks_exact_mut(2 * LANES);
            for (to, value) in to.zip(values[head * dim..][..dim].chunks(LANES)) {
                to[..value.len()].copy_from_slice(value);
            }
        }
        // The same kernel as for keys in pages, so that the same key has the same score to the bit.
        tile::rows(variant, &self.keys, q, dim, &mut self.all, false);
        for (t, (score, all)) in self.scores.iter_mut().zip(self.all.chunks_exact(LANES)).enumerate() {
            *score = all[t / group];
        }
    }

    /// Adds every row's share of its own value to one panel of a page's weighted values, `[t][32]`.
    fn add(&self, panel: usize, group: usize, part: &mut [f32], variant: Variant) {
        let values = self.values.chunks_exact(self.panels * 2 * LANES);
        for ((part, shares), values) in
            part.chunks_exact_mut(group * LANES).zip(self.shares.chunks_exact(2 * group)).zip(values)
        {
            tile::rows(variant, &values[panel * 2 * LANES..][..2 * LANES], shares, 2, part, true);
        }
    }
}
