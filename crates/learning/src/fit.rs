/*!
Fitting linear heads: [`bradley_terry`] on preference pairs, [`regression`] on ratings.
*/

use crate::cross_validation::{Problem, Progress, held_out};
use crate::error::{Error, require_finite, require_same};
use crate::features::Features;
use crate::folds::Folds;
use crate::linear::score;
use crate::logistic::BradleyTerry;
use crate::measure::{Metric, margin, moments, ratings};
use crate::ridge::Ridge;

/// How a head is fitted. Equal settings and data give equal bytes.
#[derive(Clone)]
pub struct Settings<'a> {
    /// Folds of the cross-validation, at least 2.
    pub folds: usize,
    /// Values of `lambda` to try, all positive, in any order; see the crate page for what they multiply.
    pub regularisations: Vec<f64>,
    /// Which of them to take.
    pub choose: Choose,
    /// Shuffles groups into folds.
    pub seed: u64,
    /// One id per row `[n]` (see [`group_ids`](stackelberg_data::group_ids)): rows of equal id stay in one fold and
    /// count as one observation in standard errors. `None`: every row stands alone.
    pub groups: Option<&'a [u64]>,
    /// Threads to use, at least 1. The result does not depend on it.
    pub threads: usize,
    /// Told `(done, total)` pieces of work, on the calling thread.
    pub progress: &'a dyn Fn(usize, usize),
}

impl Default for Settings<'_> {
    /// Five folds, 13 values from 100 down to 1e-4, the best of them, seed 0, no groups, one thread.
    fn default() -> Self {
        Self {
            folds: 5,
            regularisations: Settings::grid(1e-4, 100.0, 13),
            choose: Choose::Best,
            seed: 0,
            groups: None,
            threads: 1,
            progress: &|_, _| {},
        }
    }
}

impl Settings<'_> {
    /// `count` values from `high` down to `low`, evenly spaced in their logarithm.
    pub fn grid(low: f64, high: f64, count: usize) -> Vec<f64> {
        let steps = count.saturating_sub(1).max(1) as f64;
        (0..count).map(|i| high * (low / high).powf(i as f64 / steps)).collect()
    }
}

/// Which `lambda` to take after cross-validation. Ties go to the larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choose {
    /// The one with the lowest log-loss (highest R²).
    #[default]
    Best,
    /// The largest whose log-loss (R²) lies within one standard error of the best: a simpler head, no
    /// worse as far as the data can tell.
    OneStandardError,
}

/// What kind of judgement a head was fitted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Preference pairs, by [`bradley_terry`].
    Pairs,
    /// Ratings, by [`regression`].
    Ratings,
}

/// One row of the cross-validation table.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// `lambda`.
    pub regularisation: f64,
    /// Over all rows, each scored by the fit that did not see its fold. Pairs: pair accuracy, log-loss;
    /// ratings: Pearson r, R². The second decides.
    pub metrics: [Metric; 2],
}

/// A fitted head: `score(h) = weight·h + bias` in raw feature units.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// Of what.
    pub kind: Kind,
    /// `w` `[d]`.
    pub weight: Vec<f32>,
    /// `b`; 0 for pairs, which say nothing about it.
    pub bias: f32,
    /// Mean raw score over the training responses (of pairs both).
    pub reward_mean: f64,
    /// Standard deviation (over `n`) of the same. Rewards in units of it are comparable between heads.
    pub reward_std: f64,
    /// The `lambda` chosen.
    pub regularisation: f64,
    /// Every `lambda` tried, largest first.
    pub cross_validation: Vec<Trial>,
    /// The metrics of the chosen one. Chosen for them, so a little flattering: prefer held-out data.
    pub held_out: [Metric; 2],
    /// Pairs or ratings fitted.
    pub rows: usize,
    /// Distinct groups among them.
    pub groups: usize,
    /// Folds of the cross-validation.
    pub folds: usize,
    /// The seed of their shuffle.
    pub seed: u64,
}

impl Fit {
    /// The raw score of one row of features `[d]`.
    ///
    /// # Panics
    /// If the row is not `d` wide.
    pub fn score(&self, row: &[f32]) -> f64 {
        assert_eq!(row.len(), self.weight.len(), "a row of features has another width than the head");
        let wide: Vec<f64> = self.weight.iter().map(|&w| f64::from(w)).collect();
        score(row, &wide) + f64::from(self.bias)
    }

    /// The raw scores of `n` rows `[n]`.
    ///
    /// # Errors
    /// Features of another width.
    pub fn scores(&self, features: Features<'_>) -> Result<Vec<f64>, Error> {
        require_same("columns", "features", features.width(), "the head", self.weight.len())?;
        let wide: Vec<f64> = self.weight.iter().map(|&w| f64::from(w)).collect();
        Ok(features.iter().map(|row| score(row, &wide) + f64::from(self.bias)).collect())
    }

    /// Whether the chosen `lambda` is the largest or smallest tried, so that a wider grid might do
    /// better.
    pub fn at_edge(&self) -> bool {
        let edge =
            |trial: Option<&Trial>| trial.is_some_and(|t| t.regularisation == self.regularisation);
        self.cross_validation.len() > 1
            && (edge(self.cross_validation.first()) || edge(self.cross_validation.last()))
    }
}

/// Fits `P(chosen beats rejected) = sigmoid(w·(h⁺ - h⁻))`: logistic regression without intercept on
/// `n` differences of features, `chosen` [n, d] minus `rejected` [n, d], in units of the standard
/// deviation of single responses (chosen and rejected pooled).
///
/// # Errors
/// Matrices of different shape, fewer groups than folds, pairs that never differ, settings out of range.
pub fn bradley_terry(
    chosen: Features<'_>,
    rejected: Features<'_>,
    settings: &Settings<'_>,
) -> Result<Fit, Error> {
    require_same("columns", "rejected", rejected.width(), "chosen", chosen.width())?;
    require_same("rows", "rejected", rejected.rows(), "chosen", chosen.rows())?;
    let plan = Plan::new(chosen.rows(), settings)?;
    let progress = plan.progress(settings);
    let problem = BradleyTerry::new(chosen, rejected, &plan.folds, settings.threads, &progress)?;
    let measure = |margins: &[f64]| margin(margins, settings.groups);
    let mut fit = plan.carry_out(&problem, settings, &progress, Kind::Pairs, |m| m[1].value, measure)?;
    let mut scores = fit.scores(chosen)?;
    scores.extend(fit.scores(rejected)?);
    (fit.reward_mean, fit.reward_std) = moments(&scores);
    Ok(fit)
}

/// Fits `y = w·h + b`: ridge regression of `targets` `[n]` on `features` [n, d] in units of their standard
/// deviations, the intercept free.
///
/// # Errors
/// As many targets as there are not rows, NaN or infinite targets, targets or features that never vary,
/// fewer groups than folds, settings out of range.
pub fn regression(
    features: Features<'_>,
    targets: &[f64],
    settings: &Settings<'_>,
) -> Result<Fit, Error> {
    require_same("rows", "targets", targets.len(), "features", features.rows())?;
    require_finite("targets", targets)?;
    let plan = Plan::new(features.rows(), settings)?;
    if targets.iter().all(|t| *t == targets[0]) {
        return Err(Error::Constant { what: "targets" });
    }
    let progress = plan.progress(settings);
    let problem = Ridge::new(features, targets, &plan.folds, settings.threads, &progress)?;
    let measure = |predictions: &[f64]| ratings(predictions, targets, settings.groups);
    let mut fit =
        plan.carry_out(&problem, settings, &progress, Kind::Ratings, |m| -m[1].value, measure)?;
    // The bias is taken again for the rounded weights: features far from 0 make rounding a shift.
    let (target, _) = moments(targets);
    let (mean, _) = moments(&fit.scores(features)?);
    fit.bias = (target - mean) as f32;
    (fit.reward_mean, fit.reward_std) = moments(&fit.scores(features)?);
    Ok(fit)
}

/// Settings, checked.
struct Plan {
    folds: Folds,
    /// Largest first, no value twice.
    lambdas: Vec<f64>,
}

impl Plan {
    fn new(rows: usize, settings: &Settings<'_>) -> Result<Self, Error> {
        let setting = |name, value, must| Err(Error::Setting { name, value, must });
        if settings.threads == 0 {
            return setting("threads", 0.0, "at least 1");
        }
        if settings.regularisations.is_empty() {
            return setting("number of regularisations", 0.0, "at least 1");
        }
        let bad = |l: &&f64| !(l.is_finite() && **l > 0.0);
        if let Some(&value) = settings.regularisations.iter().find(bad) {
            return setting("regularisation", value, "a positive number");
        }
        let mut lambdas = settings.regularisations.clone();
        lambdas.sort_by(|a, b| b.total_cmp(a));
        lambdas.dedup();
        Ok(Self { folds: Folds::new(rows, settings.groups, settings.folds, settings.seed)?, lambdas })
    }

    /// One piece of work per fold, one per fold and `lambda`, one for the final fit.
    fn progress<'a>(&self, settings: &Settings<'a>) -> Progress<'a> {
        let total = self.folds.count() * (1 + self.lambdas.len()) + 1;
        Progress { tell: settings.progress, done: 0.into(), total }
    }

    /// Cross-validates, chooses, and fits on all rows. Bias and reward statistics are left to the caller.
    fn carry_out(
        &self,
        problem: &impl Problem,
        settings: &Settings<'_>,
        progress: &Progress<'_>,
        kind: Kind,
        loss: impl Fn(&[Metric; 2]) -> f64,
        measure: impl Fn(&[f64]) -> Result<[Metric; 2], Error>,
    ) -> Result<Fit, Error> {
        let predictions = held_out(problem, &self.folds, &self.lambdas, settings.threads, progress)?;
        let trials = self.lambdas.iter().zip(&predictions).map(|(&regularisation, predictions)| {
            Ok(Trial { regularisation, metrics: measure(predictions)? })
        });
        let trials: Vec<Trial> = trials.collect::<Result<_, Error>>()?;
        let chosen = choose(&trials, settings.choose, loss);
        // Only the path down to the chosen value, so that each solution starts near the next.
        let mut last = None;
        problem.path(None, &self.lambdas[..=chosen], true, &mut |linear| last = Some(linear))?;
        let regularisation = self.lambdas[chosen];
        let linear = last.ok_or(Error::NotConverged { regularisation })?;
        progress.tick();
        Ok(Fit {
            kind,
            weight: linear.weight.iter().map(|&w| w as f32).collect(),
            bias: 0.0,
            reward_mean: 0.0,
            reward_std: 1.0,
            regularisation,
            held_out: trials[chosen].metrics,
            cross_validation: trials,
            rows: predictions[chosen].len(),
            groups: self.folds.groups,
            folds: self.folds.count(),
            seed: settings.seed,
        })
    }
}

/// The position of the trial to take; trials come largest `lambda` first, so the first of equals wins.
fn choose(trials: &[Trial], choose: Choose, loss: impl Fn(&[Metric; 2]) -> f64) -> usize {
    let losses: Vec<f64> = trials.iter().map(|t| loss(&t.metrics)).collect();
    let best = (1..losses.len()).fold(0, |best, i| if losses[i] < losses[best] { i } else { best });
    let slack = match choose {
        Choose::Best => return best,
        Choose::OneStandardError => trials[best].metrics[1].standard_error,
    };
    losses.iter().position(|&l| l <= losses[best] + slack).unwrap_or(best)
}
