//! Ridge regression with an intercept, by one Gram matrix per fold and one Cholesky factor per `lambda`.

use crate::cross_validation::{Linear, Problem, Progress, fan_out};
use crate::error::Error;
use crate::features::{Features, Spread, centre, floor};
use crate::folds::Folds;
use crate::linear::{Symmetric, dot, score};

/// Sufficient statistics of some rows, relative to the centre of all features and targets.
struct Sums {
    spread: Spread,
    gram: Symmetric,
    /// `sum x y` `[d]`.
    cross: Vec<f64>,
    /// `sum y`.
    target: f64,
}

/// Features and targets, with sums per fold.
pub(crate) struct Ridge<'a> {
    features: Features<'a>,
    centre: Vec<f64>,
    floor: Vec<f64>,
    level: f64,
    parts: Vec<Sums>,
    all: Sums,
}

impl<'a> Ridge<'a> {
    /// Computes the sums of all folds. Reports one unit of progress per fold.
    pub(crate) fn new(
        features: Features<'a>,
        targets: &[f64],
        folds: &Folds,
        threads: usize,
        progress: &Progress<'_>,
    ) -> Result<Self, Error> {
        let d = features.width();
        let centre = centre(&[features]);
        let level = targets.iter().sum::<f64>() / targets.len() as f64;
        let parts = fan_out(threads, folds.count(), progress, |fold, tick| {
            let rows = folds.held(fold);
            let gram = Symmetric::gram(d, rows, |row, out| {
                for ((out, &x), c) in out.iter_mut().zip(features.row(row)).zip(&centre) {
                    *out = f64::from(x) - c;
                }
            });
            let mut sums = Sums { spread: Spread::new(d), gram, cross: vec![0.0; d], target: 0.0 };
            for &row in rows {
                let y = targets[row] - level;
                sums.spread.add(features.row(row), &centre);
                sums.target += y;
                for ((cross, &x), c) in sums.cross.iter_mut().zip(features.row(row)).zip(&centre) {
                    *cross += (f64::from(x) - c) * y;
                }
            }
            tick();
            sums
        });
        let all = total(&parts, d);
        let floor = floor(&all.spread, &centre);
        if all.spread.inverse(&floor).iter().all(|&i| i == 0.0) {
            return Err(Error::Constant { what: "features" });
        }
        Ok(Self { features, centre, floor, level, parts, all })
    }
}

fn total(parts: &[Sums], d: usize) -> Sums {
    let nothing = Spread::new(d);
    let mut all =
        Sums { spread: nothing.clone(), gram: Symmetric::zero(d), cross: vec![0.0; d], target: 0.0 };
    for part in parts {
        all.spread = all.spread.with(&part.spread);
        all.gram.add(&part.gram);
        all.cross.iter_mut().zip(&part.cross).for_each(|(a, b)| *a += b);
        all.target += part.target;
    }
    all
}

impl Problem for Ridge<'_> {
    fn path(
        &self,
        without: Option<usize>,
        lambdas: &[f64],
        _exact: bool,
        visit: &mut dyn FnMut(Linear),
    ) -> Result<(), Error> {
        let part = without.map(|fold| &self.parts[fold]);
        let spread =
            part.map_or_else(|| self.all.spread.clone(), |p| self.all.spread.without(&p.spread));
        let n = spread.rows();
        let target = (self.all.target - part.map_or(0.0, |p| p.target)) / n;
        let inverse = spread.inverse(&self.floor);
        let mean = spread.mean();
        let scaled: Vec<f64> = mean.iter().zip(&inverse).map(|(m, i)| m * i).collect();
        let cross: Vec<f64> = (0..mean.len())
            .map(|j| {
                let sum = self.all.cross[j] - part.map_or(0.0, |p| p.cross[j]);
                (sum / n - mean[j] * target) * inverse[j]
            })
            .collect();
        let gram = self.all.gram.rescaled(part.map(|p| &p.gram), &inverse, 1.0 / n, &scaled);
        for &lambda in lambdas {
            let factor =
                gram.factor(1.0, lambda).ok_or(Error::NotConverged { regularisation: lambda })?;
            let u = factor.solve(&cross);
            let weight: Vec<f64> = u.iter().zip(&inverse).map(|(u, i)| u * i).collect();
            let bias = self.level + target - dot(&weight, &mean) - dot(&weight, &self.centre);
            visit(Linear { weight, bias });
        }
        Ok(())
    }

    fn predict(&self, linear: &Linear, row: usize) -> f64 {
        score(self.features.row(row), &linear.weight) + linear.bias
    }
}
