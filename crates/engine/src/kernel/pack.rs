//! Packing of floating-point weights into panels of 32 outputs, and back.

use std::ops::Range;
use std::sync::Mutex;

use super::pool;
use super::weight::{LANES, Weight};

/// A function that writes some rows of a matrix, `[rows, k]`.
pub trait Rows<E>: Fn(Range<usize>, &mut [f32]) -> std::result::Result<(), E> + Sync {}
impl<E, F: Fn(Range<usize>, &mut [f32]) -> std::result::Result<(), E> + Sync> Rows<E> for F {}

pub(super) fn pack<T: Weight, E: Send>(
    n: usize,
    k: usize,
    steps: usize,
    panels: usize,
    rows: impl Rows<E>,
) -> std::result::Result<Vec<T>, E> {
    let mut packed = vec![T::default(); panels * steps * T::STEP];
    each_panel(packed.chunks_exact_mut(steps * T::STEP), n, k, rows, |panel, lane, row| {
        for (step, pair) in panel.chunks_exact_mut(T::STEP).zip(row.chunks(2)) {
            T::put(step, lane, [pair[0], pair.get(1).copied().unwrap_or(0.0)]);
        }
    })?;
    Ok(packed)
}

/// Reads the rows of each panel and passes them to `put(panel, lane, row)`.
fn each_panel<P: Send, E: Send>(
    panels: impl Iterator<Item = P> + Send,
    n: usize,
    k: usize,
    rows: impl Rows<E>,
    put: impl Fn(&mut P, usize, &[f32]) + Sync,
) -> std::result::Result<(), E> {
    let failed = Mutex::new(None);
    pool::share(panels.enumerate(), |(i, mut panel)| {
        let range = i * LANES..((i + 1) * LANES).min(n);
        let mut found = vec![0f32; range.len() * k];
        match rows(range, &mut found) {
            Ok(()) => {
                found.chunks_exact(k).enumerate().for_each(|(lane, row)| put(&mut panel, lane, row));
            }
            Err(error) => *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(error),
        }
    });
    failed.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
}

pub(super) fn unpack<T: Weight>(packed: &[T], row: usize, steps: usize, to: &mut [f32]) {
    let panel = part(packed, row / LANES, steps * T::STEP);
    for (step, to) in panel.chunks_exact(T::STEP).zip(to.chunks_mut(2)) {
        to.copy_from_slice(&T::pair(step, row % LANES)[..to.len()]);
    }
}

pub(super) fn part<T>(weights: &[T], panel: usize, length: usize) -> &[T] {
    &weights[panel * length..(panel + 1) * length]
}
