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

/// Settings of a fit. Equal settings and data give equal bytes.
#[derive(Clone)]
pub struct Settings<'a> {
    /// Number of folds of the cross-validation, at least 2.
    pub folds: usize,
    /// Values of `lambda` to try, all positive, in any order. The crate documentation gives the objective.
    pub regularisations: Vec<f64>,
    /// How to choose among them.
    pub choose: Choose,
    /// Seed of the random assignment of groups to folds.
    pub seed: u64,
    /// One group id per row, `[n]` (see [`group_ids`](stackelberg_data::group_ids)). Rows of one group are in one
    /// fold and count as one observation in standard errors. `None`: each row is its own group.
    pub groups: Option<&'a [u64]>,
    /// Number of threads, at least 1. The result does not depend on it.
    pub threads: usize,
    /// Receives `(done, total)` units of work, on the calling thread.
    pub progress: &'a dyn Fn(usize, usize),
}

impl Default for Settings<'_> {
    /// Five folds, 13 values of `lambda` from 100 down to 1e-4, [`Choose::Best`], seed 0, no groups, one thread.
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
    /// `count` values from `high` down to `low`, equally spaced on a logarithmic scale.
    pub fn grid(low: f64, high: f64, count: usize) -> Vec<f64> {
        let steps = count.saturating_sub(1).max(1) as f64;
        (0..count).map(|i| high * (low / high).powf(i as f64 / steps)).collect()
    }
}

/// How `lambda` is chosen by cross-validation. Ties are resolved in favour of the larger value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choose {
    /// The value with the lowest log-loss (pairs) or the highest R² (ratings).
    #[default]
    Best,
    /// The largest value whose log-loss (or R²) is within one standard error of the best.
    OneStandardError,
}

/// The kind of judgements that a head was fitted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Preference pairs, fitted by [`bradley_terry`].
    Pairs,
    /// Ratings, fitted by [`regression`].
    Ratings,
}

/// One row of the cross-validation table.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// `lambda`.
    pub regularisation: f64,
    /// Metrics over all rows, each predicted by the fit without its fold: pair accuracy and log-loss for pairs, Pearson
    /// r and R² for ratings. The second metric decides.
    pub metrics: [Metric; 2],
}

/// A fitted head: `score(h) = weight·h + bias` in raw feature units.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// The kind of judgements.
    pub kind: Kind,
    /// Weight `w`, `[d]`.
    pub weight: Vec<f32>,
    /// Bias `b`; 0 for pairs, which do not determine it.
    pub bias: f32,
    /// Mean raw score of the training responses (for pairs: of both).
    pub reward_mean: f64,
    /// Standard deviation (divisor `n`) of these scores. Rewards in units of it are comparable between heads.
    pub reward_std: f64,
    /// The chosen `lambda`.
    pub regularisation: f64,
    /// All values of `lambda`, the largest first.
    pub cross_validation: Vec<Trial>,
    /// Cross-validation metrics of the chosen `lambda`. They are slightly optimistic, since they were used for the
    /// choice.
    pub held_out: [Metric; 2],
    /// Number of pairs or ratings.
    pub rows: usize,
    /// Number of distinct groups.
    pub groups: usize,
    /// Number of folds.
    pub folds: usize,
    /// Seed of the assignment to folds.
    pub seed: u64,
}

impl Fit {
    /// The raw score of one row of features, `[d]`.
    ///
    /// # Panics
    /// If the row does not have `d` numbers.
    pub fn score(&self, row: &[f32]) -> f64 {
        assert_eq!(row.len(), self.weight.len(), "a row of features has another width than the head");
        let wide: Vec<f64> = self.weight.iter().map(|&w| f64::from(w)).collect();
        score(row, &wide) + f64::from(self.bias)
    }

    /// The raw scores of `n` rows, `[n]`.
    ///
    /// # Errors
    /// The features have another width.
    pub fn scores(&self, features: Features<'_>) -> Result<Vec<f64>, Error> {
        require_same("columns", "features", features.width(), "the head", self.weight.len())?;
        let wide: Vec<f64> = self.weight.iter().map(|&w| f64::from(w)).collect();
        Ok(features.iter().map(|row| score(row, &wide) + f64::from(self.bias)).collect())
    }

    /// Whether the chosen `lambda` is the largest or smallest of several, so that a wider grid could be better.
    pub fn at_edge(&self) -> bool {
        let edge =
            |trial: Option<&Trial>| trial.is_some_and(|t| t.regularisation == self.regularisation);
        self.cross_validation.len() > 1
            && (edge(self.cross_validation.first()) || edge(self.cross_validation.last()))
    }
}

/// Fits the Bradley-Terry model `P(chosen beats rejected) = sigmoid(w·(h⁺ - h⁻))`: logistic regression without
/// intercept on the differences of features `chosen` `[n, d]` minus `rejected` `[n, d]`, in units of the standard
/// deviation of single responses (chosen and rejected pooled).
///
/// # Errors
/// The shapes differ, there are fewer groups than folds, all differences are zero, or a setting is out of range.
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

/// Fits `y = w·h + b`: ridge regression of `targets` `[n]` on `features` `[n, d]` in units of their standard
/// deviations, with an unregularised intercept.
///
/// # Errors
/// The numbers of targets and rows differ, a target is NaN or infinite, all targets or all features are equal, there
/// are fewer groups than folds, or a setting is out of range.
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
    // The bias is recomputed for the weights rounded to f32, since rounding shifts the scores of features with large
    // means.
    let (target, _) = moments(targets);
    let (mean, _) = moments(&fit.scores(features)?);
    fit.bias = (target - mean) as f32;
    (fit.reward_mean, fit.reward_std) = moments(&fit.scores(features)?);
    Ok(fit)
}

/// Checked settings.
struct Plan {
    folds: Folds,
    /// Distinct values, the largest first.
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

    /// One unit of work per fold, one per fold and `lambda`, and one for the final fit.
    fn progress<'a>(&self, settings: &Settings<'a>) -> Progress<'a> {
        let total = self.folds.count() * (1 + self.lambdas.len()) + 1;
        Progress { tell: settings.progress, done: 0.into(), total }
    }

    /// Cross-validates, chooses `lambda` and fits on all rows. The caller sets the bias and the reward statistics.
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
        // Solve the path down to the chosen value, since each solution starts from the previous one.
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

/// The index of the chosen trial. The largest `lambda` is first and wins ties.
fn choose(trials: &[Trial], choose: Choose, loss: impl Fn(&[Metric; 2]) -> f64) -> usize {
    let losses: Vec<f64> = trials.iter().map(|t| loss(&t.metrics)).collect();
    let best = (1..losses.len()).fold(0, |best, i| if losses[i] < losses[best] { i } else { best });
    let slack = match choose {
        Choose::Best => return best,
        Choose::OneStandardError => trials[best].metrics[1].standard_error,
    };
    losses.iter().position(|&l| l <= losses[best] + slack).unwrap_or(best)
}
