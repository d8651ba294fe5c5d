//! Linear algebra for linear heads: dot products, Gram matrices and Cholesky factors, in `f64`. The loops have a fixed
//! order of summation and are written so that the compiler vectorises them.

const LANES: usize = 8;

/// `sum a_i b_i`.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (a, b) = (&a[..a.len().min(b.len())], &b[..a.len().min(b.len())]);
    let (heads, others) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f64 = heads.remainder().iter().zip(others.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in heads.zip(others) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    lanes.iter().sum::<f64>() + rest
}

/// `sum row_i v_i`, with the row converted to `f64`.
pub(crate) fn score(row: &[f32], v: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (heads, others) = (row.chunks_exact(LANES), v.chunks_exact(LANES));
    let rest: f64 =
        heads.remainder().iter().zip(others.remainder()).map(|(a, b)| f64::from(*a) * b).sum();
    for (a, b) in heads.zip(others) {
        for i in 0..LANES {
            lanes[i] += f64::from(a[i]) * b[i];
        }
    }
    lanes.iter().sum::<f64>() + rest
}

/// Number of rows of a Cholesky factor that are computed together.
const TALL: usize = 4;

/// [`dot`] of several rows with one vector.
fn dots(rows: [&[f64]; TALL], b: &[f64]) -> [f64; TALL] {
    let whole = b.len() / 2 * 2;
    let [w, x, y, z] = rows.map(|row| &row[..b.len()]);
    let mut sums = [[0.0; 2]; TALL];
    for k in (0..whole).step_by(2) {
        for i in 0..2 {
            let b = b[k + i];
            sums[0][i] += w[k + i] * b;
            sums[1][i] += x[k + i] * b;
            sums[2][i] += y[k + i] * b;
            sums[3][i] += z[k + i] * b;
        }
    }
    let rest = |row: &[f64]| if whole < b.len() { row[whole] * b[whole] } else { 0.0 };
    std::array::from_fn(|r| sums[r][0] + sums[r][1] + rest(rows[r]))
}

/// A symmetric matrix `[d, d]`. Only the upper triangle, `i <= j`, is valid.
#[derive(Debug, Clone)]
pub(crate) struct Symmetric {
    pub(crate) width: usize,
    values: Vec<f64>,
}

/// Number of rows that are added to a Gram matrix in one pass over the matrix.
const BLOCK: usize = 8;

impl Symmetric {
    pub(crate) fn zero(width: usize) -> Self {
        Self { width, values: vec![0.0; width * width] }
    }

    /// `sum x xᵀ` over rows, where `fill(row, x)` writes the row into `x`, `[d]`.
    pub(crate) fn gram(width: usize, rows: &[usize], fill: impl Fn(usize, &mut [f64])) -> Self {
        let mut gram = Self::zero(width);
        let mut x = vec![0.0; BLOCK * width];
        for block in rows.chunks(BLOCK) {
            x[block.len() * width..].fill(0.0);
            for (row, x) in block.iter().zip(x.chunks_exact_mut(width)) {
                fill(*row, x);
            }
            gram.add_block(&x);
        }
        gram
    }

    fn add_block(&mut self, x: &[f64]) {
        let d = self.width;
        let x: [&[f64]; BLOCK] = std::array::from_fn(|r| &x[r * d..(r + 1) * d]);
        for i in 0..d {
            let c = x.map(|row| row[i]);
            let n = d - i;
            let [a, b, e, f, g, h, k, l] = x.map(|row| &row[i..i + n]);
            let out = &mut self.values[i * d + i..][..n];
            for j in 0..n {
                out[j] += (c[0] * a[j] + c[1] * b[j] + c[2] * e[j] + c[3] * f[j])
                    + (c[4] * g[j] + c[5] * h[j] + c[6] * k[j] + c[7] * l[j]);
            }
        }
    }

    /// `self += other`.
    pub(crate) fn add(&mut self, other: &Self) {
        self.values.iter_mut().zip(&other.values).for_each(|(a, b)| *a += b);
    }

    /// `scale (self - part)` with rows and columns multiplied by `side` `[d]`, minus the outer product of `mean` `[d]`
    /// with itself (in the new units).
    pub(crate) fn rescaled(&self, part: Option<&Self>, side: &[f64], scale: f64, mean: &[f64]) -> Self {
        let d = self.width;
        let mut out = self.clone();
        for i in 0..d {
            for j in i..d {
                let at = i * d + j;
                let part = part.map_or(0.0, |p| p.values[at]);
                out.values[at] = (out.values[at] - part) * scale * side[i] * side[j] - mean[i] * mean[j];
            }
        }
        out
    }

    /// The Cholesky factor of `scale self + ridge I`; `None` if this is not positive definite.
    pub(crate) fn factor(&self, scale: f64, ridge: f64) -> Option<Cholesky> {
        let d = self.width;
        let mut lower = vec![0.0; d * d];
        for first in (0..d).step_by(TALL) {
            let (above, block) = lower.split_at_mut(first * d);
            let tall = TALL.min(d - first);
            let block = &mut block[..tall * d];
            // Each finished row is read once for all rows of the block.
            for (j, other) in above.chunks_exact(d).enumerate() {
                // A block of fewer rows repeats its last row.
                let rows = std::array::from_fn(|r| &block[r.min(tall - 1) * d..][..j]);
                let dots = dots(rows, &other[..j]);
                for r in 0..tall {
                    block[r * d + j] = (scale * self.values[j * d + first + r] - dots[r]) / other[j];
                }
            }
            for r in 0..tall {
                let (done, row) = block.split_at_mut(r * d);
                let i = first + r;
                for j in first..i {
                    let other = &done[(j - first) * d..][..d];
                    row[j] = (scale * self.values[j * d + i] - dot(&row[..j], &other[..j])) / other[j];
                }
                let pivot = scale * self.values[i * d + i] + ridge - dot(&row[..i], &row[..i]);
                if pivot.is_nan() || pivot <= 0.0 {
                    return None;
                }
                row[i] = pivot.sqrt();
            }
        }
        Some(Cholesky { width: d, lower })
    }
}

/// A lower triangular factor `L` of `A = L Lᵀ`.
#[derive(Debug)]
pub(crate) struct Cholesky {
    width: usize,
    lower: Vec<f64>,
}

impl Cholesky {
    /// `A⁻¹ b`, `[d]`.
    pub(crate) fn solve(&self, b: &[f64]) -> Vec<f64> {
        let d = self.width;
        let mut x = b.to_vec();
        for i in 0..d {
            let row = &self.lower[i * d..i * d + d];
            x[i] = (x[i] - dot(&row[..i], &x[..i])) / row[i];
        }
        for i in (0..d).rev() {
            let row = &self.lower[i * d..i * d + d];
            let solved = x[i] / row[i];
            x[i] = solved;
            x[..i].iter_mut().zip(row).for_each(|(x, l)| *x -= solved * l);
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gram_matrix_factors_and_solves() {
        let (n, d) = (37, 13);
        let x = |i: usize, j: usize| ((i * 31 + j * 17) % 23) as f64 / 7.0 - 1.5;
        let rows: Vec<usize> = (0..n).collect();
        let gram = Symmetric::gram(d, &rows, |i, out| {
            out.iter_mut().enumerate().for_each(|(j, out)| *out = x(i, j));
        });
        let a = |i: usize, j: usize| (0..n).map(|r| x(r, i) * x(r, j)).sum::<f64>();
        for i in 0..d {
            for j in i..d {
                assert!((gram.values[i * d + j] - a(i, j)).abs() < 1e-10);
            }
        }
        let b: Vec<f64> = (0..d).map(|j| j as f64 - 4.0).collect();
        let solved = gram.factor(0.5, 0.3).unwrap().solve(&b);
        for i in 0..d {
            let back: f64 = (0..d).map(|j| 0.5 * a(i, j) * solved[j]).sum::<f64>() + 0.3 * solved[i];
            assert!((back - b[i]).abs() < 1e-9, "{back} {}", b[i]);
        }
        assert!(gram.factor(-1.0, 0.3).is_none());
    }
}
