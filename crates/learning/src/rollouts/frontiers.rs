//! Predicted utility of each shaping rule over a set of prompts, at a common bound and at a common KL.

use rayon::prelude::*;
use stackelberg_shaping::{Budget, Follower, Frontier, Margins, Rule, Samples, Shaping};

use crate::error::Error;

/// Predicted utility of each rule as a function of bound and KL, averaged over prompts.
///
/// At a common bound, [`Rule::Hard`] is the best rule (Theorem 1). At a common KL, [`Rule::Raw`] is (Gibbs' variational
/// principle). Both hold for each prompt in [`Budget::Paper`]. This is checked for each prompt, each rule and a grid of
/// strengths while the averages are computed.
#[derive(Debug, Clone, PartialEq)]
pub struct Frontiers {
    /// One curve per rule, in the order of [`Rule::ALL`].
    pub curves: Vec<Curve>,
    /// Mean over prompts of the mean reward of their samples: the utility of the base policy.
    pub base: f64,
    /// Number of followers that were checked against both theorems.
    pub checks: usize,
    /// Smallest distances of a follower from the limits of Theorem 1 and of Gibbs' principle, in units of the span of
    /// its prompt's rewards. They are zero for rules that attain the limits, and negative only by rounding.
    pub margins: [f64; 2],
}

/// Utility of a rule, averaged over prompts. Both curves begin at the base policy, `(0, base)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The rule.
    pub rule: Rule,
    /// Points `(bound B/beta in nats, utility)`. Each prompt has exactly this bound: for rules that are functions of
    /// `strength * B` it is this product; for others the strength is set from the span of the prompt's shaped rewards.
    pub by_bound: Vec<(f64, f64)>,
    /// Points `(mean KL in nats, utility)`, at a strength common to all prompts.
    pub by_kl: Vec<(f64, f64)>,
}

/// Number of bounds: six per factor of two, from 1/16 to 128 nats.
const BOUNDS: usize = 11 * 6 + 1;

/// One of this many strengths is checked against the theorems.
const CHECKED: usize = 4;

/// Number of prompts per partial sum. It is constant, so that the result does not depend on the number of threads.
const TOGETHER: usize = 64;

fn bound(i: usize) -> f64 {
    2f64.powf(i as f64 / 6.0 - 4.0)
}

impl Frontiers {
    /// Computes the curves of prompts, given as names with the rewards of their samples. Rule, strength and budget of
    /// `shaping` do not affect the curves, but the shaped rewards under exactly these settings are checked against the
    /// theorems too.
    ///
    /// # Errors
    /// Rewards cannot be shaped, a setting is invalid, or a follower exceeds the limit of a theorem.
    pub fn new(prompts: &[(String, Vec<f64>)], shaping: &Shaping) -> Result<Self, Error> {
        let spans: Vec<[f64; RULES]> = per_chunk(prompts, |prompts| spans(prompts, shaping))?;
        let mut scales = [0.0; RULES];
        for spans in spans {
            scales.iter_mut().zip(spans).for_each(|(sum, span)| *sum += span / prompts.len() as f64);
        }
        let parts = per_chunk(prompts, |prompts| {
            let mut sums = Sums::new();
            for (id, rewards) in prompts {
                sums.add(id, rewards, shaping, &scales)?;
            }
            Ok(sums)
        })?;
        let mut all = Sums::new();
        parts.iter().for_each(|part| all.merge(part));
        Ok(all.mean(prompts.len() as f64))
    }
}

impl Curve {
    /// Interpolated utility at this bound in nats; `None` beyond the curve.
    pub fn at_bound(&self, nats: f64) -> Option<f64> {
        between(&self.by_bound, nats, |x| x)
    }

    /// Interpolated utility at this mean KL in nats; `None` if the rule cannot reach it.
    pub fn at_kl(&self, nats: f64) -> Option<f64> {
        // For small KL, the gain in utility is proportional to its square root.
        between(&self.by_kl, nats, f64::sqrt)
    }
}

/// Linear interpolation in `scale(x)` between the last two points around `x`.
fn between(points: &[(f64, f64)], x: f64, scale: fn(f64) -> f64) -> Option<f64> {
    let pair = points.windows(2).rev().find(|pair| pair[0].0 <= x && x <= pair[1].0)?;
    let [from, to] = [pair[0], pair[1]];
    let width = scale(to.0) - scale(from.0);
    let share = if width > 0.0 { (scale(x) - scale(from.0)) / width } else { 1.0 };
    Some(from.1 + (to.1 - from.1) * share)
}

const RULES: usize = Rule::ALL.len();

/// Maps chunks of prompts in parallel. Results are in order.
fn per_chunk<T: Send>(
    prompts: &[(String, Vec<f64>)],
    of: impl Fn(&[(String, Vec<f64>)]) -> Result<T, Error> + Sync + Send,
) -> Result<Vec<T>, Error> {
    prompts.par_chunks(TOGETHER).map(of).collect()
}

/// Whether the follower depends on strength and bound only by their product, the bound `B/beta`.
fn by_product(rule: Rule) -> bool {
    rule.has_bound() && rule != Rule::Minmax
}

/// The settings of a rule at strength 1, and at bound 1 if only the product matters.
fn of_rule(rule: Rule, shaping: &Shaping) -> Shaping {
    let bound = if by_product(rule) { 1.0 } else { shaping.bound };
    Shaping { rule, bound, strength: 1.0, budget: Budget::Paper, ..*shaping }
}

/// The span of the shaped rewards under each rule, summed over prompts.
fn spans(prompts: &[(String, Vec<f64>)], shaping: &Shaping) -> Result<[f64; RULES], Error> {
    let mut spans = [0.0; RULES];
    for (id, rewards) in prompts {
        let samples = Samples::new(rewards).map_err(|e| wrong(id, e))?;
        for (span, rule) in spans.iter_mut().zip(Rule::ALL).filter(|(_, rule)| !by_product(*rule)) {
            let values = of_rule(rule, shaping).apply(&samples).map_err(|e| wrong(id, e))?.values;
            *span += Frontier::new(&samples).span(&values);
        }
    }
    Ok(spans)
}

fn wrong(id: &str, source: stackelberg_shaping::Error) -> Error {
    Error::Shaping { file: "rewards".to_owned(), prompt: id.to_owned(), source }
}

/// Sums over prompts.
struct Sums {
    /// For each rule: utility at each bound, and KL and utility at each strength.
    rules: Vec<[(f64, f64, f64); BOUNDS]>,
    base: f64,
    checks: usize,
    margins: [f64; 2],
}

impl Sums {
    fn new() -> Self {
        let rules = vec![[(0.0, 0.0, 0.0); BOUNDS]; RULES];
        Self { rules, base: 0.0, checks: 0, margins: [f64::INFINITY; 2] }
    }

    fn add(
        &mut self,
        id: &str,
        rewards: &[f64],
        shaping: &Shaping,
        scales: &[f64; RULES],
    ) -> Result<(), Error> {
        let fail = |e| wrong(id, e);
        let samples = Samples::new(rewards).map_err(fail)?;
        let base = samples.mean();
        self.base += base;
        if samples.all_equal() {
            self.rules.iter_mut().flatten().for_each(|sums| {
                sums.0 += base;
                sums.2 += base;
            });
            return Ok(());
        }
        let frontier = Frontier::new(&samples);
        let given = shaping.apply(&samples).map_err(fail)?.values;
        self.check(id, shaping.rule, &frontier, &given, shaping.strength)?;
        for (number, rule) in Rule::ALL.into_iter().enumerate() {
            let mut of_rule = of_rule(rule, shaping);
            let mut values = of_rule.apply(&samples).map_err(fail)?.values;
            let span = frontier.span(&values);
            for i in 0..BOUNDS {
                let mut strength = bound(i);
                if by_product(rule) {
                    of_rule.strength = strength;
                    values = of_rule.apply(&samples).map_err(fail)?.values;
                } else {
                    strength = finite(strength / span);
                }
                let led = match i % CHECKED {
                    0 => self.check(id, rule, &frontier, &values, strength)?.follower,
                    _ => Follower::respond(&samples, &values, strength).map_err(fail)?,
                };
                let common = match by_product(rule) {
                    true => None,
                    false => {
                        let strength = finite(bound(i) / scales[number]);
                        Some(Follower::respond(&samples, &values, strength).map_err(fail)?)
                    }
                };
                let common = common.as_ref().unwrap_or(&led);
                let sums = &mut self.rules[number][i];
                sums.0 += led.utility;
                sums.1 += common.kl;
                sums.2 += common.utility;
            }
        }
        Ok(())
    }

    /// Checks a follower against both theorems.
    fn check(
        &mut self,
        id: &str,
        rule: Rule,
        frontier: &Frontier<'_, '_>,
        values: &[f64],
        strength: f64,
    ) -> Result<Margins, Error> {
        let margins = frontier.margins(values, strength).map_err(|e| wrong(id, e))?;
        let utility = margins.follower.utility;
        let rewards = frontier.samples().rewards();
        for (i, (theorem, margin)) in
            [("Theorem 1", margins.below_hard), ("Gibbs' variational principle", margins.below_raw)]
                .into_iter()
                .enumerate()
        {
            if margin.is_nan() || margin < -frontier.rounding() {
                let (prompt, limit, rewards) = (id.to_owned(), utility + margin, rewards.to_vec());
                return Err(Error::Theorem { prompt, rule, strength, utility, theorem, limit, rewards });
            }
            self.margins[i] = self.margins[i].min(margin / frontier.span(rewards));
        }
        self.checks += 1;
        Ok(margins)
    }

    fn merge(&mut self, other: &Self) {
        for (sums, more) in self.rules.iter_mut().flatten().zip(other.rules.iter().flatten()) {
            *sums = (sums.0 + more.0, sums.1 + more.1, sums.2 + more.2);
        }
        self.base += other.base;
        self.checks += other.checks;
        self.margins = [0, 1].map(|i| self.margins[i].min(other.margins[i]));
    }

    fn mean(self, n: f64) -> Frontiers {
        let base = self.base / n;
        let curve = |(rule, sums): (Rule, [(f64, f64, f64); BOUNDS])| {
            let (mut by_bound, mut by_kl) = (vec![(0.0, base)], vec![(0.0, base)]);
            for (i, (led, kl, utility)) in sums.into_iter().enumerate() {
                by_bound.push((bound(i), led / n));
                by_kl.push((kl / n, utility / n));
            }
            Curve { rule, by_bound, by_kl }
        };
        let curves = Rule::ALL.into_iter().zip(self.rules).map(curve).collect();
        Frontiers { curves, base, checks: self.checks, margins: self.margins }
    }
}

/// The strength, or 0 if it overflows because the shaped rewards are almost equal.
fn finite(strength: f64) -> f64 {
    if strength.is_finite() { strength } else { 0.0 }
}
