//! Keys and values of candidate tokens, which attention reads beside the pages of their shared prefix.

use super::Variant;
use super::pages::Layout;
use super::tile;
use super::weight::LANES;

/// Keys and values of the candidates of one tile. Each row sees its own key and value besides the pages.
#[derive(Default)]
pub(super) struct Own {
    /// One panel `[dim][32 candidates]`; a tile has at most 32 candidates.
    keys: Vec<f32>,
    /// Panels of one step each: `[candidate][panel][2][32]`. The second input is zero.
    values: Vec<f32>,
    /// Scores of every row against all 32 candidates, `[t][32]`.
    all: Vec<f32>,
    /// Scores of every row against its own key, `[t]`.
    pub(super) scores: Vec<f32>,
    /// Softmax numerators of the row's own key, `[t][2]`. The second one is zero.
    pub(super) shares: Vec<f32>,
    panels: usize,
}

impl Own {
    /// Stores keys and values of some candidates, `kept` `[rows][token]`, and scores their queries `q` `[t][dim]`.
    pub(super) fn fill(
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
        // The same kernel as for keys in pages, so that the same key gets a bit-identical score.
        tile::rows(variant, &self.keys, q, dim, &mut self.all, false);
        for (t, (score, all)) in self.scores.iter_mut().zip(self.all.chunks_exact(LANES)).enumerate() {
            *score = all[t / group];
        }
    }

    /// Adds every row's weighted own value to one panel of the weighted values, `sums` `[t][32]`.
    pub(super) fn add(&self, panel: usize, group: usize, sums: &mut [f32], variant: Variant) {
        let values = self.values.chunks_exact(self.panels * 2 * LANES);
        for ((sums, shares), values) in
            sums.chunks_exact_mut(group * LANES).zip(self.shares.chunks_exact(2 * group)).zip(values)
        {
            tile::rows(variant, &values[panel * 2 * LANES..][..2 * LANES], shares, 2, sums, true);
        }
    }
}
