//! No follower exceeds the two limits, and some attain them.

use proptest::prelude::*;
use stackelberg_shaping::{Follower, Frontier, Rule, Samples, Shaping};

use crate::common::{case, config, exponent};

/// The paper's biased prior: with two responses all shaped rewards of one span are equivalent, so both limits agree.
#[test]
fn the_biased_prior() {
    let rewards = [1.0, 2.0];
    let samples = Samples::weighted(&rewards, &[0.9, 0.1]).unwrap();
    let frontier = Frontier::new(&samples);
    let margins = frontier.margins(&rewards, 1.0).unwrap();
    assert!((margins.follower.utility - 1.23197).abs() < 1e-5);
    assert_eq!(margins.bound, 1.0);
    assert!(margins.below_hard.abs() < 1e-15 && margins.below_raw.abs() < 1e-15, "{margins:?}");
    assert_eq!(frontier.by_kl(0.0).unwrap(), 1.1);
    assert_eq!(frontier.by_kl(10f64.ln()).unwrap(), 2.0);
    assert_eq!(frontier.by_kl(f64::INFINITY).unwrap(), 2.0);
    assert!(frontier.by_kl(-1.0).is_err() && frontier.by_kl(f64::NAN).is_err());
    assert!(frontier.by_bound(f64::NAN).is_err() && frontier.margins(&rewards, -1.0).is_err());
}

#[test]
fn many_responses() {
    let rewards: Vec<f64> =
        (0..20_000).map(|i| f64::from(i * 7919 % 20_011).sin() * 3.0 + 40.0).collect();
    let samples = Samples::new(&rewards).unwrap();
    let frontier = Frontier::new(&samples);
    for rule in Rule::ALL {
        for strength in [0.01, 0.3, 2.0, 50.0] {
            let shaping = Shaping { rule, bound: 1.0, ..Shaping::default() };
            let values = shaping.apply(&samples).unwrap().values;
            let margins = frontier.margins(&values, strength).unwrap();
            let least = margins.below_hard.min(margins.below_raw);
            assert!(least >= -frontier.rounding(), "{rule} {least}");
        }
    }
}

#[test]
fn nothing_to_choose() {
    let samples = Samples::new(&[3.5, 3.5]).unwrap();
    let margins = Frontier::new(&samples).margins(&[0.0, 7.0], 2.0).unwrap();
    assert_eq!((margins.below_hard, margins.below_raw), (0.0, 0.0));
}

proptest! {
    #![proptest_config(config(2000))]

    /// Theorem 1 and Gibbs' principle, for every rule and for arbitrary shaped rewards.
    #[test]
    fn nothing_gets_beyond(case in case(), c in exponent(), alpha in 0.1..5.0f64, any in prop::collection::vec(-1.0..1.0f64, 40)) {
        let samples = case.samples();
        let frontier = Frontier::new(&samples);
        let mut shown: Vec<(&str, Vec<f64>, f64)> = Rule::ALL.map(|rule| {
            let shaping = Shaping { rule, bound: 1.0, strength: c, alpha, ..Shaping::default() };
            let values = shaping.apply(&samples).unwrap().values;
            let strength = if rule.has_bound() { c } else { c / frontier.span(&values) };
            (rule.name(), values, strength)
        }).into();
        shown.push(("no rule", any[..case.rewards.len()].to_vec(), c));
        for (name, values, strength) in shown {
            // The span over- or underflows.
            if !strength.is_finite() {
                continue;
            }
            let margins = frontier.margins(&values, strength).unwrap();
            let least = margins.below_hard.min(margins.below_raw);
            prop_assert!(least >= -frontier.rounding(), "{name}: {margins:?}");
        }
    }

    /// Hard and raw attain their limits.
    #[test]
    fn hard_and_raw_get_there(case in case(), c in exponent()) {
        let samples = case.samples();
        let frontier = Frontier::new(&samples);
        let hard = Shaping { rule: Rule::Hard, bound: 1.0, strength: c, ..Shaping::default() };
        let values = hard.apply(&samples).unwrap().values;
        let follower = Follower::respond(&samples, &values, c).unwrap();
        let off = frontier.by_bound(c).unwrap() - follower.utility;
        prop_assert!(off.abs() <= frontier.rounding(), "hard: {off}");
        let strength = c / frontier.span(&case.rewards);
        if strength.is_finite() {
            let raw = frontier.margins(&case.rewards, strength).unwrap();
            prop_assert!(raw.below_raw.abs() <= frontier.rounding(), "raw: {raw:?}");
        }
    }
}
