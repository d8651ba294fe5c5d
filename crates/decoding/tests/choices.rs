//! What the trace of methods that choose among whole answers says of all of them.

use proptest::prelude::*;
use stackelberg_decoding::{Method, Perturbation, Sampling, Settings, Step};

use crate::common::{config, parts, run, settings, softmax};

/// Settings of the methods that choose among whole answers. Best-of-n may stop drawing early.
fn choosing() -> impl Strategy<Value = Settings> {
    let method = prop::sample::select(vec![Method::BestOfN, Method::SoftBestOfN, Method::Follower]);
    let price = prop_oneof![Just(0.0), Just(0.01), Just(1e9)];
    (settings(), method, 2..11usize, price, 0.3..2.0f64, any::<u64>(), any::<bool>()).prop_map(
        |(base, method, samples, token_price, temperature, seed, no_eos)| Settings {
            method,
            samples,
            token_price,
            seed,
            no_eos,
            sampling: Sampling { temperature, ..Sampling::default() },
            ..base
        },
    )
}

proptest! {
    #![proptest_config(config(60))]

    /// The first step has all samples: their tokens, their rewards, their probabilities and which one is the answer.
    #[test]
    fn the_first_step_has_all_samples(
        settings in choosing(), reward in 0..3usize, prompt in prop::collection::vec(1..40u32, 1..8),
    ) {
        let (policy, rewards) = parts();
        let (answer, steps) = run(reward, &prompt, &settings);
        let (block, chosen) = (steps[0].block.as_ref().unwrap(), steps[0].continuation.unwrap());
        prop_assert!(steps[1..].iter().all(|step| step.block.is_none() && step.continuation.is_none()));
        let drawn = answer.reward_calls;
        prop_assert!(settings.token_price > 0.0 || drawn == settings.samples);
        prop_assert_eq!([block.continuations.len(), block.scores.len(), block.weights.len()], [drawn; 3]);
        prop_assert_eq!(&block.continuations[chosen], &answer.tokens);
        prop_assert_eq!(Some(block.scores[chosen]), answer.reward);
        for (tokens, score) in block.continuations.iter().zip(&block.scores) {
            let whole = [&prompt[..], tokens].concat();
            prop_assert_eq!(*score, rewards[reward].of_tokens(policy, &whole).unwrap());
        }
        // A sample is the one answer of the base policy under its number: the first one has the prompt's own stream.
        let base = Settings { method: Method::Base, ..settings.clone() };
        prop_assert_eq!(&block.continuations[0], &run(reward, &prompt, &base).0.tokens);
        prop_assert!((block.weights.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        let most = block.scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        match settings.method {
            Method::BestOfN => {
                prop_assert_eq!((block.scores[chosen], block.weights[chosen]), (most, 1.0));
                prop_assert!(block.shaped.is_none() && block.threshold.is_none() && block.bound.is_none());
            }
            method => {
                let shaped = block.shaped.as_ref().unwrap();
                if method == Method::SoftBestOfN {
                    prop_assert_eq!(shaped, &block.scores);
                }
                // Weights of answers are increasing in their shaped rewards.
                for (a, b) in [(0, chosen), (chosen, 0), (drawn - 1, 0)] {
                    prop_assert!(shaped[a] <= shaped[b] + 1e-12 || block.weights[a] >= block.weights[b]);
                }
            }
        }
    }
}

fn soft(strength: f64, perturbation: Perturbation, method: Method) -> Step {
    let mut settings = Settings { samples: 6, perturbation, ..Settings::new(method) };
    (settings.max_new_tokens, settings.no_eos, settings.sampling.temperature) = (5, true, 1.0);
    settings.shaping.strength = strength;
    run(0, &[4, 9], &settings).1.swap_remove(0)
}

/// The probabilities of soft-best-of-n are the softmax of strength times reward.
#[test]
fn weights_are_the_probabilities_of_the_draw() {
    let step = soft(1.7, Perturbation::None, Method::SoftBestOfN);
    let block = step.block.unwrap();
    let expected = softmax(&block.scores.iter().map(|score| 1.7 * score).collect::<Vec<_>>());
    for (weight, expected) in block.weights.iter().zip(expected) {
        assert!((weight - expected).abs() < 1e-9, "{:?}", block.weights);
    }
}

/// Perturbed rewards choose; the trace has the true ones.
#[test]
fn the_rewards_of_the_trace_are_not_perturbed() {
    let (best, worst) = (
        soft(1.0, Perturbation::None, Method::BestOfN),
        soft(1.0, Perturbation::Reversed, Method::BestOfN),
    );
    let (all, chosen) = (best.block.unwrap(), worst.continuation.unwrap());
    let least = all.scores.iter().copied().fold(f64::INFINITY, f64::min);
    let worst = worst.block.unwrap();
    assert_eq!((&worst.scores, worst.scores[chosen], worst.weights[chosen]), (&all.scores, least, 1.0));
}
