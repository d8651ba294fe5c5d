//! A tiny policy and all that scores, for tests of what decoding promises of any.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod follower;
#[path = "../../../engine/tests/common/tiny.rs"]
pub mod tiny;

use std::sync::Arc;
use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::json;
use stackelberg_decoding::{Generation, Guidance, Method, Settings, Step, Watch, generate};
use stackelberg_engine::reward::{Combined, ValueHead};
use stackelberg_engine::{Checkpoint, Dtype, Reward};
use stackelberg_shaping::{Budget, Rule, Shaping};
use tiny::{D, Tiny};

/// A policy; a head, a reward model, and both at once.
pub fn parts() -> &'static (Checkpoint, [Reward; 3]) {
    static PARTS: OnceLock<(Checkpoint, [Reward; 3])> = OnceLock::new();
    PARTS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        Tiny::default().write(&at("policy"));
        Tiny { seed: 5, labels: Some(1), ..Tiny::default() }.write(&at("reward"));
        let header = json!({"__metadata__": {"format": "stackelberg-head"},
            "score.weight": {"dtype": "F32", "shape": [1, D], "data_offsets": [0, 4 * D]}});
        let header = header.to_string();
        let weights = (0..D).flat_map(|i| ((i as f32 * 2.3).sin()).to_le_bytes());
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend(weights);
        std::fs::write(at("head.safetensors"), bytes).unwrap();

        let policy = Checkpoint::load(&at("policy"), Dtype::F32).unwrap();
        let load = |name: &str| Reward::load(&at(name), &policy, Dtype::F32).unwrap();
        let both = "lex(head>=-0.5, head*0.5+model)".parse().unwrap();
        let both = Combined::new(both, vec![load("head.safetensors"), load("reward")]);
        let rewards = [load("head.safetensors"), load("reward"), Reward::Combined(Arc::new(both))];
        (policy, rewards)
    })
}

/// Value heads: as it comes, and clamped to a bound.
pub fn values() -> &'static [Arc<ValueHead>; 2] {
    static VALUES: OnceLock<[Arc<ValueHead>; 2]> = OnceLock::new();
    VALUES.get_or_init(|| {
        let layer = |inputs: usize, outputs: usize| {
            let wave = |i: usize| (i as f32 * 1.7 + inputs as f32).sin();
            ((0..inputs * outputs).map(wave).collect(), (0..outputs).map(wave).collect())
        };
        let head = || ValueHead::new(D, [layer(D, 6), layer(6, 35), layer(35, 1)]);
        let (open, mut bounded) = (head(), head());
        bounded.bound = Some(0.8);
        [open, bounded].map(Arc::new)
    })
}

/// All that scores; the methods take what they need.
pub fn guidance(reward: usize, value: usize) -> Guidance<'static> {
    Guidance { reward: Some(&parts().1[reward]), value: Some(&values()[value]) }
}

pub fn run_cd(value: usize, prompt: &[u32], settings: &Settings) -> (Generation, Vec<Step>) {
    let mut steps = Steps::default();
    let settings = Settings { method: Method::Cd, ..settings.clone() };
    let answer = generate(&parts().0, guidance(0, value), prompt, "p", &settings, &mut steps).unwrap();
    (answer, steps.0)
}

#[derive(Default)]
pub struct Steps(pub Vec<Step>);

impl Watch for Steps {
    fn step(&mut self, _: usize, _: usize, step: &Step, _: &str) {
        self.0.push(step.clone());
    }
}

pub fn run(reward: usize, prompt: &[u32], settings: &Settings) -> (Generation, Vec<Step>) {
    let (policy, rewards) = parts();
    let mut steps = Steps::default();
    let answer = generate(policy, Some(&rewards[reward]), prompt, "p", settings, &mut steps).unwrap();
    (answer, steps.0)
}

pub fn settings() -> impl Strategy<Value = Settings> {
    let rule = prop::sample::select(Rule::ALL.to_vec());
    let budget = prop::sample::select(Budget::ALL.to_vec());
    (rule, budget, 0.01..3.0f64, 0.01..3.0f64, 0.1..4.0f64, 1..12usize).prop_map(
        |(rule, budget, strength, bound, alpha, candidates)| Settings {
            shaping: Shaping { rule, budget, strength, bound, alpha, cap: bound, ..Shaping::default() },
            candidates,
            max_new_tokens: 10,
            no_eos: true,
            ..Settings::default()
        },
    )
}

pub fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(7),
        ..ProptestConfig::default()
    }
}

/// What several texts at once are handed to.
#[derive(Default)]
pub struct Together(pub std::collections::BTreeMap<usize, (Vec<Step>, Option<Generation>)>);

impl Watch for Together {
    fn step(&mut self, job: usize, number: usize, step: &Step, _: &str) {
        let steps = &mut self.0.entry(job).or_default().0;
        assert_eq!(steps.len(), number);
        steps.push(step.clone());
    }

    fn done(&mut self, job: usize, answer: Generation) {
        self.0.entry(job).or_default().1 = Some(answer);
    }
}

pub fn softmax(scores: &[f64]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|s| (s - most).exp()).sum();
    scores.iter().map(|s| (s - most).exp() / total).collect()
}
