//! Solutions are within the KL budget and are the largest possible ones.

use proptest::prelude::*;
use stackelberg_shaping::{Budget, Error, Follower, KlBudget, Rule, Samples, Shaping};

use crate::common::ordinary;

fn kl(shaping: &Shaping, samples: &Samples<'_>) -> f64 {
    let values = shaping.apply(samples).unwrap().values;
    Follower::respond(samples, &values, shaping.strength).unwrap().kl
}

/// A bound above which followers of moderate rewards do not change.
const UNLIMITED: f64 = 1e7;

fn bounded(rule: Rule) -> Shaping {
    Shaping { rule, strength: 1.0, alpha: 1.0, ..Shaping::default() }
}

#[test]
fn two_responses_by_hand() {
    // Half of the mass is on the better response: KL = ln 2 - H(q).
    let samples = Samples::new(&[0.0, 1.0]).unwrap();
    let q: f64 = 0.9;
    let nats = 2f64.ln() + q * q.ln() + (1.0 - q) * (1.0 - q).ln();
    let solved = KlBudget::solve(&bounded(Rule::Hard), &samples, nats).unwrap();
    assert!((solved.shaping.bound - 9f64.ln()).abs() < 1e-12, "{}", solved.shaping.bound);
    assert!((solved.kl - nats).abs() < 1e-14 && !solved.saturated);

    let raw = KlBudget::solve(&bounded(Rule::Raw), &samples, nats).unwrap();
    assert!((raw.shaping.strength - 9f64.ln()).abs() < 1e-12);
}

#[test]
fn saturates_at_the_mass_of_the_best() {
    let rewards = [0.0, 1.0, 1.0, -2.0];
    let samples = Samples::new(&rewards).unwrap();
    for rule in
        [Rule::Hard, Rule::Srs, Rule::SrsStd, Rule::MeanSoft, Rule::Raw, Rule::Meanstd, Rule::Par]
    {
        let solved = KlBudget::solve(&bounded(rule), &samples, 5.0).unwrap();
        assert!(solved.saturated, "{rule}");
        assert!((solved.kl - 2f64.ln()).abs() < 1e-12, "{rule}: {}", solved.kl);
        assert!((kl(&solved.shaping, &samples) - solved.kl).abs() < 1e-15, "{rule}");
    }
    // These reach the limit of their bound first.
    for (rule, budget) in [(Rule::Minmax, Budget::Paper), (Rule::Hard, Budget::ReferenceStep)] {
        let given = Shaping { rule, budget, strength: 0.1, ..Shaping::default() };
        let solved = KlBudget::solve(&given, &samples, 5.0).unwrap();
        assert!(solved.saturated && solved.kl < 0.1, "{rule}: {}", solved.kl);
        assert!((solved.shaping.bound - 1.01 * 3.0).abs() < 1e-12, "{rule}: {}", solved.shaping.bound);
    }
}

#[test]
fn nothing_to_spend_or_to_spend_on() {
    let samples = Samples::new(&[0.0, 1.0, 3.0]).unwrap();
    let flat = Samples::new(&[2.0, 2.0]).unwrap();
    for rule in Rule::ALL {
        let none = KlBudget::solve(&bounded(rule), &samples, 0.0).unwrap();
        assert!(none.kl == 0.0 && !none.saturated, "{rule}");
        let knob = if rule.has_bound() { none.shaping.bound } else { none.shaping.strength };
        assert!(knob < 1e-6, "{rule}: {knob}");
        let all_equal = KlBudget::solve(&bounded(rule), &flat, 1.0).unwrap();
        assert!(all_equal.kl == 0.0 && all_equal.saturated, "{rule}");
    }
    let deaf = Shaping { strength: 0.0, ..bounded(Rule::Srs) };
    assert!(matches!(
        KlBudget::solve(&deaf, &samples, 1.0),
        Err(Error::Setting { name: "strength", .. })
    ));
    assert!(matches!(
        KlBudget::solve(&bounded(Rule::Raw), &samples, -1.0),
        Err(Error::Setting { name: "kl-budget", .. })
    ));
}

proptest! {
    #![proptest_config(crate::common::config(500))]

    #[test]
    fn is_kept_and_reported(case in ordinary(), nats in 1e-6..4.0f64, strength in 0.01..10.0f64) {
        let samples = case.samples();
        for rule in Rule::ALL {
            for budget in Budget::ALL {
                let given = Shaping { strength, budget, ..bounded(rule) };
                let solved = KlBudget::solve(&given, &samples, nats).unwrap();
                prop_assert!(solved.kl <= nats, "{rule} {budget}: {} > {nats}", solved.kl);
                let again = kl(&solved.shaping, &samples);
                prop_assert!((again - solved.kl).abs() <= 1e-14 * (1.0 + again), "{rule} {budget}");
            }
        }
    }

    /// No larger bound is within the budget, checked on a fine grid above the solution.
    #[test]
    fn is_the_largest_for_hard(case in ordinary(), nats in 1e-6..4.0f64) {
        let samples = case.samples();
        let solved = KlBudget::solve(&bounded(Rule::Hard), &samples, nats).unwrap();
        if solved.saturated {
            return Ok(());
        }
        let mut bound = solved.shaping.bound * (1.0 + 1e-9);
        while bound < UNLIMITED {
            let larger = Shaping { bound, ..solved.shaping };
            prop_assert!(kl(&larger, &samples) > nats, "{bound} > {} is within too", solved.shaping.bound);
            bound *= 1.003;
        }
    }

    /// The soft rules are searched on a grid of eight bounds per factor of two.
    #[test]
    fn is_the_largest_on_the_grid_for_soft_rules(case in ordinary(), nats in 1e-3..4.0f64) {
        let samples = case.samples();
        for rule in [Rule::Srs, Rule::SrsStd, Rule::MeanSoft, Rule::Minmax] {
            let solved = KlBudget::solve(&bounded(rule), &samples, nats).unwrap();
            if solved.saturated {
                continue;
            }
            let cap = if rule == Rule::Minmax { 1.01 * samples.range() } else { UNLIMITED };
            let mut bound = solved.shaping.bound * (1.0 + 1e-9);
            while bound < cap {
                let larger = Shaping { bound, ..solved.shaping };
                prop_assert!(kl(&larger, &samples) > nats, "{rule}: {bound} > {} is within too", solved.shaping.bound);
                bound *= 1.09;
            }
        }
    }

    /// KL is continuous in the strength, so the whole budget is spent.
    #[test]
    fn is_spent_by_rules_solved_for_strength(case in ordinary(), nats in 1e-6..4.0f64) {
        let samples = case.samples();
        for rule in [Rule::Raw, Rule::Meanstd, Rule::Cap, Rule::Par, Rule::LogSigmoid] {
            let solved = KlBudget::solve(&bounded(rule), &samples, nats).unwrap();
            prop_assert!(solved.saturated || (solved.kl - nats).abs() < 1e-9 * nats, "{rule}: {}", solved.kl);
        }
    }
}
