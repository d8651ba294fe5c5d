//! A checked matrix of features, and statistics of its columns.

use crate::error::Error;

/// Features of texts: a row-major matrix `[n, width]` of finite numbers, one row per text.
#[derive(Debug, Clone, Copy)]
pub struct Features<'a> {
    values: &'a [f32],
    width: usize,
}

impl<'a> Features<'a> {
    /// `values` `[n, width]`, row-major.
    ///
    /// # Errors
    /// `width` is 0, the length is not a multiple of `width`, or a value is NaN or infinite.
    pub fn new(values: &'a [f32], width: usize) -> Result<Self, Error> {
        if width == 0 || !values.len().is_multiple_of(width) {
            return Err(Error::Shape { values: values.len(), width });
        }
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(Error::Feature { row: at / width, column: at % width, value: values[at] });
        }
        Ok(Self { values, width })
    }

    /// Number of rows, `n`.
    pub fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    /// Number of columns, `d`.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Row `index` `[width]`, from 0.
    ///
    /// # Panics
    /// If the row does not exist.
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.width..(index + 1) * self.width]
    }

    /// All rows in order, each `[width]`.
    pub fn iter(&self) -> impl Iterator<Item = &'a [f32]> {
        self.values.chunks_exact(self.width)
    }
}

/// Sums and sums of squares over rows, relative to a fixed centre so that subtracting a part keeps precision.
#[derive(Debug, Clone)]
pub(crate) struct Spread {
    rows: f64,
    sum: Vec<f64>,
    square: Vec<f64>,
}

impl Spread {
    pub(crate) fn new(width: usize) -> Self {
        Self { rows: 0.0, sum: vec![0.0; width], square: vec![0.0; width] }
    }

    pub(crate) fn add(&mut self, row: &[f32], centre: &[f64]) {
        self.rows += 1.0;
        for (((sum, square), &x), &c) in self.sum.iter_mut().zip(&mut self.square).zip(row).zip(centre) {
            let x = f64::from(x) - c;
            *sum += x;
            *square += x * x;
        }
    }

    /// The sums of these rows and those of `part`.
    pub(crate) fn with(&self, part: &Self) -> Self {
        self.plus(part, 1.0)
    }

    /// The sums of these rows without those of `part`.
    pub(crate) fn without(&self, part: &Self) -> Self {
        self.plus(part, -1.0)
    }

    fn plus(&self, part: &Self, sign: f64) -> Self {
        let plus = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + sign * b).collect();
        Self {
            rows: self.rows + sign * part.rows,
            sum: plus(&self.sum, &part.sum),
            square: plus(&self.square, &part.square),
        }
    }

    pub(crate) fn rows(&self) -> f64 {
        self.rows
    }

    /// Column means relative to the centre, `[width]`.
    pub(crate) fn mean(&self) -> Vec<f64> {
        self.sum.iter().map(|s| s / self.rows).collect()
    }

    /// Column standard deviations (divisor `n`), `[width]`.
    pub(crate) fn deviation(&self) -> Vec<f64> {
        let one = |(s, q): (&f64, &f64)| (q / self.rows - (s / self.rows).powi(2)).max(0.0).sqrt();
        self.sum.iter().zip(&self.square).map(one).collect()
    }

    /// Inverse standard deviations, `[width]`; 0 for columns whose standard deviation is at most `floor`, which removes
    /// them from the fit.
    pub(crate) fn inverse(&self, floor: &[f64]) -> Vec<f64> {
        let one = |(sd, floor): (f64, &f64)| if sd > *floor { 1.0 / sd } else { 0.0 };
        self.deviation().into_iter().zip(floor).map(one).collect()
    }
}

/// Column means over the rows of several matrices, `[width]`.
pub(crate) fn centre(parts: &[Features<'_>]) -> Vec<f64> {
    let width = parts[0].width();
    let mut sum = vec![0.0; width];
    let mut rows = 0.0;
    for row in parts.iter().flat_map(Features::iter) {
        rows += 1.0;
        for (sum, &x) in sum.iter_mut().zip(row) {
            *sum += f64::from(x);
        }
    }
    sum.iter_mut().for_each(|s| *s /= rows);
    sum
}

/// Standard deviations up to which columns count as constant, `[width]`: the rounding errors of the column's spread and
/// of its mean.
pub(crate) fn floor(all: &Spread, centre: &[f64]) -> Vec<f64> {
    let one = |(sd, c): (f64, &f64)| (1e-7 * sd).max(1e-8 * c.abs());
    all.deviation().into_iter().zip(centre).map(one).collect()
}
