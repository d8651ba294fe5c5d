//! The KL that is reported of an answer, against the whole distributions it stands for; and perturbation.

use crate::common::{config, guidance, parts, run, run_cd, settings, softmax};
use proptest::prelude::*;
use stackelberg_decoding::{Method, Perturbation, Sampling, Settings, Step, generate};

/// KL of the guided distribution over the candidates from the base policy's over the whole vocabulary, both at the
/// sampling temperature: what `kl` and `tail_nll` of a step are the two parts of.
fn whole(prefix: &[u32], step: &Step, temperature: f64) -> f64 {
    let policy = &parts().0;
    let (_, hidden) = policy.model.prefill(prefix).unwrap();
    let last = hidden.narrow(0, prefix.len() - 1, 1).unwrap();
    let logits: Vec<f32> = policy.model.logits(&last).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let scaled = |scores: &[f64], t: f64| softmax(&scores.iter().map(|s| s / t).collect::<Vec<_>>());
    let base = scaled(&logits.iter().map(|&l| f64::from(l)).collect::<Vec<_>>(), temperature);
    let guided = scaled(&step.fused, temperature);
    let term = |(candidate, guided): (&u32, &f64)| guided * (guided / base[*candidate as usize]).ln();
    step.candidates.iter().zip(&guided).map(term).sum()
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn the_two_parts_are_the_whole(
        mut settings in settings(), temperature in 0.3..2.0f64, cd in any::<bool>(),
        prompt in prop::collection::vec(0..40u32, 1..8),
    ) {
        settings.sampling = Sampling { temperature, ..Sampling::default() };
        // Log-probabilities of controlled decoding have a temperature of their own; at 1 the base policies agree.
        settings.policy_temperature = 1.0;
        let (answer, steps) = if cd { run_cd(0, &prompt, &settings) } else { run(0, &prompt, &settings) };
        let (mut text, mut kl, mut tail_nll) = (prompt, 0.0, 0.0);
        for step in &steps {
            let (inside, beyond) = (step.kl.unwrap(), step.tail_nll.unwrap());
            let exact = whole(&text, step, temperature);
            prop_assert!((inside + beyond - exact).abs() < 1e-4 * (1.0 + exact), "{inside} + {beyond}, {exact}");
            let ess = step.ess.unwrap();
            prop_assert!((1.0 - 1e-9..=step.candidates.len() as f64 + 1e-9).contains(&ess));
            kl += inside;
            tail_nll += beyond;
            text.push(step.chosen);
        }
        prop_assert!((answer.kl.unwrap() - kl).abs() < 1e-9 * (1.0 + kl));
        prop_assert!((answer.tail_nll.unwrap() - tail_nll).abs() < 1e-9 * (1.0 + tail_nll));
    }

    /// Greedy guided answers have no KL; their steps have one, at temperature 1, unless they were skipped.
    #[test]
    fn greedy_answers_have_no_kl(
        settings in settings(), cd in any::<bool>(), prompt in prop::collection::vec(0..40u32, 1..8),
    ) {
        let (answer, steps) = if cd { run_cd(0, &prompt, &settings) } else { run(0, &prompt, &settings) };
        prop_assert_eq!(answer.kl, None);
        for step in &steps {
            prop_assert_eq!(step.kl.is_some(), step.rewards.is_some());
        }
        let base = Settings { method: Method::Base, ..settings };
        prop_assert_eq!(run(0, &prompt, &base).0.kl, Some(0.0));
    }

    /// Perturbation disturbs what guides, never what is recorded of the answer, nor what tokens are drawn with.
    #[test]
    fn perturbation_leaves_the_record_alone(
        mut settings in settings(), reward in 0..2usize, prompt in prop::collection::vec(0..40u32, 1..8),
        sampled in any::<bool>(),
    ) {
        settings.sampling.temperature = if sampled { 1.0 } else { 0.0 };
        let (policy, rewards) = parts();
        for perturbation in [Perturbation::Noise(1.0), Perturbation::Random(5.0), Perturbation::Reversed] {
            let perturbed = Settings { perturbation, ..settings.clone() };
            let (answer, steps) = run(reward, &prompt, &perturbed);
            prop_assert_eq!(answer.skipped, 0);
            let text = [&prompt[..], &answer.tokens].concat();
            let exact = rewards[reward].of_tokens(policy, &text).unwrap();
            prop_assert!((answer.reward.unwrap() - exact).abs() < 1e-4, "{:?}, {exact}", answer.reward);
            let (again, same) = run(reward, &prompt, &perturbed);
            prop_assert_eq!((&again.tokens, &same), (&answer.tokens, &steps));
        }
        // Without strength, perturbation changes nothing.
        settings.shaping.strength = 0.0;
        let perturbed = Settings { perturbation: Perturbation::Random(5.0), ..settings.clone() };
        prop_assert_eq!(run(reward, &prompt, &perturbed).0.tokens, run(reward, &prompt, &settings).0.tokens);
    }
}

#[test]
fn methods_that_choose_among_answers() {
    let policy = &parts().0;
    let answer = |method, perturbation| {
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        let settings = Settings {
            method,
            perturbation,
            samples: 8,
            max_new_tokens: 6,
            sampling,
            ..Settings::default()
        };
        generate(policy, guidance(0, 0), &[1, 2, 3], "p", &settings, &mut ()).unwrap()
    };
    let best = answer(Method::BestOfN, Perturbation::None);
    assert!((best.kl.unwrap() - (8.0_f64.ln() - 7.0 / 8.0)).abs() < 1e-12);
    // The best by the reversed ranking is the worst.
    let worst = answer(Method::BestOfN, Perturbation::Reversed);
    assert!(worst.reward < best.reward, "{:?} {:?}", worst.reward, best.reward);
    let follower = answer(Method::Follower, Perturbation::None).kl.unwrap();
    assert!((0.0..=8.0_f64.ln()).contains(&follower));
    assert_eq!(answer(Method::Base, Perturbation::None).kl, Some(0.0));
}
