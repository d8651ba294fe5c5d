//! Properties of each rule and of its follower.

use proptest::prelude::*;
use stackelberg_shaping::{Budget, Follower, Rule, Samples, Shaped, Shaping};

use crate::common::{case, exponent, ordinary};

fn shaped(shaping: &Shaping, samples: &Samples<'_>) -> Shaped {
    shaping.apply(samples).unwrap()
}

fn respond(shaping: &Shaping, samples: &Samples<'_>) -> Follower {
    Follower::respond(samples, &shaped(shaping, samples).values, shaping.strength).unwrap()
}

fn span(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
        - values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn any_rule() -> impl Strategy<Value = Rule> {
    prop::sample::select(Rule::ALL.to_vec())
}

fn settings() -> impl Strategy<Value = Shaping> {
    (any_rule(), 0.01..5.0f64, 0.0..15.0f64, 0.1..5.0f64, 0.1..5.0f64, 0.0..=1.0f64).prop_map(
        |(rule, strength, bound, alpha, cap, ref_quantile)| Shaping {
            rule,
            strength,
            bound,
            alpha,
            cap,
            ref_quantile,
            ..Shaping::default()
        },
    )
}

#[test]
fn each_rule_by_hand() {
    let rewards = [1.0, 2.0, 4.0];
    let samples = Samples::new(&rewards).unwrap();
    let with = |rule, shaping: Shaping| shaped(&Shaping { rule, ..shaping }, &samples).values;
    let base = Shaping { strength: 1.0, bound: 2.0, alpha: 1.0, cap: 1.5, ..Shaping::default() };
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let near = |found: Vec<f64>, expected: [f64; 3]| {
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-14, "{found:?} not {expected:?}");
        }
    };
    let e = (-2.0f64).exp();
    let m = (4.0 + e * 3.0) / (1.0 + e * 2.0); // only the best is paid
    let mean = 7.0 / 3.0;
    let std = (14.0f64 / 9.0).sqrt();
    near(with(Rule::Raw, base), rewards);
    near(with(Rule::Hard, base), [0.0, 0.0, 2.0]);
    near(with(Rule::Srs, base), rewards.map(|r| 2.0 * sigmoid(r - m)));
    near(with(Rule::MeanSoft, base), rewards.map(|r| 2.0 * sigmoid(r - mean)));
    near(with(Rule::Minmax, base), [0.0, 2.0 / 3.0, 2.0]);
    near(with(Rule::Minmax, Shaping { bound: 12.0, ..base }), [0.0, 1.01, 3.03]);
    near(with(Rule::Meanstd, base), rewards.map(|r| (r - mean) / std));
    near(with(Rule::SrsStd, base), rewards.map(|r| 2.0 * sigmoid((r - m) / std)));
    near(with(Rule::Cap, base), [0.0, 1.0, 1.5]);
    near(with(Rule::LogSigmoid, base), rewards.map(|r| sigmoid(r - 2.0).ln()));
    near(with(Rule::Par, base), rewards.map(|r| sigmoid(r - 2.0)));
    near(with(Rule::Par, Shaping { ref_quantile: 0.75, ..base }), rewards.map(|r| sigmoid(r - 3.0)));
}

#[test]
fn the_reference_budgets_cap_bound_and_exponent() {
    let rewards = [0.0, 1.0];
    let samples = Samples::new(&rewards).unwrap();
    let given = Shaping { rule: Rule::Hard, strength: 3.0, bound: 12.0, ..Shaping::default() };
    for (budget, bound, exponent) in [
        (Budget::Paper, 12.0, 36.0),
        (Budget::ReferenceStep, 1.01, std::f64::consts::LN_2),
        (Budget::ReferenceOffline, 2.0, 2.0),
    ] {
        let shaped = shaped(&Shaping { budget, ..given }, &samples);
        assert_eq!(shaped.bound, Some(bound));
        assert_eq!(shaped.threshold.unwrap().exponent, exponent);
    }
    let flat = Samples::new(&[2.0, 2.0]).unwrap();
    for rule in [Rule::Hard, Rule::Srs, Rule::MeanSoft] {
        for budget in [Budget::ReferenceStep, Budget::ReferenceOffline] {
            assert_eq!(shaped(&Shaping { rule, budget, ..given }, &flat).values, [0.0, 0.0]);
        }
    }
}

#[test]
fn the_standard_deviation_has_no_limits_of_its_own() {
    for scale in [1e-300, 1.0, 1e300] {
        let rewards = [scale, -scale, 3.0 * scale];
        let std = Samples::new(&rewards).unwrap().std() / scale;
        assert!((std - (8.0f64 / 3.0).sqrt()).abs() < 1e-15, "{scale}: {std}");
    }
}

#[test]
fn a_strength_of_zero_is_the_base_policy() {
    let rewards = [1.0, -3.0, 2.0];
    let samples = Samples::weighted(&rewards, &[1.0, 2.0, 5.0]).unwrap();
    for rule in Rule::ALL {
        let base = respond(&Shaping { rule, strength: 0.0, ..Shaping::default() }, &samples);
        assert_eq!(base.kl, 0.0);
        assert!((base.utility - 5.0 / 8.0).abs() < 1e-15, "{rule}");
        assert!(base.policy.iter().zip(samples.prior()).all(|(a, b)| (a - b).abs() < 1e-15));
    }
}

#[test]
fn a_gentle_tilt_keeps_its_digits() {
    // KL ~ variance * strength² / 2 = strength² / 8, far below the resolution of 1.
    let rewards = [0.0, 1.0];
    let samples = Samples::new(&rewards).unwrap();
    for strength in [1e-3, 1e-6, 1e-9, 1e-12, 1e-100] {
        let kl = Follower::respond(&samples, &rewards, strength).unwrap().kl;
        let ratio = kl / (strength * strength / 8.0);
        assert!((ratio - 1.0).abs() < strength + 1e-12, "strength {strength}: {ratio}");
    }
}

#[test]
fn names_read_back() {
    for rule in Rule::ALL {
        assert_eq!(rule.name().parse(), Ok(rule));
    }
    for budget in Budget::ALL {
        assert_eq!(budget.name().parse(), Ok(budget));
    }
    let error = "softmax".parse::<Rule>().unwrap_err().to_string();
    assert_eq!(
        error,
        "unknown shaping rule 'softmax': known are raw, hard, srs, mean-soft, minmax, meanstd, srs-std, cap, \
         log-sigmoid, par"
    );
    let error = "free".parse::<Budget>().unwrap_err().to_string();
    assert_eq!(error, "unknown budget 'free': known are paper, reference-step, reference-offline");
    assert_eq!(format!("{:<9}|{:>4}", Rule::MeanSoft, Rule::Par), "mean-soft| par");
    assert_eq!(format!("{:<8}|", Rule::Hard), "hard    |");
}

proptest! {
    #![proptest_config(crate::common::config(3000))]

    #[test]
    fn values_keep_the_rules_span(case in case(), shaping in settings(), offline in any::<bool>()) {
        let budget = if offline { Budget::ReferenceOffline } else { Budget::Paper };
        let shaping = Shaping { budget, ..shaping };
        let samples = case.samples();
        let shaped = shaped(&shaping, &samples);
        prop_assert!(shaped.values.iter().all(|s| s.is_finite()));
        if let Some(most) = shaping.span(case.rewards.len()) {
            prop_assert!(span(&shaped.values) <= most * (1.0 + 1e-12), "{}: {}", shaping.rule, most);
        }
        if let Some(bound) = shaped.bound {
            prop_assert!(bound <= shaping.bound);
            prop_assert!(shaped.values.iter().all(|&s| (0.0..=bound).contains(&s)));
        }
    }

    /// No rule prefers a worse response.
    #[test]
    fn shaping_keeps_the_order(case in case(), shaping in settings()) {
        let samples = case.samples();
        let values = shaped(&shaping, &samples).values;
        for (i, a) in case.rewards.iter().enumerate() {
            for (j, b) in case.rewards.iter().enumerate() {
                prop_assert!(a < b || values[i] >= values[j], "{}", shaping.rule);
            }
        }
    }

    #[test]
    fn follower_is_a_policy(case in case(), shaping in settings()) {
        let samples = case.samples();
        let f = respond(&shaping, &samples);
        prop_assert!((f.policy.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        prop_assert!(f.kl >= 0.0 && f.kl.is_finite());
        prop_assert!(f.ess >= 1.0 - 1e-12 && f.ess <= case.rewards.len() as f64 + 1e-9);
        // The KL from its definition, which is less precise than `f.kl`.
        let kl: f64 = f.policy.iter().zip(samples.prior())
            .filter(|&(&w, _)| w > 0.0).map(|(w, p)| w * (w / p).ln()).sum();
        prop_assert!((kl - f.kl).abs() <= 1e-12 * (1.0 + kl.abs()), "{kl} against {}", f.kl);
    }

    /// KL(rho_s || rho) <= B/beta for shaped rewards between 0 and B.
    #[test]
    fn the_bound_bounds_kl(case in case(), shaping in settings()) {
        let samples = case.samples();
        if let Some(bound) = shaped(&shaping, &samples).bound {
            prop_assert!(respond(&shaping, &samples).kl <= bound * shaping.strength + 1e-12);
        }
    }

    /// Theorem 1: at a given bound, no rule whose values span at most B beats the hard threshold.
    #[test]
    fn nothing_beats_hard_at_a_bound(case in ordinary(), shaping in settings()) {
        let samples = case.samples();
        let rule = respond(&shaping, &samples);
        let bound = span(&shaped(&shaping, &samples).values);
        let hard = respond(&Shaping { rule: Rule::Hard, bound, ..shaping }, &samples);
        prop_assert!(hard.utility >= rule.utility - 1e-13, "{}: {} > {}", shaping.rule, rule.utility, hard.utility);
    }

    /// Gibbs: KL(rule) <= KL(raw at t) implies U(rule) <= U(raw at t). Here at the t of equal KL.
    #[test]
    fn nothing_beats_raw_at_a_kl(case in ordinary(), shaping in settings()) {
        let samples = case.samples();
        let rule = respond(&shaping, &samples);
        let raw = |t: f64| Follower::respond(&samples, &case.rewards, t).unwrap();
        let (mut low, mut high) = (0.0, 1e3);
        for _ in 0..100 {
            let middle = (low + high) / 2.0;
            if raw(middle).kl < rule.kl { low = middle } else { high = middle }
        }
        let raw = raw(high);
        if raw.kl >= rule.kl {
            prop_assert!(rule.utility <= raw.utility + 1e-12, "{}: {} > {}", shaping.rule, rule.utility, raw.utility);
        }
    }

    /// These rules are invariant under r -> a r + b, alpha -> alpha / a (raw: equivariant).
    #[test]
    fn equivariant_rules(case in ordinary(), shaping in settings(), a in 0.1..10.0f64, b in -10.0..10.0f64) {
        let moved = crate::common::Case {
            rewards: case.rewards.iter().map(|r| a * r + b).collect(),
            weights: case.weights.clone(),
        };
        let (before, after) = (case.samples(), moved.samples());
        // The guards against division by zero are not invariant, and rounding can separate equal rewards.
        if before.std().min(after.std()) < 1e-5 {
            return Ok(());
        }
        for rule in [Rule::Raw, Rule::Hard, Rule::Srs, Rule::MeanSoft, Rule::Meanstd, Rule::SrsStd] {
            let unit = if matches!(rule, Rule::Srs | Rule::MeanSoft) { a } else { 1.0 };
            let before = shaped(&Shaping { rule, ..shaping }, &before);
            let after = shaped(&Shaping { rule, alpha: shaping.alpha / unit, ..shaping }, &after);
            for ((found, old), r) in after.values.iter().zip(&before.values).zip(&case.rewards) {
                let expected = if rule == Rule::Raw { a * old + b } else { *old };
                let undecided = rule == Rule::Hard && threshold_is_near(&before, *r);
                prop_assert!((found - expected).abs() <= 1e-9 || undecided, "{rule}: {found} not {expected}");
            }
        }
    }

    #[test]
    fn soft_becomes_hard_as_alpha_grows(case in ordinary(), bound in 0.1..8.0f64) {
        let samples = case.samples();
        let hard = Shaping { rule: Rule::Hard, strength: 1.0, bound, ..Shaping::default() };
        let threshold = shaped(&hard, &samples);
        if case.rewards.iter().any(|r| threshold_is_near(&threshold, *r)) {
            return Ok(()); // on the threshold itself, soft is B/2 at any alpha
        }
        let srs = Shaping { rule: Rule::Srs, alpha: 1e12, ..hard };
        prop_assert!((respond(&srs, &samples).utility - respond(&hard, &samples).utility).abs() < 1e-12);
    }

    #[test]
    fn soft_becomes_nothing_as_alpha_shrinks(case in ordinary(), shaping in settings()) {
        let samples = case.samples();
        let srs = Shaping { rule: Rule::Srs, alpha: 1e-12, ..shaping };
        let base = Follower::respond(&samples, &case.rewards, 0.0).unwrap();
        let soft = respond(&srs, &samples);
        prop_assert!((soft.utility - base.utility).abs() < 1e-9 && soft.kl < 1e-18);
    }

    #[test]
    fn extreme_exponents_stay_finite(case in case(), c in exponent(), rule in any_rule()) {
        let shaping = Shaping { rule, bound: c, strength: 1e3, ..Shaping::default() };
        let f = respond(&shaping, &case.samples());
        prop_assert!(f.kl.is_finite() && f.utility.is_finite() && f.ess.is_finite());
    }
}

/// Whether rounding decides on which side of the threshold the reward is.
fn threshold_is_near(shaped: &Shaped, reward: f64) -> bool {
    shaped.threshold.is_some_and(|t| (reward - t.value).abs() < 1e-9)
}
