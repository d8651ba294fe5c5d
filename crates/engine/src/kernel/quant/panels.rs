//! The panels of a layer. Each panel has a type of its own, because layers that are stacked may have different types.

use std::ops::Range;
use std::sync::Mutex;

#[cfg(target_arch = "x86_64")]
use super::avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::file::put;
use super::format::{BLOCK, Format, Lane, Quant, with_format};
use super::inputs::{Inputs, Rounded, put_numbers};
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::portable;
use crate::kernel::pack::Rows;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::kernel::tile::{blocks, by_rows};
use crate::kernel::weight::LANES;
use crate::kernel::{Variant, pool};

/// A matrix of weights `[n, k]`, of which some rows are stored in blocks.
pub trait Source<E>: Sync {
    /// The type of these rows' blocks, if all of them have the same type.
    fn quant(&self, rows: Range<usize>) -> Option<Quant>;

    /// Reads the blocks of some rows, which all have the same type.
    ///
    /// # Errors
    /// They cannot be read.
    fn blocks(&self, rows: Range<usize>, to: &mut [u8]) -> Result<(), E>;

    /// Reads some rows as numbers, `[rows, k]`.
    ///
    /// # Errors
    /// They cannot be read.
    fn numbers(&self, rows: Range<usize>, to: &mut [f32]) -> Result<(), E>;
}

/// The panels of a gated layer: those of the gate, which is the first `n` rows, and those of the rest take turns.
pub(in crate::kernel) struct Alternating<'a, S> {
    pub(in crate::kernel) stacked: &'a S,
    pub(in crate::kernel) n: usize,
}

impl<S> Alternating<'_, S> {
    /// The stored rows of a panel, of which the last one may have fewer.
    fn own(&self, rows: &Range<usize>) -> Range<usize> {
        let panel = rows.start / LANES;
        let from = panel / 2 * LANES;
        let first = panel % 2 * self.n;
        first + from..first + (from + LANES).min(self.n)
    }
}

impl<E, S: Source<E>> Source<E> for Alternating<'_, S> {
    fn quant(&self, rows: Range<usize>) -> Option<Quant> {
        self.stacked.quant(self.own(&rows))
    }

    fn blocks(&self, rows: Range<usize>, to: &mut [u8]) -> Result<(), E> {
        let own = self.own(&rows);
        let length = to.len() / rows.len() * own.len();
        self.stacked.blocks(own, &mut to[..length])
    }

    fn numbers(&self, rows: Range<usize>, to: &mut [f32]) -> Result<(), E> {
        let own = self.own(&rows);
        let length = to.len() / rows.len() * own.len();
        self.stacked.numbers(own, &mut to[..length])
    }
}

/// Panels of 32 outputs.
pub(in crate::kernel) struct Panels {
    /// One panel after the other, from `start` on, which is the beginning of a cache line.
    bytes: Vec<u8>,
    start: usize,
    /// The type of each panel, and where it begins.
    panels: Vec<(Quant, usize)>,
    /// Blocks of 32 inputs per panel.
    blocks: usize,
}

impl Panels {
    /// Weights `[n, k]` rounded to Q8_0.
    ///
    /// # Errors
    /// An error of `rows`.
    pub(in crate::kernel) fn rounded<E: Send>(
        n: usize,
        k: usize,
        rows: impl Rows<E>,
    ) -> Result<Self, E> {
        let mut panels = Self::zeros(k.div_ceil(BLOCK), vec![Quant::Q8_0; n.div_ceil(LANES)]);
        panels.fill(n, |range, _, panel| put_rounded(range, k, panel, &rows))?;
        Ok(panels)
    }

    /// Weights `[n, k]` as they are stored. A panel of rows that are not all of one [`Quant`] is rounded to Q8_0.
    ///
    /// # Errors
    /// An error of `source`.
    ///
    /// # Panics
    /// `k` is not a multiple of the weights in a block.
    pub(in crate::kernel) fn stored<E: Send>(
        n: usize,
        k: usize,
        source: &impl Source<E>,
    ) -> Result<Self, E> {
        let found: Vec<_> =
            (0..n).step_by(LANES).map(|first| source.quant(first..(first + LANES).min(n))).collect();
        let whole = |quant: &Quant| k.is_multiple_of(quant.weights());
        assert!(found.iter().flatten().all(whole), "rows have whole blocks");
        let quants = found.iter().map(|quant| quant.unwrap_or(Quant::Q8_0)).collect();
        let mut panels = Self::zeros(k.div_ceil(BLOCK), quants);
        panels.fill(n, |range, quant, panel| {
            if found[range.start / LANES].is_none() {
                return put_rounded(range, k, panel, &|rows: Range<usize>, to: &mut [f32]| {
                    source.numbers(rows, to)
                });
            }
            let width = k / quant.weights() * quant.bytes();
            let mut stored = vec![0; range.len() * width];
            source.blocks(range, &mut stored)?;
            stored.chunks_exact(width).enumerate().for_each(|(lane, row)| put(quant, panel, lane, row));
            Ok(())
        })?;
        Ok(panels)
    }

    fn zeros(blocks: usize, quants: Vec<Quant>) -> Self {
        let mut size = 0;
        let panels = quants.into_iter().map(|quant| {
            size += quant.panel(blocks);
            (quant, size - quant.panel(blocks))
        });
        let panels: Vec<_> = panels.collect();
        let bytes = vec![0; size + LINE - 1];
        let start = bytes.as_ptr().align_offset(LINE).min(LINE - 1);
        Self { bytes, start, panels, blocks }
    }

    /// Calls `put` with the rows, the type and the bytes of each panel, on several threads.
    fn fill<E: Send>(
        &mut self,
        n: usize,
        put: impl Fn(Range<usize>, Quant, &mut [u8]) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let mut rest = &mut self.bytes[self.start..];
        let panels = self.panels.iter().enumerate().map(|(i, (quant, _))| {
            let (panel, more) = std::mem::take(&mut rest).split_at_mut(quant.panel(self.blocks));
            rest = more;
            (i * LANES..((i + 1) * LANES).min(n), *quant, panel)
        });
        let failed = Mutex::new(None);
        pool::share(panels, |(range, quant, panel)| {
            if let Err(error) = put(range, quant, panel) {
                *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
            }
        });
        failed.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
    }

    /// Size in bytes.
    pub(in crate::kernel) fn bytes(&self) -> usize {
        self.panels.iter().map(|(quant, _)| quant.panel(self.blocks)).sum()
    }

    fn panel(&self, panel: usize) -> (Quant, &[u8]) {
        let (quant, at) = self.panels[panel];
        (quant, &self.bytes[self.start + at..][..quant.panel(self.blocks)])
    }

    /// Writes the weights of one output.
    pub(in crate::kernel) fn row(&self, row: usize, to: &mut [f32]) {
        let (quant, panel) = self.panel(row / LANES);
        with_format!(quant, F => {
            for (block, to) in to.chunks_mut(BLOCK).enumerate() {
                let numbers = Lane::of::<F>(panel, block, row % LANES).numbers();
                to.copy_from_slice(&numbers[..to.len()]);
            }
        });
    }

    /// The product of one panel with the first `m` rows of x, into y `[m][32]`.
    pub(in crate::kernel) fn product(&self, variant: Variant, panel: usize, x: &Inputs, y: &mut [f32]) {
        let (quant, panel) = self.panel(panel);
        assert!(x.blocks == self.blocks, "x has another width");
        with_format!(quant, F => product::<F>(variant, panel, &x.rounded, self.blocks, y));
    }
}

/// Size of a cache line in bytes.
const LINE: usize = 64;

fn put_rounded<E>(
    range: Range<usize>,
    k: usize,
    panel: &mut [u8],
    rows: &impl Rows<E>,
) -> Result<(), E> {
    let mut found = vec![0f32; range.len() * k];
    rows(range, &mut found)?;
    found.chunks_exact(k).enumerate().for_each(|(lane, row)| put_numbers(panel, lane, row));
    Ok(())
}

fn product<F: Format>(variant: Variant, panel: &[u8], x: &[Rounded], n: usize, y: &mut [f32]) {
    let m = y.len() / LANES;
    assert!(panel.len() == F::panel(n) && y.len() == m * LANES && x.len() >= m * n);
    match variant {
        #[cfg(target_arch = "x86_64")]
        Variant::Avx512Dot => blocks(m, 6, |row, rows| {
            let (w, x, y) = (panel.as_ptr(), x[row * n..].as_ptr(), y[row * LANES..].as_mut_ptr());
            // SAFETY: variants come from `Variant::available`, so the processor has this one; the lengths are asserted
            // above.
            unsafe { by_rows!(rows, [1 2 3 4 5 6], M => avx512::rows::<F, M>(w, x, n, y)) }
        }),
        #[cfg(target_arch = "x86_64")]
        Variant::Avx512 | Variant::Avx2 => blocks(m, 3, |row, rows| {
            let (w, x, y) = (panel.as_ptr(), x[row * n..].as_ptr(), y[row * LANES..].as_mut_ptr());
            // SAFETY: as above; a processor with AVX-512 has AVX2.
            unsafe { by_rows!(rows, [1 2 3], M => avx2::rows::<F, M>(w, x, n, y)) }
        }),
        #[cfg(target_arch = "aarch64")]
        Variant::Neon => blocks(m, 3, |row, rows| {
            let (w, x, y) = (panel.as_ptr(), x[row * n..].as_ptr(), y[row * LANES..].as_mut_ptr());
            // SAFETY: all processors of this architecture have NEON; the lengths are asserted above.
            unsafe { by_rows!(rows, [1 2 3], M => neon::rows::<F, M>(w, x, n, y)) }
        }),
        _ => portable::rows::<F>(panel, x, n, y),
    }
}
