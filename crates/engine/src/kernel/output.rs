//! An output matrix that several threads write to.

use std::marker::PhantomData;
use std::ops::Range;

/// A matrix `[rows, width]` of which several threads write disjoint parts.
pub(super) struct Output<'a> {
    start: *mut f32,
    rows: usize,
    width: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: the only access is `part`, whose caller guarantees that parts do not overlap.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    pub(super) fn new(numbers: &'a mut [f32], width: usize) -> Self {
        let rows = numbers.len() / width;
        Self { start: numbers.as_mut_ptr(), rows, width, borrow: PhantomData }
    }

    /// Some columns of a row, for writing.
    ///
    /// # Safety
    /// No other part that overlaps this one may exist at the same time.
    ///
    /// # Panics
    /// The part is not inside the matrix.
    #[allow(clippy::mut_from_ref, reason = "the caller guarantees that parts do not overlap")]
    pub(super) unsafe fn part(&self, row: usize, columns: Range<usize>) -> &mut [f32] {
        assert!(row < self.rows && columns.start <= columns.end && columns.end <= self.width);
        // SAFETY: by the assertion, the part lies inside the matrix; by the caller's guarantee, it does not alias.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.start.add(row * self.width + columns.start),
                columns.len(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_inside_the_matrix() {
        let mut numbers = vec![0f32; 6];
        let output = Output::new(&mut numbers, 3);
        // SAFETY: no other part exists.
        unsafe { output.part(1, 1..3) }.fill(1.0);
        #[expect(clippy::reversed_empty_ranges, reason = "the case that must be refused")]
        for (row, columns) in [(2, 0..1), (0, 2..4), (1, 3..2)] {
            let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                // SAFETY: no other part exists.
                unsafe { output.part(row, columns.clone()) }.len()
            }));
            assert!(refused.is_err(), "{row} {columns:?}");
        }
        assert_eq!(numbers, [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
    }
}
