//! DeBERTa's disentangled attention (He et al. 2021, section 3.1): attention scores have a content-to-position term (the
//! query with the relative position of the key) and a position-to-content term (the key with the relative position of
//! the query).
//!
//! Relative positions are looked up in a table, in which large distances share rows in logarithmic buckets. The
//! projection of the table in each layer does not depend on the text, so it is computed once at load time.

use crate::error::{Error, Result};
use crate::kernel::{Dtype, Packed};

/// The configuration of relative positions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Distances {
    /// Number of buckets on either side; 0 means one row for each distance up to `reach`.
    pub(super) buckets: usize,
    /// The distance, in tokens, from which on all distances share one row.
    pub(super) reach: usize,
    /// Whether the table is normalised.
    pub(super) norm: bool,
    /// Whether the table is projected by the layers of queries and keys; otherwise it has layers of its own.
    pub(super) shared: bool,
    /// Whether there is a content-to-position term.
    pub(super) of_keys: bool,
    /// Whether there is a position-to-content term.
    pub(super) of_queries: bool,
}

impl Distances {
    /// Number of rows on either side of a token.
    fn span(&self) -> usize {
        if self.buckets > 0 { self.buckets } else { self.reach }
    }

    /// Number of rows of the table.
    pub(super) fn rows(&self) -> usize {
        self.span().saturating_mul(2)
    }

    /// Factor on the terms of a score, for heads of this width.
    pub(super) fn scale(&self, dim: usize) -> f32 {
        let terms = 1 + usize::from(self.of_keys) + usize::from(self.of_queries);
        1.0 / ((terms * dim) as f32).sqrt()
    }

    /// The row of a distance, which is the position of the query minus that of the key.
    fn place(&self, distance: isize) -> usize {
        let (far, middle) = (distance.unsigned_abs(), self.buckets / 2);
        let bucket = if self.buckets == 0 || far <= middle {
            far
        } else {
            let log = |distance: usize| (distance as f64 / middle as f64).ln();
            let share = log(far) / log(self.reach - 1);
            (share * (middle as f64 - 1.0)).ceil() as usize + middle
        };
        let span = self.span();
        if distance < 0 { span - bucket.min(span) } else { (span + bucket).min(2 * span - 1) }
    }

    /// Rows of the table for all distances in a text of `n` tokens, from `n - 1` down to `1 - n`.
    pub(super) fn places(&self, n: usize) -> Vec<usize> {
        let most = n as isize - 1;
        (-most..=most).rev().map(|distance| self.place(distance)).collect()
    }
}

/// The table of relative positions, projected for the heads of one layer.
pub(super) struct Relative {
    heads: usize,
    dim: usize,
    scale: f32,
    /// Projected as keys, `[positions, dim]` for each head; empty without a content-to-position term.
    keys: Vec<Packed>,
    /// Projected as queries; empty without a position-to-content term.
    queries: Vec<Packed>,
}

impl Relative {
    /// Splits the table by heads, after the projections for keys and for queries, `[positions][heads dim]`.
    pub(super) fn new(
        heads: usize,
        dim: usize,
        scale: f32,
        keys: Option<&[f32]>,
        queries: Option<&[f32]>,
    ) -> Result<Self> {
        let width = heads * dim;
        let by_head = |table: &[f32]| -> Result<Vec<Packed>> {
            let layer = |head: usize| {
                Packed::new(table.len() / width, dim, Dtype::F32, |rows, to: &mut [f32]| {
                    let rows = table[rows.start * width..rows.end * width].chunks_exact(width);
                    for (to, row) in to.chunks_exact_mut(dim).zip(rows) {
                        to.copy_from_slice(&row[head * dim..][..dim]);
                    }
                    Ok::<_, Error>(())
                })
            };
            (0..heads).map(layer).collect()
        };
        let all = |table: Option<&[f32]>| table.map_or_else(|| Ok(Vec::new()), by_head);
        Ok(Self { heads, dim, scale, keys: all(keys)?, queries: all(queries)? })
    }

    /// Writes the bias on a head's scores, `[query][key]`. `qkv` has the rows of one text, and `places` the rows of the
    /// table as given by [`Distances::places`], for this text or a longer one.
    pub(super) fn add(&self, qkv: &[f32], places: &[usize], head: usize, to: &mut [f32]) {
        let (dim, width) = (self.dim, self.heads * self.dim);
        let n = qkv.len() / (3 * width);
        // [n, positions]
        let met = |table: &Packed, part: usize| {
            let rows = qkv.chunks_exact(3 * width).map(|row| &row[part * width + head * dim..][..dim]);
            let mut met = vec![0.0; n * table.outputs()];
            table.apply(&rows.flatten().copied().collect::<Vec<f32>>(), &mut met, false);
            (met, table.outputs())
        };
        let by_query = self.keys.get(head).map(|table| met(table, 0));
        let by_key = self.queries.get(head).map(|table| met(table, 1));
        for (row, to) in to.chunks_exact_mut(n).enumerate() {
            let places = &places[places.len() / 2 - row..][..n];
            to.fill(0.0);
            if let Some((met, positions)) = &by_query {
                let met = &met[row * positions..][..*positions];
                to.iter_mut().zip(places).for_each(|(to, place)| *to += met[*place]);
            }
            if let Some((met, positions)) = &by_key {
                let met = met.chunks_exact(*positions).zip(places);
                to.iter_mut().zip(met).for_each(|(to, (met, place))| *to += met[*place]);
            }
            to.iter_mut().for_each(|x| *x *= self.scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected values are those of `make_log_bucket_position` in transformers.
    #[test]
    fn far_distances_share_places() {
        let distances = |buckets, reach| Distances {
            buckets,
            reach,
            norm: true,
            shared: true,
            of_keys: true,
            of_queries: true,
        };
        let places = distances(8, 64).places(100);
        let place = |distance: isize| places[(99 - distance) as usize] as isize - 8;
        let found: Vec<isize> = [0, 1, 4, 5, 10, 11, 25, 26, 63, 64, 99].map(place).to_vec();
        assert_eq!(found, [0, 1, 4, 5, 5, 6, 6, 7, 7, 7, 7]);
        assert!((1..=63).all(|distance| place(-distance) == -place(distance)));
        assert_eq!(place(-99), -8);
        let plain = distances(0, 16).places(20);
        assert_eq!((plain[0], plain[19 - 15], plain[19], plain[19 + 16], plain[38]), (31, 31, 16, 0, 0));
    }
}
