//! Orthogonal initialisation of weights.

use rand::RngExt;
use rand_chacha::ChaCha12Rng;
use rayon::prelude::*;

/// A random matrix `[inputs, outputs]`, row-major, with orthonormal columns, or orthonormal rows if there are fewer
/// rows than columns.
pub(super) fn orthogonal(inputs: usize, outputs: usize, rng: &mut ChaCha12Rng) -> Vec<f32> {
    let (few, many) = (inputs.min(outputs), inputs.max(outputs));
    // Modified Gram-Schmidt orthonormalisation of `few` vectors of length `many`.
    let mut vectors: Vec<Vec<f64>> =
        (0..few).map(|_| (0..many).map(|_| normal(rng)).collect()).collect();
    for i in 0..few {
        let (done, ahead) = vectors.split_at_mut(i + 1);
        let vector = &mut done[i];
        let length = dot(vector, vector).sqrt();
        vector.iter_mut().for_each(|x| *x /= length);
        let vector = &*vector;
        ahead.par_iter_mut().for_each(|other| {
            let along = dot(vector, other);
            other.iter_mut().zip(vector).for_each(|(x, v)| *x -= along * v);
        });
    }
    let at = |input: usize, output: usize| match inputs <= outputs {
        true => vectors[input][output],
        false => vectors[output][input],
    };
    (0..inputs * outputs).map(|i| at(i / outputs, i % outputs) as f32).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Four independent sums, so that additions can overlap.
    let mut sums = [0.0; 4];
    let (a, b) = (a.chunks(4), b.chunks(4));
    for (a, b) in a.zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

/// A standard normal number (Box-Muller transform).
fn normal(rng: &mut ChaCha12Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn columns_or_rows_are_orthonormal() {
        for (inputs, outputs) in [(7, 30), (30, 7), (40, 40), (9, 1)] {
            let matrix = orthogonal(inputs, outputs, &mut ChaCha12Rng::seed_from_u64(1));
            let at = |i: usize, o: usize| f64::from(matrix[i * outputs + o]);
            for i in 0..inputs.min(outputs) {
                for j in 0..inputs.min(outputs) {
                    let product: f64 = match inputs <= outputs {
                        true => (0..outputs).map(|o| at(i, o) * at(j, o)).sum(),
                        false => (0..inputs).map(|k| at(k, i) * at(k, j)).sum(),
                    };
                    assert!(
                        (product - f64::from(u8::from(i == j))).abs() < 1e-6,
                        "{inputs} {outputs} {i} {j}"
                    );
                }
            }
        }
    }
}
