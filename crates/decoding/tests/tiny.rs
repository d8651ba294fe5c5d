//! What decoding promises of any model and any reward, on tiny random ones.

#[path = "../../engine/tests/common/tiny.rs"]
mod tiny;

use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::json;
use stackelberg_decoding::{
    Generation, Guidance, Job, Method, Settings, Step, Watch, generate, generate_all,
};
use stackelberg_engine::reward::ValueHead;
use stackelberg_engine::{Checkpoint, Dtype, Reward};
use stackelberg_shaping::{Budget, Rule, Shaping};
use tiny::{D, Tiny};

/// A policy, a reward model and a head.
fn parts() -> &'static (Checkpoint, [Reward; 2]) {
    static PARTS: OnceLock<(Checkpoint, [Reward; 2])> = OnceLock::new();
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
        let rewards = [load("head.safetensors"), load("reward")];
        (policy, rewards)
    })
}

/// Value heads: as it comes, and clamped to a bound.
fn values() -> &'static [ValueHead; 2] {
    static VALUES: OnceLock<[ValueHead; 2]> = OnceLock::new();
    VALUES.get_or_init(|| {
        let layer = |inputs: usize, outputs: usize| {
            let wave = |i: usize| (i as f32 * 1.7 + inputs as f32).sin();
            ((0..inputs * outputs).map(wave).collect(), (0..outputs).map(wave).collect())
        };
        let head = || ValueHead::new(D, [layer(D, 6), layer(6, 35), layer(35, 1)]);
        let (open, mut bounded) = (head(), head());
        bounded.bound = Some(0.8);
        [open, bounded]
    })
}

/// All that scores; the methods take what they need.
fn guidance(reward: usize, value: usize) -> Guidance<'static> {
    Guidance { reward: Some(&parts().1[reward]), value: Some(&values()[value]) }
}

fn run_cd(value: usize, prompt: &[u32], settings: &Settings) -> (Generation, Vec<Step>) {
    let mut steps = Steps::default();
    let settings = Settings { method: Method::Cd, ..settings.clone() };
    let answer = generate(&parts().0, guidance(0, value), prompt, "p", &settings, &mut steps).unwrap();
    (answer, steps.0)
}

#[derive(Default)]
struct Steps(Vec<Step>);

impl Watch for Steps {
    fn step(&mut self, _: usize, _: usize, step: &Step, _: &str) {
        self.0.push(step.clone());
    }
}

fn run(reward: usize, prompt: &[u32], settings: &Settings) -> (Generation, Vec<Step>) {
    let (policy, rewards) = parts();
    let mut steps = Steps::default();
    let answer = generate(policy, Some(&rewards[reward]), prompt, "p", settings, &mut steps).unwrap();
    (answer, steps.0)
}

fn settings() -> impl Strategy<Value = Settings> {
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

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(7),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(150))]

    /// The lossless skip is lossless, for every rule with a span, with either kind of reward.
    #[test]
    fn skipping_changes_no_token(
        settings in settings(), reward in 0..2usize, prompt in prop::collection::vec(0..40u32, 1..8),
    ) {
        let (with, steps) = run(reward, &prompt, &settings);
        let (without, all) = run(reward, &prompt, &Settings { skip: false, ..settings });
        prop_assert_eq!(&with.tokens, &without.tokens);
        prop_assert_eq!(with.skipped + with.reward_calls, 10);
        prop_assert_eq!((without.skipped, without.reward_calls), (0, 10));
        // Where both asked, both saw the same.
        for (a, b) in steps.iter().zip(&all).filter(|(a, _)| !a.skipped) {
            let (a, b) = (a.rewards.as_ref().unwrap(), b.rewards.as_ref().unwrap());
            prop_assert_eq!(a, b);
        }
    }

    /// The same of controlled decoding with a bounded value head; without a bound nothing is skipped.
    #[test]
    fn skipping_changes_no_token_of_controlled_decoding(
        mut settings in settings(), value in 0..2usize, policy_temperature in 0.2..2.0f64,
        prompt in prop::collection::vec(0..40u32, 1..8),
    ) {
        settings.policy_temperature = policy_temperature;
        let (with, steps) = run_cd(value, &prompt, &settings);
        let (without, all) = run_cd(value, &prompt, &Settings { skip: false, ..settings });
        prop_assert_eq!(&with.tokens, &without.tokens);
        prop_assert_eq!(with.reward, without.reward);
        prop_assert_eq!(with.skipped + with.reward_calls, 10);
        prop_assert!(value == 1 || with.skipped == 0);
        prop_assert_eq!((without.skipped, without.reward_calls), (0, 10));
        for (a, b) in steps.iter().zip(&all).filter(|(a, _)| !a.skipped) {
            prop_assert_eq!(a, b);
        }
    }

    /// Values are those of the whole texts; `log p` is of the whole vocabulary; f is their sum.
    #[test]
    fn a_step_of_controlled_decoding_is_its_equation(
        mut settings in settings(), value in 0..2usize, policy_temperature in 0.2..2.0f64,
        prompt in prop::collection::vec(0..40u32, 1..8),
    ) {
        settings.policy_temperature = policy_temperature;
        settings.skip = false;
        let model = &parts().0.model;
        let (_, steps) = run_cd(value, &prompt, &settings);
        let mut text = prompt;
        for step in steps {
            let hidden = model.prefill(&text).unwrap().1.narrow(0, text.len() - 1, 1).unwrap();
            let logits: Vec<f32> = model.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let scaled: Vec<f64> = logits.iter().map(|&l| f64::from(l) / policy_temperature).collect();
            let masses = softmax(&scaled);
            let found = step.rewards.as_ref().unwrap();
            for (i, &candidate) in step.candidates.iter().enumerate() {
                prop_assert!((step.logits[i] - masses[candidate as usize].ln()).abs() < 1e-5);
                let read = [&text[..], &[candidate]].concat();
                let last = model.prefill(&read).unwrap().1.narrow(0, text.len(), 1).unwrap();
                prop_assert_eq!(found[i], values()[value].score(&last).unwrap()[0]);
                prop_assert_eq!(step.fused[i], step.logits[i] + settings.shaping.strength * found[i]);
            }
            text.push(step.chosen);
        }
    }

    /// Rewards of a step are those of the whole texts.
    #[test]
    fn rewards_are_of_whole_texts(
        settings in settings(), reward in 0..2usize, prompt in prop::collection::vec(0..40u32, 1..8),
    ) {
        let (policy, rewards) = parts();
        let (_, steps) = run(reward, &prompt, &settings);
        let mut text = prompt;
        for step in steps {
            for (&candidate, found) in step.candidates.iter().zip(step.rewards.iter().flatten()) {
                let whole = rewards[reward].of_tokens(&policy.model, &[&text[..], &[candidate]].concat()).unwrap();
                prop_assert_eq!(*found, whole);
            }
            text.push(step.chosen);
        }
    }

    #[test]
    fn no_strength_is_the_base_policy(
        mut settings in settings(), reward in 0..2usize, prompt in prop::collection::vec(0..40u32, 1..8),
    ) {
        settings.shaping.strength = 0.0;
        let (guided, _) = run(reward, &prompt, &settings);
        let (base, _) = run(reward, &prompt, &Settings { method: Method::Base, ..settings.clone() });
        prop_assert_eq!(&guided.tokens, &base.tokens);
        prop_assert_eq!(guided.steered, 0);
        let (cd, _) = run_cd(reward, &prompt, &settings);
        prop_assert_eq!(cd.tokens, base.tokens);
        prop_assert_eq!(cd.steered, 0);
    }

    /// One KL budget per step is kept at every step.
    #[test]
    fn a_kl_budget_is_kept(mut settings in settings(), prompt in prop::collection::vec(0..40u32, 1..8)) {
        settings.kl_budget = Some(0.2);
        let (_, steps) = run(0, &prompt, &settings);
        for step in steps {
            let policy = softmax(&step.fused);
            let base = softmax(&step.logits);
            let kl: f64 = policy.iter().zip(&base).filter(|(w, _)| **w > 0.0).map(|(w, p)| w * (w / p).ln()).sum();
            prop_assert!(kl <= 0.2 + 1e-9, "{kl}");
        }
    }
}

/// What several texts at once are handed to.
#[derive(Default)]
struct Together(std::collections::BTreeMap<usize, (Vec<Step>, Option<Generation>)>);

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

proptest! {
    #![proptest_config(config(80))]

    /// An answer does not depend on which others are written at the same time.
    #[test]
    fn answers_are_the_same_in_company(
        mut settings in settings(),
        method in prop::sample::select(Method::ALL.to_vec()),
        reward in 0..2usize,
        value in 0..2usize,
        temperature in prop::sample::select(vec![0.0, 1.3]),
        prompts in prop::collection::vec(prop::collection::vec(0..40u32, 1..8), 1..6),
        at_once in 1..9usize,
        no_eos: bool,
    ) {
        settings = Settings { method, no_eos, samples: 3, ..settings };
        settings.sampling.temperature = temperature;
        let (policy, rewards) = parts();
        let (guidance, reward) = (guidance(reward, value), &rewards[reward]);
        let ids: Vec<String> = (0..prompts.len()).map(|i| i.to_string()).collect();
        let jobs: Vec<Job<'_>> =
            prompts.iter().zip(&ids).map(|(prompt, id)| Job { id, prompt }).collect();
        let mut together = Together::default();
        generate_all(policy, guidance, &jobs, &settings, at_once, &mut together).unwrap();
        for (i, Job { id, prompt }) in jobs.into_iter().enumerate() {
            let mut steps = Steps::default();
            let alone = generate(policy, guidance, prompt, id, &settings, &mut steps).unwrap();
            let (seen, answer) = together.0.remove(&i).unwrap();
            let answer = answer.unwrap();
            prop_assert_eq!(seen, steps.0);
            prop_assert_eq!(&answer, &Generation { elapsed: answer.elapsed, ..alone });
            // And its reward is that of the whole text.
            let text = [prompt, &answer.tokens].concat();
            prop_assert_eq!(answer.reward, Some(reward.of_tokens(&policy.model, &text).unwrap()));
        }
    }
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|s| (s - most).exp()).sum();
    scores.iter().map(|s| (s - most).exp() / total).collect()
}

#[test]
fn skips_are_frequent_enough_to_mean_something() {
    let shaping = Shaping { rule: Rule::Hard, strength: 0.1, bound: 1.0, ..Shaping::default() };
    let settings = Settings { shaping, max_new_tokens: 30, no_eos: true, ..Settings::default() };
    for reward in 0..2 {
        let (answer, _) = run(reward, &[4, 9], &settings);
        assert!(answer.skipped > 5 && answer.reward_calls > 0, "{} skipped", answer.skipped);
    }
    let (answer, _) = run_cd(1, &[4, 9], &settings);
    assert!(answer.skipped > 5 && answer.reward_calls > 0, "{} skipped", answer.skipped);
}

#[test]
fn a_broken_reward_is_named() {
    let (policy, _) = parts();
    let folder = tempfile::tempdir().unwrap();
    Tiny { labels: Some(1), broken_score: true, ..Tiny::default() }.write(folder.path());
    let reward = Reward::load(folder.path(), policy, Dtype::F32).unwrap();
    let settings = Settings { skip: false, ..Settings::default() };
    let error =
        generate(policy, Some(&reward), &[4, 9], "p", &settings, &mut ()).unwrap_err().to_string();
    assert!(
        error.starts_with("step 0: the reward of candidate ") && error.contains(" is NaN"),
        "{error}"
    );
}

#[test]
fn an_answer_ends_with_the_context() {
    let prompt = vec![7; 396];
    for (method, reward) in
        [(Method::Base, 0), (Method::Args, 0), (Method::Args, 1), (Method::BestOfN, 1)]
    {
        let settings = Settings { method, no_eos: true, samples: 2, skip: false, ..Settings::default() };
        let (answer, _) = run(reward, &prompt, &settings);
        assert_eq!((answer.tokens.len(), answer.finish.name()), (4, "length"), "{method}");
    }
    let (policy, rewards) = parts();
    let full = generate(policy, Some(&rewards[0]), &[7; 400], "p", &Settings::default(), &mut ());
    assert!(full.unwrap_err().to_string().contains("401 tokens do not fit the model's context of 400"));
}

#[test]
fn sampling_without_strength_steers_nothing() {
    let mut settings = Settings { max_new_tokens: 30, no_eos: true, ..Settings::default() };
    settings.sampling.temperature = 1.5;
    settings.shaping.strength = 0.0;
    assert_eq!(run(0, &[4, 9], &settings).0.steered, 0);
    assert_eq!(run_cd(0, &[4, 9], &settings).0.steered, 0);
    settings.shaping.strength = 3.0;
    assert!(run(0, &[4, 9], &settings).0.steered > 0);
    assert!(run_cd(0, &[4, 9], &settings).0.steered > 0);
    assert_eq!(run(0, &[4, 9], &Settings { method: Method::Base, ..settings }).0.steered, 0);
}

/// The follower draws answers as its policy over the samples says, and at no strength evenly.
#[test]
fn the_follower_draws_by_shaped_reward() {
    let (policy, rewards) = parts();
    let shaping = Shaping { rule: Rule::Hard, bound: 2.0, strength: 1.0, ..Shaping::default() };
    let mut settings = Settings { samples: 4, shaping, max_new_tokens: 4, ..Settings::default() };
    settings.sampling.temperature = 1.0;
    let utility = |method, strength| {
        let shaping = Shaping { strength, ..shaping };
        let settings = Settings { method, shaping, ..settings.clone() };
        let ids: Vec<String> = (0..300).map(|i| i.to_string()).collect();
        let jobs: Vec<Job<'_>> = ids.iter().map(|id| Job { id, prompt: &[4, 9] }).collect();
        let mut together = Together::default();
        generate_all(policy, Some(&rewards[0]), &jobs, &settings, 40, &mut together).unwrap();
        let answers = together.0.into_values().filter_map(|(_, answer)| answer?.reward);
        answers.sum::<f64>() / 300.0
    };
    let (base, some) = (utility(Method::Follower, 0.0), utility(Method::Follower, 1.0));
    let (much, best) = (utility(Method::Follower, 50.0), utility(Method::BestOfN, 1.0));
    assert_eq!(base, utility(Method::SoftBestOfN, 0.0));
    assert!(base + 0.05 < some && some + 0.05 < much && much == best, "{base} {some} {much} {best}");
}
