//! What decoding promises of any model and any reward, on tiny random ones.

use std::sync::Arc;

use crate::common::tiny::{D, Tiny};
use crate::common::{Steps, Together, config, guidance, parts, run, run_cd, settings, softmax};
use proptest::prelude::*;
use stackelberg_decoding::{Generation, Job, Method, Settings, generate, generate_all};
use stackelberg_engine::reward::RewardModel;
use stackelberg_engine::{Checkpoint, Dtype, Reward};
use stackelberg_shaping::{Budget, Rule, Shaping};

proptest! {
    #![proptest_config(config(150))]

    /// The lossless skip is lossless, for every rule with a span, with either kind of reward.
    #[test]
    fn skipping_changes_no_token(
        settings in settings(), reward in 0..3usize, prompt in prop::collection::vec(0..40u32, 1..8),
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

    /// The same under a KL budget: no distribution within it could have chosen otherwise.
    #[test]
    fn skipping_under_a_kl_budget_changes_no_token(
        settings in settings(), budget in 0.0005..0.3f64, reward in 0..3usize,
        prompt in prop::collection::vec(0..40u32, 1..8),
    ) {
        let shaping = Shaping { budget: Budget::Paper, ..settings.shaping };
        let settings = Settings { kl_budget: Some(budget), shaping, ..settings };
        let (with, _) = run(reward, &prompt, &settings);
        let (without, _) = run(reward, &prompt, &Settings { skip: false, ..settings });
        prop_assert_eq!(&with.tokens, &without.tokens);
        prop_assert_eq!(with.skipped + with.reward_calls, 10);
        prop_assert_eq!((without.skipped, without.reward_calls), (0, 10));
    }

    /// Rewards of a step are those of the whole texts.
    #[test]
    fn rewards_are_of_whole_texts(
        settings in settings(), reward in 0..3usize, prompt in prop::collection::vec(0..40u32, 1..8),
    ) {
        let (policy, rewards) = parts();
        let (_, steps) = run(reward, &prompt, &settings);
        let mut text = prompt;
        for step in steps {
            for (&candidate, found) in step.candidates.iter().zip(step.rewards.iter().flatten()) {
                let whole = rewards[reward].of_tokens(policy, &[&text[..], &[candidate]].concat()).unwrap();
                prop_assert_eq!(*found, whole);
            }
            text.push(step.chosen);
        }
    }

    #[test]
    fn no_strength_is_the_base_policy(
        mut settings in settings(), reward in 0..3usize, prompt in prop::collection::vec(0..40u32, 1..8),
    ) {
        settings.shaping.strength = 0.0;
        let (guided, _) = run(reward, &prompt, &settings);
        let (base, _) = run(reward, &prompt, &Settings { method: Method::Base, ..settings.clone() });
        prop_assert_eq!(&guided.tokens, &base.tokens);
        prop_assert_eq!(guided.steered, 0);
        let (cd, _) = run_cd(reward % 2, &prompt, &settings);
        prop_assert_eq!(cd.tokens, base.tokens);
        prop_assert_eq!(cd.steered, 0);
    }

    /// One KL budget per step is kept at every step, at the temperature that tokens are drawn at.
    #[test]
    fn a_kl_budget_is_kept(
        mut settings in settings(),
        prompt in prop::collection::vec(0..40u32, 1..8),
        temperature in prop::sample::select(vec![0.0, 0.5, 1.0, 2.0]),
    ) {
        settings.kl_budget = Some(0.2);
        settings.sampling.temperature = temperature;
        let (_, steps) = run(0, &prompt, &settings);
        let drawn_at = if temperature == 0.0 { 1.0 } else { temperature };
        for step in steps {
            let at = |scores: &[f64]| softmax(&scores.iter().map(|s| s / drawn_at).collect::<Vec<_>>());
            let (policy, base) = (at(&step.fused), at(&step.logits));
            let kl: f64 = policy.iter().zip(&base).filter(|(w, _)| **w > 0.0).map(|(w, p)| w * (w / p).ln()).sum();
            prop_assert!(kl <= 0.2 + 1e-9, "{kl}");
        }
    }
}

proptest! {
    #![proptest_config(config(80))]

    /// An answer does not depend on which others are written at the same time.
    #[test]
    fn answers_are_the_same_in_company(
        mut settings in settings(),
        method in prop::sample::select(Method::ALL.to_vec()),
        reward in 0..3usize,
        value in 0..2usize,
        temperature in prop::sample::select(vec![0.0, 1.3]),
        prompts in prop::collection::vec(prop::collection::vec(0..40u32, 1..8), 1..6),
        at_once in 1..9usize,
        no_eos: bool,
    ) {
        settings = Settings { method, no_eos, samples: 3, block: 4, ..settings };
        settings.sampling.temperature = if method.decodes_blocks() { 1.3 } else { temperature };
        let (policy, rewards) = parts();
        let (guidance, reward) = (guidance(reward, value), &rewards[reward]);
        let ids: Vec<String> = (0..prompts.len()).map(|i| i.to_string()).collect();
        let jobs: Vec<Job<'_>> =
            prompts.iter().zip(&ids).map(|(prompt, id)| Job { id, prompt, asked: None }).collect();
        let mut together = Together::default();
        generate_all(policy, guidance, &jobs, &settings, at_once, &mut together).unwrap();
        for (i, Job { id, prompt, .. }) in jobs.into_iter().enumerate() {
            let mut steps = Steps::default();
            let alone = generate(policy, guidance, prompt, id, &settings, &mut steps).unwrap();
            let (seen, answer) = together.0.remove(&i).unwrap();
            let answer = answer.unwrap();
            prop_assert_eq!(seen, steps.0);
            prop_assert_eq!(&answer, &Generation { elapsed: answer.elapsed, ..alone });
            // And its reward is that of the whole text.
            let text = [prompt, &answer.tokens].concat();
            prop_assert_eq!(answer.reward, Some(reward.of_tokens(policy, &text).unwrap()));
        }
    }
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
    // Under a KL budget, too.
    let settings = Settings { kl_budget: Some(0.002), ..settings };
    let (answer, _) = run(0, &[4, 9], &settings);
    assert!(answer.skipped > 5 && answer.reward_calls > 0, "{} skipped", answer.skipped);
}

#[test]
fn a_broken_reward_is_named() {
    let (policy, _) = parts();
    let folder = tempfile::tempdir().unwrap();
    Tiny::default().write(folder.path());
    let checkpoint = Checkpoint::load(folder.path(), Dtype::F32).unwrap();
    let broken = RewardModel::new(checkpoint, vec![f32::NAN; D]).unwrap();
    let reward = Reward::Model(Arc::new(broken));
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
        let jobs: Vec<Job<'_>> = ids.iter().map(|id| Job { id, prompt: &[4, 9], asked: None }).collect();
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

/// More sequences than a page has tokens share the forward passes of a reward model.
#[test]
fn seventy_prompts_at_once_are_what_they_are_alone() {
    let (policy, rewards) = parts();
    let settings = Settings { max_new_tokens: 3, skip: false, candidates: 4, ..Settings::default() };
    let prompts: Vec<Vec<u32>> =
        (0..70u32).map(|i| (0..=i % 5).map(|j| 4 + (7 * i + j) % 35).collect()).collect();
    let ids: Vec<String> = (0..prompts.len()).map(|i| i.to_string()).collect();
    let jobs: Vec<Job<'_>> =
        prompts.iter().zip(&ids).map(|(prompt, id)| Job { id, prompt, asked: None }).collect();
    let mut together = Together::default();
    generate_all(policy, Some(&rewards[1]), &jobs, &settings, 80, &mut together).unwrap();
    assert_eq!(together.0.len(), 70);
    for (i, Job { id, prompt, .. }) in jobs.into_iter().enumerate() {
        let mut steps = Steps::default();
        let alone = generate(policy, Some(&rewards[1]), prompt, id, &settings, &mut steps).unwrap();
        let (seen, answer) = together.0.remove(&i).unwrap();
        let answer = answer.unwrap();
        assert_eq!(seen, steps.0);
        assert_eq!(answer, Generation { elapsed: answer.elapsed, ..alone });
    }
}
