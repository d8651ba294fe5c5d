//! Logistic regression on differences by Newton's method, with linear systems solved by conjugate gradients.
//!
//! The Hessian `ZᵀWZ/n + lambda I` changes with every step, but the Gram matrix `ZᵀZ` does not. The preconditioner is
//! `mean(W) ZᵀZ/n + lambda I`, which is factored about once per `lambda`. A solution therefore takes a few passes over
//! the data and no Gram matrix of its own.

use crate::cross_validation::{Linear, Problem, Progress, fan_out};
use crate::error::Error;
use crate::features::{Features, Spread, centre, floor};
use crate::folds::Folds;
use crate::linear::{Cholesky, Symmetric, dot, score};
use crate::measure::softplus;

/// Feature differences of pairs, with sums per fold.
pub(crate) struct BradleyTerry<'a> {
    folds: &'a Folds,
    width: usize,
    /// `chosen - rejected`, `[n, d]`. Rounding the difference to f32 loses no more than rounding the features did.
    differences: Vec<f32>,
    floor: Vec<f64>,
    parts: Vec<(Spread, Symmetric)>,
    all: (Spread, Symmetric),
}

impl<'a> BradleyTerry<'a> {
    /// Computes the sums of all folds. Reports one unit of progress per fold.
    pub(crate) fn new(
        chosen: Features<'_>,
        rejected: Features<'_>,
        folds: &'a Folds,
        threads: usize,
        progress: &Progress<'_>,
    ) -> Result<Self, Error> {
        let d = chosen.width();
        let minus = |(c, r): (&f32, &f32)| (f64::from(*c) - f64::from(*r)) as f32;
        let mut differences = Vec::with_capacity(chosen.rows() * d);
        for (c, r) in chosen.iter().zip(rejected.iter()) {
            differences.extend(c.iter().zip(r).map(minus));
        }
        if let Some(at) = differences.iter().position(|x| !x.is_finite()) {
            return Err(Error::Feature { row: at / d, column: at % d, value: differences[at] });
        }
        let centre = centre(&[chosen, rejected]);
        let parts = fan_out(threads, folds.count(), progress, |fold, tick| {
            let rows = folds.held(fold);
            let mut spread = Spread::new(d);
            for &row in rows {
                spread.add(chosen.row(row), &centre);
                spread.add(rejected.row(row), &centre);
            }
            let gram = Symmetric::gram(d, rows, |row, out| {
                let x = &differences[row * d..][..d];
                out.iter_mut().zip(x).for_each(|(out, &x)| *out = f64::from(x));
            });
            tick();
            (spread, gram)
        });
        let mut all = (Spread::new(d), Symmetric::zero(d));
        for (spread, gram) in &parts {
            all.0 = all.0.with(spread);
            all.1.add(gram);
        }
        let floor = floor(&all.0, &centre);
        let inverse = all.0.inverse(&floor);
        if !differences
            .chunks_exact(d)
            .any(|x| x.iter().zip(&inverse).any(|(&x, i)| f64::from(x) * i != 0.0))
        {
            return Err(Error::Constant { what: "features of chosen and rejected" });
        }
        Ok(Self { folds, width: d, differences, floor, parts, all })
    }
}

impl Problem for BradleyTerry<'_> {
    fn path(
        &self,
        without: Option<usize>,
        lambdas: &[f64],
        exact: bool,
        visit: &mut dyn FnMut(Linear),
    ) -> Result<(), Error> {
        let part = without.map(|fold| &self.parts[fold]);
        let spread = part.map_or_else(|| self.all.0.clone(), |p| self.all.0.without(&p.0));
        let inverse = spread.inverse(&self.floor);
        let rows = self.folds.training(without);
        let none = vec![0.0; self.width];
        let gram = self.all.1.rescaled(part.map(|p| &p.1), &inverse, 1.0 / rows.len() as f64, &none);
        let data = Data { differences: &self.differences, rows, inverse, gram };
        // The tolerance is the allowed distance of the objective from its minimum, in units of the mean log-loss.
        let mut at = data.evaluate(none);
        for (i, &lambda) in lambdas.iter().enumerate() {
            let tolerance = if exact && i + 1 == lambdas.len() { 1e-20 } else { 1e-9 };
            at = data.minimise(at, lambda, tolerance)?;
            let weight = at.u.iter().zip(&data.inverse).map(|(u, i)| u * i).collect();
            visit(Linear { weight, bias: 0.0 });
        }
        Ok(())
    }

    fn predict(&self, linear: &Linear, row: usize) -> f64 {
        score(&self.differences[row * self.width..][..self.width], &linear.weight)
    }
}

/// The training rows of one fit.
struct Data<'a> {
    differences: &'a [f32],
    rows: Vec<usize>,
    /// Inverse standard deviations, `[d]`.
    inverse: Vec<f64>,
    /// `ZᵀZ/n` of standardised differences.
    gram: Symmetric,
}

/// A point with the log-loss and its derivatives.
struct Point {
    /// Weight in standardised units, `[d]`.
    u: Vec<f64>,
    /// Mean log-loss.
    loss: f64,
    /// Gradient of the mean log-loss, `[d]`.
    gradient: Vec<f64>,
    /// `p (1 - p)` of each row, `[n]`.
    curvature: Vec<f64>,
}

/// Largest number of Newton steps and of conjugate gradient steps in each. A few are usual.
const NEWTON_STEPS: usize = 100;
const CONJUGATE_STEPS: usize = 250;

impl Data<'_> {
    /// `mean over rows of coefficient(k, z_k·u) z_k`, `[d]`, in one pass over the data, four rows at a time.
    fn sweep(&self, u: &[f64], mut coefficient: impl FnMut(usize, f64) -> f64) -> Vec<f64> {
        let d = u.len();
        let v: Vec<f64> = u.iter().zip(&self.inverse).map(|(u, i)| u * i).collect();
        let mut sum = vec![0.0; d];
        let row = |k: usize| &self.differences[self.rows[k] * d..][..d];
        let whole = self.rows.len() / 4 * 4;
        for k in (0..whole).step_by(4) {
            let x = [row(k), row(k + 1), row(k + 2), row(k + 3)];
            let mut c = [0.0; 4];
            for r in 0..4 {
                c[r] = coefficient(k + r, score(x[r], &v));
            }
            let [x0, x1, x2, x3] = x;
            for j in 0..d {
                sum[j] += (c[0] * f64::from(x0[j]) + c[1] * f64::from(x1[j]))
                    + (c[2] * f64::from(x2[j]) + c[3] * f64::from(x3[j]));
            }
        }
        for k in whole..self.rows.len() {
            let c = coefficient(k, score(row(k), &v));
            sum.iter_mut().zip(row(k)).for_each(|(sum, &x)| *sum += c * f64::from(x));
        }
        let n = self.rows.len() as f64;
        sum.iter_mut().zip(&self.inverse).for_each(|(sum, i)| *sum *= i / n);
        sum
    }

    fn evaluate(&self, u: Vec<f64>) -> Point {
        let mut loss = 0.0;
        let mut curvature = vec![0.0; self.rows.len()];
        let gradient = self.sweep(&u, |k, margin| {
            loss += softplus(-margin);
            let wrong = 1.0 / (1.0 + margin.exp());
            curvature[k] = wrong * (1.0 - wrong);
            -wrong
        });
        Point { loss: loss / self.rows.len() as f64, u, gradient, curvature }
    }

    /// Minimises mean log-loss plus `lambda/2 ‖u‖²`, starting at `at`.
    fn minimise(&self, mut at: Point, lambda: f64, tolerance: f64) -> Result<Point, Error> {
        let failed = Error::NotConverged { regularisation: lambda };
        let mut like: Option<(f64, Cholesky)> = None;
        for _ in 0..NEWTON_STEPS {
            let gradient: Vec<f64> =
                at.gradient.iter().zip(&at.u).map(|(g, u)| g + lambda * u).collect();
            let mean = at.curvature.iter().sum::<f64>() / at.curvature.len() as f64;
            let factor = match like.take() {
                Some((before, factor)) if (0.5..2.0).contains(&(mean / before)) => (before, factor),
                _ => match self.gram.factor(mean, lambda) {
                    Some(factor) => (mean, factor),
                    None => return Err(failed),
                },
            };
            let decrement = dot(&gradient, &factor.1.solve(&gradient));
            if decrement <= tolerance {
                return Ok(at);
            }
            let step = self.newton_step(&at, &gradient, lambda, &factor.1, decrement);
            match self.search(&at, &gradient, &step, lambda) {
                Some(better) => at = better,
                // Either the minimum up to rounding, or a failure.
                None if decrement < 1e-12 => return Ok(at),
                None => return Err(failed),
            }
            like = Some(factor);
        }
        Err(failed)
    }

    /// Approximates `-H⁻¹ gradient` by conjugate gradients, with a tolerance that decreases near the minimum.
    fn newton_step(
        &self,
        at: &Point,
        gradient: &[f64],
        lambda: f64,
        like: &Cholesky,
        decrement: f64,
    ) -> Vec<f64> {
        let enough = decrement * decrement.clamp(1e-8, 1e-2);
        let mut step = vec![0.0; gradient.len()];
        let mut residual: Vec<f64> = gradient.iter().map(|g| -g).collect();
        let mut z = like.solve(&residual);
        let mut direction = z.clone();
        let mut size = dot(&residual, &z);
        for _ in 0..CONJUGATE_STEPS {
            let mut image = self.sweep(&direction, |k, margin| at.curvature[k] * margin);
            image.iter_mut().zip(&direction).for_each(|(i, d)| *i += lambda * d);
            let length = size / dot(&direction, &image);
            step.iter_mut().zip(&direction).for_each(|(s, d)| *s += length * d);
            residual.iter_mut().zip(&image).for_each(|(r, i)| *r -= length * i);
            z = like.solve(&residual);
            let now = dot(&residual, &z);
            if now <= enough {
                break;
            }
            direction.iter_mut().zip(&z).for_each(|(d, z)| *d = z + now / size * *d);
            size = now;
        }
        step
    }

    /// Backtracking line search over 1, 1/2, 1/4, ... of the step, with Armijo's condition.
    fn search(&self, at: &Point, gradient: &[f64], step: &[f64], lambda: f64) -> Option<Point> {
        let objective = |p: &Point| p.loss + lambda / 2.0 * dot(&p.u, &p.u);
        let (start, slope) = (objective(at), dot(gradient, step));
        let rounding = 1e-14 * start;
        (0..40).map(|halvings| 0.5_f64.powi(halvings)).find_map(|length| {
            let u = at.u.iter().zip(step).map(|(u, s)| u + length * s).collect();
            let point = self.evaluate(u);
            (objective(&point) <= start + 1e-4 * length * slope + rounding).then_some(point)
        })
    }
}
