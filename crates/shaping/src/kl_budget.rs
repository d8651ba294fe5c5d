//! Solves for the bound, or the strength, that spends a KL budget in nats.

use crate::error::{Error, require};
use crate::follower::{kl, kl_hard};
use crate::rule::{Budget, Rule};
use crate::samples::Samples;
use crate::shaping::Shaping;

/// Shaping settings solved for a KL budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KlBudget {
    /// The given settings with the solved bound or, for rules without a bound, the solved strength.
    pub shaping: Shaping,
    /// The KL of the follower under these settings, in nats, at most the budget. It can be smaller, since KL jumps
    /// where the set of rewarded responses changes.
    pub kl: f64,
    /// Whether every bound (or strength) stays within the budget. The KL is then the largest that the rule can reach,
    /// usually `-ln P(best)`, with all mass on the best responses.
    pub saturated: bool,
}

/// Log-odds, in nats, above which the best responses count as holding all mass: `exp(-40)` is below the `f64`
/// resolution at 1.
const UNLIMITED: f64 = 40.0;

/// Bounds tried per factor of two, for rules whose KL is not monotone in the bound.
const GRID: f64 = 8.0;

impl KlBudget {
    /// Checks the budget against the settings, independently of rewards.
    ///
    /// # Errors
    /// The budget is negative or not finite. The strength is 0 for a rule with a bound, since then no bound has an
    /// effect.
    pub fn check(shaping: &Shaping, nats: f64) -> Result<(), Error> {
        let valid = (0.0..f64::INFINITY).contains(&nats);
        require("kl-budget", nats, valid, "zero or more nats, and finite")?;
        let effective = shaping.strength > 0.0 || !shaping.rule.has_bound();
        require("strength", shaping.strength, effective, "above zero to spend a KL budget")
    }

    /// Finds the largest bound, at the given strength, whose follower stays within `nats` of the base policy; for rules
    /// without a bound, the largest strength.
    ///
    /// KL grows with the bound while the set of rewarded responses is constant, and can drop where it changes. For
    /// `hard` in budget `paper` the at most `M` segments of a constant set have closed-form ends; each segment is
    /// solved separately and the result is exact. The soft bounded rules are solved on a grid of eight bounds per
    /// factor of two, refined by bisection. KL is monotone in the strength, so rules without a bound are solved by
    /// bisection.
    ///
    /// # Errors
    /// As [`KlBudget::check`] and [`Shaping::apply`].
    pub fn solve(shaping: &Shaping, samples: &Samples<'_>, nats: f64) -> Result<Self, Error> {
        shaping.check()?;
        Self::check(shaping, nats)?;
        if !shaping.rule.has_bound() {
            return solve_strength(shaping, samples, nats);
        }
        if samples.all_equal() {
            return Ok(Self { shaping: *shaping, kl: 0.0, saturated: true });
        }
        let (exponent, saturated) = match (shaping.rule, shaping.budget) {
            (Rule::Hard, Budget::Paper) => hard_exponent(samples, nats),
            _ => grid_exponent(shaping, samples, nats)?,
        };
        settle(shaping, samples, exponent, saturated, nats)
    }
}

/// The largest exponent of the hard threshold within the budget, and whether every exponent is within it.
///
/// While exactly the best `j` responses are rewarded, KL is a function of their mass and rises with `c`. The set is
/// constant until `m*` reaches its worst member, `m_j(c) = r_j`, that is
/// `c = ln(1 + (r_j - E r) / sum_{i<=j} p_i (r_i - r_j))`. The set of the best reward has no such end.
fn hard_exponent(samples: &Samples<'_>, nats: f64) -> (f64, bool) {
    let groups = Group::all(samples);
    for (j, group) in groups.iter().enumerate() {
        let from = groups.get(j + 1).map_or(0.0, |next| next.ends);
        if kl_hard(group.mass, from) > nats {
            continue;
        }
        let unlimited = UNLIMITED - group.mass.ln();
        let to = group.ends.min(unlimited.max(from));
        let within = |c: f64| kl_hard(group.mass, c) <= nats;
        if within(to) {
            return (to, j == 0);
        }
        return (bisect(from, to, within), false);
    }
    (0.0, false)
}

/// All responses with at least a certain reward.
struct Group {
    /// The base policy's mass on them.
    mass: f64,
    /// The exponent up to which exactly these are rewarded; infinite for the best reward.
    ends: f64,
}

impl Group {
    /// All sets that are rewarded at some exponent, smallest first.
    fn all(samples: &Samples<'_>) -> Vec<Group> {
        let ranked = samples.ranked();
        let (top, bottom) = samples.support();
        let unit = if top > bottom { top - bottom } else { 1.0 };
        let mean: f64 = ranked.iter().map(|x| x.mass * ((x.reward - top) / unit)).sum();
        let mut groups: Vec<Group> = Vec::new();
        // `excess` is the sum over the set of p_i (r_i - r_j), in units of the span.
        let (mut mass, mut excess, mut worst) = (0.0, 0.0, 0.0);
        for equals in ranked.chunk_by(|a, b| a.reward == b.reward) {
            let u = (equals[0].reward - top) / unit;
            if !groups.is_empty() && u < mean {
                break;
            }
            excess += mass * (worst - u);
            mass += equals.iter().map(|x| x.mass).sum::<f64>();
            worst = u;
            let ends = if excess > 0.0 { ((u - mean) / excess).ln_1p() } else { f64::INFINITY };
            groups.push(Group { mass: mass.min(1.0), ends });
        }
        groups
    }
}

/// The largest exponent `strength * bound` by grid search and bisection, for rules whose KL is not monotone in the
/// bound.
fn grid_exponent(shaping: &Shaping, samples: &Samples<'_>, nats: f64) -> Result<(f64, bool), Error> {
    let kl_at = |c: f64| -> Result<f64, Error> {
        let trial = Shaping { bound: c / shaping.strength, ..*shaping };
        Ok(kl(samples.prior(), &trial.apply(samples)?.values, shaping.strength))
    };
    // Shaped rewards span at most the bound, so every exponent up to `nats` is within the budget.
    let limit =
        (shaping.bound_cap(samples) * shaping.strength).min(unlimited_exponent(shaping, samples)?);
    if kl_at(limit)? <= nats {
        return Ok((limit, true));
    }
    let step = 2f64.powf(1.0 / GRID);
    let mut above = limit;
    while above > nats {
        let below = (above / step).max(nats);
        if kl_at(below)? <= nats {
            let within = |c: f64| kl_at(c).is_ok_and(|kl| kl <= nats);
            return Ok((bisect(below, above, within), false));
        }
        above = below;
    }
    Ok((nats.min(limit), false))
}

/// An exponent above which the follower has all mass on the best responses.
fn unlimited_exponent(shaping: &Shaping, samples: &Samples<'_>) -> Result<f64, Error> {
    let odds = unlimited_odds(samples);
    // The gap between the best and the second-best shaped reward, in units of the bound, shrinks as m* rises to the
    // best reward. The iteration stops at a bound at which m* no longer moves.
    let mut c = odds;
    for _ in 0..8 {
        let bound = c / shaping.strength;
        let shaped = Shaping { bound, budget: Budget::Paper, ..*shaping }.apply(samples)?;
        let gap = top_gap(samples, &shaped.values).map_or(1.0, |gap| gap / bound);
        let needed = odds / gap.max(f64::MIN_POSITIVE);
        if needed <= c || !(needed / shaping.strength).is_finite() {
            break;
        }
        c = needed;
    }
    Ok(c)
}

/// Log-odds above which even the least likely response has all mass.
fn unlimited_odds(samples: &Samples<'_>) -> f64 {
    UNLIMITED - samples.prior().iter().copied().filter(|&p| p > 0.0).fold(1.0, f64::min).ln()
}

/// Largest minus second-largest distinct shaped reward over responses of positive mass; `None` if all are equal.
fn top_gap(samples: &Samples<'_>, shaped: &[f64]) -> Option<f64> {
    let possible = || shaped.iter().zip(samples.prior()).filter(|&(_, &p)| p > 0.0).map(|(&s, _)| s);
    let best = possible().fold(f64::NEG_INFINITY, f64::max);
    let second = possible().filter(|&s| s < best).fold(f64::NEG_INFINITY, f64::max);
    second.is_finite().then_some(best - second)
}

/// Solves for the strength, in which KL is monotone.
fn solve_strength(shaping: &Shaping, samples: &Samples<'_>, nats: f64) -> Result<KlBudget, Error> {
    let shaped = shaping.apply(samples)?.values;
    let Some(gap) = top_gap(samples, &shaped) else {
        return Ok(KlBudget { shaping: *shaping, kl: 0.0, saturated: true });
    };
    let prior = samples.prior();
    let limit = (unlimited_odds(samples) / gap).min(f64::MAX);
    let within = |strength: f64| kl(prior, &shaped, strength) <= nats;
    let saturated = within(limit);
    let strength = if saturated { limit } else { bisect(0.0, limit, within) };
    let kl = kl(prior, &shaped, strength);
    Ok(KlBudget { shaping: Shaping { strength, ..*shaping }, kl, saturated })
}

/// Turns the exponent into a bound, and lowers the bound until the follower is within the budget: at the end of a
/// segment, rounding of the bound can change the set of rewarded responses.
fn settle(
    shaping: &Shaping,
    samples: &Samples<'_>,
    exponent: f64,
    saturated: bool,
    nats: f64,
) -> Result<KlBudget, Error> {
    let mut solved = Shaping { bound: exponent / shaping.strength, ..*shaping };
    let mut back_off = f64::EPSILON;
    loop {
        let values = solved.apply(samples)?.values;
        let kl = kl(samples.prior(), &values, solved.strength);
        if kl <= nats || saturated || solved.bound == 0.0 {
            return Ok(KlBudget { shaping: solved, kl, saturated });
        }
        solved.bound *= 1.0 - back_off.min(1.0);
        back_off *= 2.0;
    }
}

/// The largest `x` in `[from, to]` with `within(x)`, which must hold at `from`, fail at `to` and change once.
fn bisect(mut from: f64, mut to: f64, within: impl Fn(f64) -> bool) -> f64 {
    loop {
        // Geometric mean for wide intervals, arithmetic mean for narrow ones.
        let geometric = from > 0.0 && to > 4.0 * from;
        let middle = if geometric { from.sqrt() * to.sqrt() } else { from + (to - from) / 2.0 };
        if middle <= from || middle >= to {
            return from;
        }
        if within(middle) {
            from = middle;
        } else {
            to = middle;
        }
    }
}
