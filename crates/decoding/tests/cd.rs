//! What controlled decoding promises of any model and any value head, on tiny random ones.

use crate::common::{config, parts, run_cd, settings, softmax, values};
use proptest::prelude::*;
use stackelberg_decoding::Settings;

proptest! {
    #![proptest_config(config(150))]

    /// The lossless skip is lossless with a bounded value head; without a bound nothing is skipped.
    #[test]
    fn skipping_changes_no_token(
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

    /// Values are those of the whole texts, without a token that ends them; `log p` is of the whole vocabulary; f is their sum.
    #[test]
    fn a_step_of_controlled_decoding_is_its_equation(
        mut settings in settings(), value in 0..2usize, policy_temperature in 0.2..2.0f64, no_eos: bool,
        prompt in prop::collection::vec(0..40u32, 1..8),
    ) {
        settings = Settings { policy_temperature, no_eos, skip: false, ..settings };
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
                prop_assert_eq!(found[i], value_of(value, &text, candidate, no_eos));
                prop_assert_eq!(step.fused[i], step.logits[i] + settings.shaping.strength * found[i]);
            }
            text.push(step.chosen);
        }
    }

    /// Beams are what they are on whole texts; one of them is greedy decoding.
    #[test]
    fn beams_are_those_of_whole_texts(
        mut settings in settings(), value in 0..2usize, beams in 1..5usize, candidates in 1..5usize,
        length_penalty in prop::sample::select(vec![0.0, 0.7, 1.0]), no_eos: bool,
        prompt in prop::collection::vec(0..40u32, 1..8),
    ) {
        settings = Settings { beams, candidates, length_penalty, no_eos, max_new_tokens: 5, ..settings };
        let (answer, steps) = run_cd(value, &prompt, &settings);
        let written: Vec<u32> = steps.iter().map(|step| step.chosen).collect();
        prop_assert_eq!(&written, &search(&prompt, value, &settings));
        prop_assert!(written.starts_with(&answer.tokens) && written.len() - answer.tokens.len() < 2);
        let text = [prompt, answer.tokens].concat();
        prop_assert_eq!(answer.reward, Some(parts().1[0].of_tokens(&parts().0, &text).unwrap()));
    }
}

#[test]
fn beams_find_other_texts() {
    let settings = Settings { max_new_tokens: 8, no_eos: true, ..Settings::default() };
    let differ = |prompt: &u32| {
        let tokens = |beams| run_cd(0, &[*prompt], &Settings { beams, ..settings.clone() }).0.tokens;
        tokens(1) != tokens(4)
    };
    assert!((0..40).filter(differ).count() > 5);
}

/// The value of a candidate after this text: a token that ends the text is not read.
fn value_of(value: usize, text: &[u32], candidate: u32, no_eos: bool) -> f64 {
    let ends = !no_eos && parts().0.eos.contains(&candidate);
    let read = if ends { text.to_vec() } else { [text, &[candidate]].concat() };
    let (_, hidden) = parts().0.model.prefill(&read).unwrap();
    let last = hidden.narrow(0, read.len() - 1, 1).unwrap();
    values()[value].score(&last).unwrap()[0]
}

/// Beam search that reads every text from its beginning: the tokens of the best.
fn search(prompt: &[u32], value: usize, settings: &Settings) -> Vec<u32> {
    let model = &parts().0.model;
    let strength = settings.shaping.strength;
    let mut live = vec![(0.0, Vec::new())];
    let mut finished: Vec<(f64, Vec<u32>)> = Vec::new();
    while !live.is_empty() {
        let mut next: Vec<(f64, f64, Vec<u32>)> = Vec::new();
        for (log_p, written) in &live {
            let text = [prompt, written].concat();
            let hidden = model.prefill(&text).unwrap().1.narrow(0, text.len() - 1, 1).unwrap();
            let logits: Vec<f32> =
                model.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let scaled: Vec<f64> =
                logits.iter().map(|&l| f64::from(l) / settings.policy_temperature).collect();
            let masses = softmax(&scaled);
            let mut order: Vec<usize> = (0..masses.len()).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            for &token in &order[..settings.candidates] {
                let log_p = log_p + masses[token].ln();
                let promise = strength * value_of(value, &text, token as u32, settings.no_eos);
                next.push((log_p + promise, log_p, [&written[..], &[token as u32]].concat()));
            }
        }
        next.sort_by(|a, b| b.0.total_cmp(&a.0));
        next.truncate(settings.beams - finished.len());
        live.clear();
        for (score, log_p, written) in next {
            let promise = score - log_p;
            let ends = !settings.no_eos && [2, 3].contains(written.last().unwrap());
            match ends || written.len() == settings.max_new_tokens {
                true => {
                    let length = written.len() as f64;
                    finished.push((log_p / length.powf(settings.length_penalty) + promise, written));
                }
                false => live.push((log_p, written)),
            }
        }
    }
    finished.into_iter().reduce(|best, other| if other.0 > best.0 { other } else { best }).unwrap().1
}
