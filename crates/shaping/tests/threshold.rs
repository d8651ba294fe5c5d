//! The closed form agrees with bisection, and thresholds have their properties.

use proptest::prelude::*;
use stackelberg_shaping::{Error, Follower, Rule, Samples, Shaping, Threshold};

use crate::common::{bisected, case, exponent};

fn value(samples: &Samples<'_>, c: f64) -> f64 {
    Threshold::new(samples, c).unwrap().value
}

#[test]
fn worked_example() {
    let rewards = [1.0, 2.0];
    let samples = Samples::weighted(&rewards, &[0.9, 0.1]).unwrap();
    let raw = Follower::respond(&samples, &rewards, 1.0).unwrap();
    assert!((raw.policy[1] - 0.23197).abs() < 5e-6);
    assert!((raw.utility - 1.23197).abs() < 5e-6);
    for (bound, utility) in [(1.0, 1.23197), (2.0, 1.45085), (5.0, 1.94283), (10.0, 1.99959)] {
        let shaping = Shaping { rule: Rule::Hard, strength: 1.0, bound, ..Shaping::default() };
        let shaped = shaping.apply(&samples).unwrap();
        let led = Follower::respond(&samples, &shaped.values, 1.0).unwrap();
        assert!((led.utility - utility).abs() < 5e-6, "B = {bound}: {}", led.utility);
        assert!((shaped.threshold.unwrap().value - utility).abs() < 5e-6);
    }
}

#[test]
fn equal_rewards_are_all_paid() {
    for reward in [0.1, -7.5, 1.0 / 3.0, 1e300, 0.0] {
        for n in 1..=50 {
            let rewards = vec![reward; n];
            let threshold = Threshold::new(&Samples::new(&rewards).unwrap(), 3.0).unwrap();
            assert_eq!(threshold.value, reward);
            assert_eq!((threshold.above, threshold.highest_unrewarded), (n, None));
            assert!(threshold.pays(reward));
        }
    }
}

#[test]
fn rewards_at_the_ends_of_f64() {
    for scale in [1e-300, 1e300, f64::MIN_POSITIVE, 8.9e307] {
        let rewards = [-scale, 0.0, 0.25 * scale, scale];
        let samples = Samples::new(&rewards).unwrap();
        let unit = [-1.0, 0.0, 0.25, 1.0];
        let unit = Samples::new(&unit).unwrap();
        for c in [0.0, 1e-9, 1.0, 1e6, f64::INFINITY] {
            let (found, expected) = (value(&samples, c) / scale, value(&unit, c));
            assert!((found - expected).abs() <= 1e-15, "{scale:e}, c = {c}: {found} not {expected}");
        }
    }
    let too_far = [-f64::MAX, f64::MAX];
    assert_eq!(Samples::new(&too_far).unwrap_err(), Error::Span { low: -f64::MAX, high: f64::MAX });
}

#[test]
fn no_exponent_means_the_mean_and_all_exponent_the_best() {
    let rewards = [3.0, 1.0, 2.0, 2.0];
    let samples = Samples::new(&rewards).unwrap();
    let none = Threshold::new(&samples, 0.0).unwrap();
    assert_eq!((none.value, none.above, none.lowest_rewarded), (2.0, 3, 2.0));
    let all = Threshold::new(&samples, f64::INFINITY).unwrap();
    assert_eq!((all.value, all.above, all.highest_unrewarded), (3.0, 1, Some(2.0)));
}

#[test]
fn impossible_responses_decide_nothing() {
    let (rewards, weights) = ([9.0, 2.0, 1.0, 1.7], [0.0, 0.5, 0.5, 0.0]);
    let samples = Samples::weighted(&rewards, &weights).unwrap();
    let threshold = Threshold::new(&samples, f64::INFINITY).unwrap();
    assert_eq!((threshold.value, threshold.above), (2.0, 1));
    assert_eq!(rewards.map(|r| threshold.pays(r)), [true, true, false, false]);
}

proptest! {
    #![proptest_config(crate::common::config(4000))]

    #[test]
    fn agrees_with_bisection(case in case(), c in exponent()) {
        let samples = case.samples();
        let (found, expected) = (value(&samples, c), bisected(&samples, c));
        prop_assert!((found - expected).abs() <= 4e-15 * case.scale(), "{found} against {expected}");
    }

    #[test]
    fn is_certified(case in case(), c in exponent()) {
        let samples = case.samples();
        let t = Threshold::new(&samples, c).unwrap();
        let rounding = 4e-15 * case.scale();
        prop_assert!(t.residual.abs() <= rounding, "residual {}", t.residual);
        prop_assert!(t.lowest_rewarded >= t.value - rounding);
        prop_assert!(t.highest_unrewarded.is_none_or(|r| r <= t.value + rounding));
        prop_assert!(t.highest_unrewarded.is_none_or(|r| r < t.lowest_rewarded));
        let paid = samples.rewards().iter().zip(samples.prior()).filter(|&(&r, &p)| p > 0.0 && t.pays(r));
        prop_assert_eq!(paid.clone().count(), t.above);
        prop_assert!((paid.map(|(_, p)| p).sum::<f64>() - t.mass).abs() < 1e-12);
    }

    /// `m*` is the utility of the hard follower.
    #[test]
    fn is_the_utility_of_the_hard_follower(case in case(), c in exponent()) {
        let samples = case.samples();
        let shaping = Shaping { rule: Rule::Hard, strength: 1.0, bound: c, ..Shaping::default() };
        let shaped = shaping.apply(&samples).unwrap();
        let led = Follower::respond(&samples, &shaped.values, 1.0).unwrap();
        let m = shaped.threshold.unwrap().value;
        prop_assert!((led.utility - m).abs() <= 4e-15 * case.scale(), "{} against {m}", led.utility);
    }

    #[test]
    fn never_falls_as_the_bound_rises(case in case(), a in exponent(), b in exponent()) {
        let samples = case.samples();
        let (less, more) = (value(&samples, a.min(b)), value(&samples, a.max(b)));
        prop_assert!(less <= more + 1e-15 * case.scale());
    }

    /// Without weights the results are equal bit by bit, since sums have a fixed order.
    #[test]
    fn does_not_depend_on_order(case in case(), c in exponent(), turn in 0usize..40) {
        let mut turned = case.clone();
        let turn = turn % case.rewards.len();
        turned.rewards.rotate_left(turn);
        turned.rewards.reverse();
        if let Some(weights) = &mut turned.weights {
            weights.rotate_left(turn);
            weights.reverse();
        }
        let (a, b) = (value(&case.samples(), c), value(&turned.samples(), c));
        prop_assert!((a - b).abs() <= 4e-15 * case.scale());
        if case.weights.is_none() {
            prop_assert_eq!(a, b);
        }
    }

    #[test]
    fn moves_with_the_rewards(case in crate::common::ordinary(), c in exponent(), a in 0.01..100.0f64, b in -50.0..50.0f64) {
        let moved = crate::common::Case {
            rewards: case.rewards.iter().map(|r| a * r + b).collect(),
            weights: case.weights.clone(),
        };
        let (found, expected) = (value(&moved.samples(), c), a * value(&case.samples(), c) + b);
        prop_assert!((found - expected).abs() <= 1e-13 * moved.scale().max(1.0));
    }

    /// Doubling a weight is equivalent to duplicating the response.
    #[test]
    fn counts_weights_as_copies(rewards in prop::collection::vec(-5.0..5.0f64, 1..12), c in exponent(), seed in any::<u64>()) {
        let copies: Vec<usize> = (0..rewards.len()).map(|i| 1 + (seed >> (3 * i)) as usize % 4).collect();
        let weights: Vec<f64> = copies.iter().map(|&n| n as f64).collect();
        let many: Vec<f64> =
            rewards.iter().zip(&copies).flat_map(|(&r, &n)| std::iter::repeat_n(r, n)).collect();
        let weighted = value(&Samples::weighted(&rewards, &weights).unwrap(), c);
        let copied = value(&Samples::new(&many).unwrap(), c);
        prop_assert!((weighted - copied).abs() <= 1e-14 * 5.0);
    }
}
