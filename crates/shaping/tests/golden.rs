//! Agreement with the public Python reference of the method (see `tests/data/README.md`).

use serde::Deserialize;
use stackelberg_shaping::{Budget, Rule, Samples, Shaping, argmax, fuse};

#[derive(Deserialize)]
struct Golden<T> {
    cases: Vec<T>,
}

#[derive(Deserialize)]
#[allow(non_snake_case)]
struct Offline {
    rewards: Vec<f64>,
    B: f64,
    beta: f64,
    cap: f64,
    alpha: f64,
    B_eff: f64,
    m_star: f64,
    shaped: Vec<f64>,
}

#[derive(Deserialize)]
#[allow(non_snake_case)]
struct Step {
    rewards: Vec<f64>,
    logits: Vec<f64>,
    weight: f64,
    B: f64,
    alpha: f64,
    beta: Option<f64>,
    cap: f64,
    stretch: f64,
    f64: std::collections::BTreeMap<String, Method>,
}

#[derive(Deserialize)]
#[allow(non_snake_case)]
struct Method {
    lam: Option<f64>,
    B_eff: Option<f64>,
    m: Option<f64>,
    shaped: Option<Vec<f64>>,
    fused: Vec<f64>,
    argmax: usize,
}

fn load<T: for<'a> Deserialize<'a>>(json: &str) -> Vec<T> {
    serde_json::from_str::<Golden<T>>(json).unwrap().cases
}

fn scale(rewards: &[f64]) -> f64 {
    rewards.iter().fold(1.0, |most, r| r.abs().max(most))
}

#[track_caller]
fn close(found: f64, expected: f64, tolerance: f64, what: &str) {
    let off = (found - expected).abs();
    assert!(off <= tolerance, "{what}: {found} is {off:e} from {expected}, more than {tolerance:e}");
}

#[test]
fn offline_shaping() {
    let cases: Vec<Offline> = load(include_str!("data/offline_soft_shape.json"));
    assert_eq!(cases.len(), 105);
    for case in cases {
        let shaping = Shaping {
            rule: Rule::Srs,
            strength: 1.0 / case.beta,
            bound: case.B,
            alpha: case.alpha,
            budget: Budget::ReferenceOffline,
            exponent_cap: case.cap,
            ..Shaping::default()
        };
        let shaped = shaping.apply(&Samples::new(&case.rewards).unwrap()).unwrap();
        let off = 1e-9 * scale(&case.rewards);
        close(shaped.threshold.unwrap().value, case.m_star, off, "m*");
        close(shaped.bound.unwrap(), case.B_eff, 1e-12 * case.B_eff, "bound");
        // The slope of the sigmoid is at most 1/4.
        let off = 1e-12 + off * case.B_eff * case.alpha / 4.0;
        for (found, expected) in shaped.values.iter().zip(&case.shaped) {
            close(*found, *expected, off, "shaped");
        }
    }
}

#[test]
fn args_steps() {
    let cases: Vec<Step> = load(include_str!("data/args_step.json"));
    assert_eq!(cases.len(), 105);
    for case in &cases {
        assert_eq!(case.f64.len(), 6);
        for (name, golden) in &case.f64 {
            check_step(case, name, golden);
        }
    }
}

fn check_step(case: &Step, name: &str, golden: &Method) {
    let rule: Rule = match name {
        "soft" => Rule::Srs,
        "meansoft" => Rule::MeanSoft,
        same => same.parse().unwrap(),
    };
    let strength = match (rule, case.beta) {
        (Rule::Srs, Some(beta)) => 1.0 / beta,
        _ => case.weight,
    };
    if let Some(lam) = golden.lam {
        assert_eq!(lam, strength);
    }
    let shaping = Shaping {
        rule,
        strength,
        bound: case.B,
        alpha: case.alpha,
        cap: case.cap,
        stretch: case.stretch,
        budget: Budget::ReferenceStep,
        ..Shaping::default()
    };
    let samples = Samples::from_logits(&case.rewards, &case.logits).unwrap();
    let shaped = shaping.apply(&samples).unwrap();

    // The reference stops after 30 bisections and takes exp(B/beta) in single precision.
    let mut off = 1e-13 * scale(&case.rewards);
    if let (Some(threshold), Some(m)) = (shaped.threshold, golden.m) {
        off += samples.range() * (0.5f64.powi(30) + 1e-7);
        close(threshold.value, m, off, name);
    }
    if let Some(bound) = golden.B_eff {
        close(shaped.bound.unwrap(), bound, 1e-12 * bound, name);
    }
    // Largest slope of each rule. The smallest divisor of meanstd is 1e-6.
    let slope = match rule {
        Rule::Srs | Rule::MeanSoft => shaped.bound.unwrap() * case.alpha / 4.0,
        Rule::Meanstd => 1.0 / samples.std().max(1e-6),
        _ => 1.0,
    };
    let off = 1e-12 * scale(&case.rewards) + off * slope;
    if let Some(expected) = &golden.shaped {
        let scaled = if rule == Rule::Minmax { strength } else { 1.0 };
        for (found, expected) in shaped.values.iter().zip(expected) {
            close(found * scaled, *expected, off, name);
        }
    }
    let fused = fuse(&case.logits, &shaped.values, strength);
    for (found, expected) in fused.iter().zip(&golden.fused) {
        close(*found, *expected, off * strength.max(1.0), name);
    }
    assert_eq!(argmax(&fused), Some(golden.argmax), "{name}");
}
