//! Win rates, their intervals, and the judge's biases.

use std::collections::BTreeMap;

use serde::Serialize;

use super::length::Controlled;
use super::pairs::{Call, Order, Pair};
use super::resampling::Resampling;
use super::store::{Spent, Store};
use super::verdict::Kind;
use crate::estimate::Estimate;

/// The summary of the verdicts on two runs. Rates are shares of the judged prompts, from 0 to 1, with 95 percent bootstrap
/// intervals over prompts; `None` if no prompt was judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The number of prompts.
    pub prompts: usize,
    /// Prompts that were judged: `win + tie + lose`.
    pub judged: usize,
    /// Prompts with identical answers, which are ties without a call.
    pub identical: usize,
    /// Prompts judged in one order only, because the other call failed or was not sent.
    pub one_sided: usize,
    /// Prompts without scores. No rate includes them.
    pub unjudged: usize,
    /// Prompts on which A's score, averaged over both orders, is higher.
    pub win: usize,
    /// Prompts on which the scores are equal.
    pub tie: usize,
    /// Prompts on which B's score is higher.
    pub lose: usize,
    /// `win / judged`.
    pub win_rate: Option<Estimate>,
    /// `(win + tie) / judged`, the paper's metric.
    pub win_tie_rate: Option<Estimate>,
    /// `(win + tie/2) / judged`, which is comparable with [`Length::controlled`].
    pub preference: Option<Estimate>,
    /// A's mean score minus B's, on a scale from 1 to 10. Identical answers count as equal.
    pub difference: Option<Estimate>,
    /// The effect of the order; `None` if no pair has scores in both orders.
    pub position: Option<Position>,
    /// The effect of length.
    pub length: Length,
    /// The calls and their cost.
    pub calls: Calls,
}

/// The effect of the order of answers, over pairs with scores in both orders.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Position {
    /// The number of pairs with scores in both orders.
    pub pairs: usize,
    /// Pairs that A wins in one order and B in the other.
    pub flipped: usize,
    /// Pairs that are a tie in one order only.
    pub shifted: usize,
    /// `flipped / pairs`.
    pub flip_rate: Estimate,
    /// How often the answer shown first is preferred, where a tie counts as half. A judge without bias has 0.5.
    pub first_preferred: Estimate,
    /// The score of the answer shown first minus that of the second.
    pub first_ahead: Estimate,
}

/// The effect of length in characters, over the judged prompts.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Length {
    /// The mean length of A's answers.
    pub mean_a: Option<f64>,
    /// The mean length of B's answers.
    pub mean_b: Option<f64>,
    /// The Pearson correlation of the difference in score with the difference in length.
    pub correlation: Option<Estimate>,
    /// How often the longer answer wins, over pairs that are no tie and have different lengths.
    pub longer_wins: Option<Estimate>,
    /// The length-controlled preference for A, see [`length_controlled`](super::length_controlled).
    pub controlled: Option<Estimate>,
    /// The coefficient of length in its model.
    pub weight: Option<f64>,
}

/// The calls and their cost, over all runs that wrote the verdict file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Calls {
    /// The number of calls for these pairs and orders.
    pub needed: usize,
    /// Calls with scores.
    pub verdicts: usize,
    /// Failed calls by kind. They do not count as ties.
    pub failures: BTreeMap<Kind, usize>,
    /// Calls that were not sent yet.
    pub open: usize,
    /// The number of requests, replies and tokens.
    #[serde(flatten)]
    pub spent: Spent,
}

impl Calls {
    /// The number of failed calls.
    pub fn failed(&self) -> usize {
        self.failures.values().sum()
    }
}

/// A prompt that was judged.
struct Judged<'a> {
    pair: &'a Pair,
    /// A's score minus B's, if A is shown first and if B is shown first.
    by_order: [Option<f64>; 2],
    /// Their mean.
    difference: f64,
}

/// Scores that differ by less are equal: the means of two decimal numbers may differ by rounding.
const SAME: f64 = 1e-9;

/// 1 for a win, 1/2 for a tie, 0 for a loss.
fn preference(difference: f64) -> f64 {
    match difference {
        d if d > SAME => 1.0,
        d if d < -SAME => 0.0,
        _ => 0.5,
    }
}

impl Summary {
    /// Summarises the verdicts on these pairs.
    pub fn new(pairs: &[Pair], orders: &[Order], store: &Store, bootstrap: &Resampling) -> Self {
        let mut calls = Calls::default();
        let judged: Vec<Judged<'_>> =
            pairs.iter().filter_map(|pair| judge(pair, orders, store, &mut calls)).collect();
        let differences: Vec<f64> = judged.iter().map(|j| j.difference).collect();
        let preferences: Vec<f64> = differences.iter().map(|&d| preference(d)).collect();
        let count = |of: f64| preferences.iter().filter(|&&p| p == of).count();
        let share = |at_least: f64| {
            let hits: Vec<f64> = preferences.iter().map(|&p| f64::from(p >= at_least)).collect();
            bootstrap.mean(&hits)
        };
        let identical = judged.iter().filter(|j| j.pair.identical()).count();
        let half = |j: &&Judged<'_>| j.by_order.iter().flatten().count() < orders.len();
        let one_sided = judged.iter().filter(|j| !j.pair.identical()).filter(half).count();
        Self {
            prompts: pairs.len(),
            judged: judged.len(),
            identical,
            one_sided,
            unjudged: pairs.len() - judged.len(),
            win: count(1.0),
            tie: count(0.5),
            lose: count(0.0),
            win_rate: share(1.0),
            win_tie_rate: share(0.5),
            preference: bootstrap.mean(&preferences),
            difference: bootstrap.mean(&differences),
            position: position(&judged, bootstrap),
            length: length(&judged, &differences, &preferences, bootstrap),
            calls,
        }
    }
}

/// The scores of a pair; `None` if it has none. Counts its calls.
fn judge<'a>(pair: &'a Pair, orders: &[Order], store: &Store, calls: &mut Calls) -> Option<Judged<'a>> {
    if pair.identical() {
        return Some(Judged { pair, by_order: [None, None], difference: 0.0 });
    }
    let mut by_order = [None, None];
    for &order in orders {
        calls.needed += 1;
        let call = Call::new(pair, order);
        let Some(verdict) = store.get(&call) else {
            calls.open += 1;
            continue;
        };
        calls.spent.add(&store.spent(&call));
        match (verdict.scores, &verdict.failure) {
            (Some([first, second]), _) => {
                calls.verdicts += 1;
                let (place, difference) = match order {
                    Order::Ab => (0, first - second),
                    Order::Ba => (1, second - first),
                };
                by_order[place] = Some(difference);
            }
            (None, Some(failure)) => *calls.failures.entry(failure.kind).or_default() += 1,
            (None, None) => *calls.failures.entry(Kind::Reply).or_default() += 1,
        }
    }
    let seen: Vec<f64> = by_order.iter().flatten().copied().collect();
    let difference = seen.iter().sum::<f64>() / seen.len() as f64;
    (!seen.is_empty()).then_some(Judged { pair, by_order, difference })
}

fn position(judged: &[Judged<'_>], bootstrap: &Resampling) -> Option<Position> {
    let both: Vec<[f64; 2]> =
        judged.iter().filter_map(|j| Some([j.by_order[0]?, j.by_order[1]?])).collect();
    let sides: Vec<[f64; 2]> = both.iter().map(|by_order| by_order.map(preference)).collect();
    let flipped: Vec<f64> = sides.iter().map(|[ab, ba]| f64::from((ab - ba).abs() == 1.0)).collect();
    // In the first order A is shown first, in the second order B.
    let preferred: Vec<f64> = sides.iter().map(|[ab, ba]| (ab + (1.0 - ba)) / 2.0).collect();
    let ahead: Vec<f64> = both.iter().map(|[ab, ba]| (ab - ba) / 2.0).collect();
    Some(Position {
        pairs: both.len(),
        flipped: flipped.iter().filter(|&&f| f == 1.0).count(),
        shifted: sides.iter().filter(|[ab, ba]| (ab - ba).abs() == 0.5).count(),
        flip_rate: bootstrap.mean(&flipped)?,
        first_preferred: bootstrap.mean(&preferred)?,
        first_ahead: bootstrap.mean(&ahead)?,
    })
}

fn length(
    judged: &[Judged<'_>],
    differences: &[f64],
    preferences: &[f64],
    bootstrap: &Resampling,
) -> Length {
    let n = judged.len();
    if n == 0 {
        return Length::default();
    }
    let mean = |text: fn(&Pair) -> &str| {
        let lengths = judged.iter().map(|j| text(j.pair).chars().count() as f64);
        Some(lengths.sum::<f64>() / n as f64)
    };
    let longer_by: Vec<f64> = judged.iter().map(|j| j.pair.longer_by()).collect();
    let longer: Vec<f64> = preferences
        .iter()
        .zip(&longer_by)
        .filter(|(preference, by)| **preference != 0.5 && **by != 0.0)
        .map(|(preference, by)| f64::from((*preference == 1.0) == (*by > 0.0)))
        .collect();
    let fit = Controlled::new(preferences, &longer_by);
    Length {
        mean_a: mean(|pair| &pair.a),
        mean_b: mean(|pair| &pair.b),
        correlation: bootstrap.estimate(n, |sample| correlation(sample, differences, &longer_by)),
        longer_wins: bootstrap.mean(&longer),
        controlled: fit.as_ref().and_then(|fit| bootstrap.estimate(n, |sample| Some(fit.rate(sample)))),
        weight: fit.map(|fit| fit.slope()),
    }
}

/// The Pearson correlation over a sample; `None` if one side does not vary.
fn correlation(sample: &[usize], x: &[f64], y: &[f64]) -> Option<f64> {
    let n = sample.len() as f64;
    let mean = |of: &[f64]| sample.iter().map(|&i| of[i]).sum::<f64>() / n;
    let (mean_x, mean_y) = (mean(x), mean(y));
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for &i in sample {
        let (dx, dy) = (x[i] - mean_x, y[i] - mean_y);
        (xx, yy, xy) = (xx + dx * dx, yy + dy * dy, xy + dx * dy);
    }
    // Rounding errors do not count as variation.
    let varies = |square: f64, mean: f64| square > 1e-20 * n * (1.0 + mean * mean);
    (varies(xx, mean_x) && varies(yy, mean_y)).then(|| xy / (xx * yy).sqrt())
}
