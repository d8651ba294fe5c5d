//! What DeBERTa adds to the scores of its attention (He et al. 2021, section 3.1): how a query meets the
//! distance of a key, and how a key meets the distance of a query.
//!
//! Far distances share a place in a table of positions, the farther the more of them do. What a layer makes of
//! the table does not depend on the text, so it is made once, at load.

use crate::error::{Error, Result};
use crate::kernel::{Dtype, Packed};

/// How distances are told apart, and what is made of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Distances {
    /// Places that distances share, on either side; 0: as many as `reach`, and none is shared.
    pub(super) buckets: usize,
    /// Distance, in tokens, from which on all are one.
    pub(super) reach: usize,
    /// Whether the table is normed.
    pub(super) norm: bool,
    /// Whether the layers for queries and keys read the table too, or layers of its own do.
    pub(super) shared: bool,
    /// Whether queries meet distances.
    pub(super) of_keys: bool,
    /// Whether keys do.
    pub(super) of_queries: bool,
}

impl Distances {
    /// Places on either side of a token.
    fn span(&self) -> usize {
        if self.buckets > 0 { self.buckets } else { self.reach }
    }

    /// Rows of the table.
    pub(super) fn rows(&self) -> usize {
        self.span().saturating_mul(2)
    }

    /// What the terms of a score are multiplied by, in heads of this width.
    pub(super) fn scale(&self, dim: usize) -> f32 {
        let terms = 1 + usize::from(self.of_keys) + usize::from(self.of_queries);
        1.0 / ((terms * dim) as f32).sqrt()
    }

    /// The row of a distance, position of the query minus that of the key.
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

    /// Rows of the table by distance, from the greatest that a text of `n` tokens has to the least.
    pub(super) fn places(&self, n: usize) -> Vec<usize> {
        let most = n as isize - 1;
        (-most..=most).rev().map(|distance| self.place(distance)).collect()
    }
}

/// The table of positions as the heads of one layer read it.
pub(super) struct Relative {
    heads: usize,
    dim: usize,
    scale: f32,
    /// What queries meet, `[positions, dim]` for each head; none: they meet nothing.
    keys: Vec<Packed>,
    /// What keys meet.
    queries: Vec<Packed>,
}

impl Relative {
    /// From the table behind the layers for keys and for queries, `[positions][heads dim]`.
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

    /// Writes what a head's scores get, `[query][key]`. `qkv` are the rows of one text, `places` the rows of the
    /// table by distance, from that of the last query to the first key on.
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

    /// Numbers that transformers' `make_log_bucket_position` gives.
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
