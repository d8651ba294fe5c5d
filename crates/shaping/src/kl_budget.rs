//! A budget in nats in place of a bound: how far may the follower move from the base policy?

use crate::error::{Error, require};
use crate::follower::{kl, kl_hard};
use crate::rule::{Budget, Rule};
use crate::samples::Samples;
use crate::shaping::Shaping;

/// Settings that spend a KL budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KlBudget {
    /// The settings given, with the bound solved for; or, for rules without a bound, the strength.
    pub shaping: Shaping,
    /// The KL of the follower under these settings, in nats. At most the budget. It can be less where
    /// the rewarded set changes, since KL jumps there.
    pub kl: f64,
    /// True where even an unlimited bound (or strength) stays within the budget: all mass is then on
    /// the best responses and the KL is `-ln P(best)`, or as much as the rule itself allows.
    pub saturated: bool,
}

/// A bound whose follower puts all but this many nats' worth of odds on the best responses counts as
/// unlimited: `exp(-40)` is below f64's resolution of 1.
const UNLIMITED: f64 = 40.0;

/// Bounds tried per factor of two, where KL is no monotone function of the bound.
const GRID: f64 = 8.0;

impl KlBudget {
    /// Checks the budget against the settings, rewards or no rewards.
    ///
    /// # Errors
    /// A negative or infinite budget; strength 0 for a rule that is solved for its bound, since no bound
    /// moves a follower that does not listen.
    pub fn check(shaping: &Shaping, nats: f64) -> Result<(), Error> {
        let valid = (0.0..f64::INFINITY).contains(&nats);
        require("kl-budget", nats, valid, "zero or more nats, and finite")?;
        let listens = shaping.strength > 0.0 || !shaping.rule.has_bound();
        require("strength", shaping.strength, listens, "above zero to spend a KL budget")
    }

    /// The largest bound, at the given strength, whose follower stays within `nats` of the base policy;
    /// for rules without a bound, the largest strength.
    ///
    /// KL grows with the bound while the rewarded set stays, and can drop where it changes. For `hard`
    /// in budget `paper` the at most `M` segments of a constant set have closed-form ends, so each is
    /// solved for itself and the answer is exact. The soft bounded rules are solved on a grid of eight
    /// bounds per factor of two, refined by bisection; KL is monotone in strength, so the rest are
    /// solved by bisection alone.
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

/// The largest exponent of the hard threshold within the budget, and whether every exponent is.
///
/// While exactly the best `j` are rewarded, KL is a function of their mass and rises with `c`. The set
/// holds until `m*` reaches its worst member: `m_j(c) = r_j`, that is
/// `c = ln(1 + (r_j - E r) / sum_{i<=j} p_i (r_i - r_j))`. The best set has no such end.
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

/// The best responses down to one reward value.
struct Group {
    /// The base policy's mass on them.
    mass: f64,
    /// The exponent up to which exactly they are rewarded; infinite for the best.
    ends: f64,
}

impl Group {
    /// Every set that is ever rewarded, smallest first.
    fn all(samples: &Samples<'_>) -> Vec<Group> {
        let ranked = samples.ranked();
        let (top, bottom) = samples.support();
        let unit = if top > bottom { top - bottom } else { 1.0 };
        let mean: f64 = ranked.iter().map(|x| x.mass * ((x.reward - top) / unit)).sum();
        let mut groups: Vec<Group> = Vec::new();
        // Excess: sum over the set of p_i (r_i - r_j), in units of the span.
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

/// The largest exponent `strength * bound` on a grid, refined, for rules whose KL may fall as the
/// bound rises.
fn grid_exponent(shaping: &Shaping, samples: &Samples<'_>, nats: f64) -> Result<(f64, bool), Error> {
    let kl_at = |c: f64| -> Result<f64, Error> {
        let trial = Shaping { bound: c / shaping.strength, ..*shaping };
        Ok(kl(samples.prior(), &trial.apply(samples)?.values, shaping.strength))
    };
    // Shaped rewards span at most the bound, so no exponent below the budget can exceed it.
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

/// An exponent beyond which the follower gives nothing but the best responses.
fn unlimited_exponent(shaping: &Shaping, samples: &Samples<'_>) -> Result<f64, Error> {
    let odds = unlimited_odds(samples);
    // The gap between best and second best in units of the bound. It shrinks as m* rises to the best
    // reward, so it is taken at a bound that has lifted m* all the way, as near as f64 tells.
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

/// Log-odds beyond which even the least likely response holds all mass against the rest.
fn unlimited_odds(samples: &Samples<'_>) -> f64 {
    UNLIMITED - samples.prior().iter().copied().filter(|&p| p > 0.0).fold(1.0, f64::min).ln()
}

/// Best minus second-best distinct shaped reward, over responses of positive mass.
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

/// Turns the exponent into a bound and makes sure that the follower really stays within the budget:
/// at the end of a segment, rounding of the bound alone can change the rewarded set.
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

/// The largest `x` in `[from, to]` with `within(x)`, given that it holds at `from`, fails at `to`, and
/// changes once.
fn bisect(mut from: f64, mut to: f64, within: impl Fn(f64) -> bool) -> f64 {
    loop {
        // Far apart, halve the exponent; near, the interval.
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
