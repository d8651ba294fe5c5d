//! Rotary position embeddings: the rotations of queries and keys.

/// A rotary position embedding (Su et al. 2021, section 3.2.2).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rotary {
    /// Radians per position for the pairs `(0, n), (1, n + 1)...` of a head's first 2n numbers. The other numbers of
    /// the head are not rotated.
    pub(crate) frequencies: Vec<f32>,
    /// Factor on cosines and sines.
    pub(crate) factor: f32,
}

/// Cosines and sines of one rotation for the rows of a forward pass, `[rows][half]`.
pub(crate) struct Angles {
    pub(super) half: usize,
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
}

/// The angles of a layer without a rotation.
pub(super) static STILL: Angles = Angles { half: 0, cos: Vec::new(), sin: Vec::new() };

impl Rotary {
    /// The angles at these positions.
    pub(crate) fn angles(&self, positions: impl Iterator<Item = usize>) -> Angles {
        let Self { frequencies, factor } = self;
        let angles = positions.flat_map(|position| frequencies.iter().map(move |f| position as f32 * f));
        let (cos, sin) = angles.map(|angle| (angle.cos() * factor, angle.sin() * factor)).unzip();
        Angles { half: frequencies.len(), cos, sin }
    }
}

impl Angles {
    /// Rotates one head of the row with this index, in place.
    pub(super) fn turn(&self, row: usize, head: &mut [f32]) {
        let (first, second) = head.split_at_mut(self.half);
        let angles = self.cos[row * self.half..].iter().zip(&self.sin[row * self.half..]);
        for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(angles) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}
