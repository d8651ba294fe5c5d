//! What is said of single tokens: biases, penalties, least lengths, stop tokens and log-probabilities.

use std::collections::BTreeMap;

use proptest::prelude::*;
use stackelberg_decoding::{Finish, Generation, Method, Sampling, Settings, Step, StoppedBy, generate};
use stackelberg_engine::kernel;

use crate::common::{Steps, config, guidance, parts};

const PROMPT: [u32; 3] = [5, 9, 14];

fn settings(method: Method) -> Settings {
    let mut settings = Settings { max_new_tokens: 12, candidates: 4, seed: 3, ..Settings::new(method) };
    settings.samples = settings.samples.min(3);
    settings.block = 4;
    settings
}

fn run(settings: &Settings) -> (Generation, Vec<Step>) {
    let mut steps = Steps::default();
    let answer = generate(&parts().0, guidance(0, 0), &PROMPT, "p", settings, &mut steps);
    (answer.unwrap(), steps.0)
}

/// Log-probabilities of the token after these.
fn log_probs(tokens: &[u32]) -> Vec<f64> {
    let policy = &parts().0;
    let (_, hidden) = policy.model.prefill(tokens).unwrap();
    let logits = policy.model.logits(&hidden.narrow(0, tokens.len() - 1, 1).unwrap()).unwrap();
    let logits = logits.to_vec2::<f32>().unwrap().remove(0);
    let z = kernel::log_sum_exp(&logits);
    logits.into_iter().map(|logit| f64::from(logit) - z).collect()
}

proptest! {
    #![proptest_config(config(40))]

    /// Log-probabilities are the base policy's, whatever is added to logits and whatever guides.
    #[test]
    fn log_probabilities_are_the_models(
        method in prop::sample::select(Method::ALL.to_vec()), count in 0..45usize, penalty in -2.0..2.0f64,
        bias in -5.0..5.0f64, token in 0..40u32, seed in 0..9u64,
    ) {
        let mut settings = Settings { seed, log_probs: count, no_eos: true, ..settings(method) };
        settings.logit_bias = BTreeMap::from([(token, bias)]);
        settings.sampling.frequency_penalty = penalty;
        settings.sampling.temperature = 0.9;
        let (_, steps) = run(&settings);
        prop_assert_eq!(steps.len(), 12);
        let mut before = PROMPT.to_vec();
        for step in steps {
            let all = log_probs(&before);
            prop_assert_eq!(step.log_prob, all[step.chosen as usize]);
            prop_assert_eq!(step.log_probs.len(), count.min(40));
            let mut sorted = all.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            for ((token, log_prob), expected) in step.log_probs.iter().zip(sorted) {
                prop_assert_eq!((*log_prob, *log_prob), (expected, all[*token as usize]));
            }
            before.push(step.chosen);
        }
    }
}

#[test]
fn a_bias_decides_with_every_method() {
    for method in Method::ALL {
        let mut one = Settings { logit_bias: BTreeMap::from([(7, 100.0)]), ..settings(method) };
        // A value cannot outweigh it.
        one.policy_temperature = 1.0;
        assert_eq!(run(&one).0.tokens, [7; 12], "{method}");
        let likeliest = run(&settings(method)).1[0].chosen;
        let banned = Settings { logit_bias: BTreeMap::from([(likeliest, -100.0)]), ..settings(method) };
        assert!(!run(&banned).0.tokens.contains(&likeliest), "{method}");
    }
}

#[test]
fn nothing_ends_an_answer_that_is_too_short() {
    for method in Method::ALL {
        // The ends are the likeliest tokens by far, and the first candidates.
        let logit_bias = BTreeMap::from([(2, 100.0), (3, 10.0), (8, 50.0)]);
        let ends = Settings { logit_bias, stop_tokens: vec![8], ..settings(method) };
        let (answer, _) = run(&ends);
        assert_eq!(
            (answer.tokens.len(), answer.finish, &answer.stopped_by),
            (0, Finish::Stop, &None),
            "{method}"
        );
        let later = Settings { min_tokens: 5, ..ends.clone() };
        let (answer, steps) = run(&later);
        assert_eq!((answer.tokens.len(), steps.len()), (5, 6), "{method}");
        assert!(!answer.tokens.iter().any(|token| [2, 3, 8].contains(token)), "{method}");
        // Without ends of its own, the model's are ordinary tokens; stop tokens are not.
        let (answer, _) = run(&Settings { no_eos: true, ..later });
        assert_eq!(answer.tokens, [2; 12], "{method}");
    }
    // Where every token is an end, one of them is chosen.
    let all = Settings { stop_tokens: (0..40).collect(), min_tokens: 2, ..settings(Method::Args) };
    assert_eq!(run(&all).1.len(), 1);
}

#[test]
fn stop_tokens_end_an_answer() {
    // A value head scores a token that ends the answer by the text before it, so cd may choose others.
    for method in [Method::Base, Method::Args] {
        let plain = Settings { no_eos: true, ..settings(method) };
        let tokens = run(&plain).0.tokens;
        let at = (1..12).find(|&i| !tokens[..i].contains(&tokens[i])).unwrap();
        let stops = Settings { stop_tokens: vec![tokens[at]], ..plain.clone() };
        let (answer, steps) = run(&stops);
        assert_eq!(
            (answer.finish, answer.stopped_by),
            (Finish::Stop, Some(StoppedBy::Token(tokens[at])))
        );
        assert_eq!((&answer.tokens[..], steps.len()), (&tokens[..at], at + 1));
        let (answer, _) = run(&Settings { include_stop: true, ..stops });
        assert_eq!((&answer.tokens[..], answer.finish), (&tokens[..=at], Finish::Stop));
        let decode = |tokens: &[u32]| parts().0.tokenizer.decode(tokens, false).unwrap();
        assert_eq!(answer.text, decode(&tokens[..=at]));
        // A stop text, alone and as part of the answer.
        let stop = format!("w{}", tokens[at]);
        let text = decode(&tokens);
        let stops = Settings { stop: vec![stop.clone()], ..plain };
        let (answer, _) = run(&stops);
        let end = text.find(&stop).unwrap();
        assert_eq!(
            (&answer.text[..], answer.stopped_by),
            (&text[..end], Some(StoppedBy::Text(stop.clone())))
        );
        let (answer, _) = run(&Settings { include_stop: true, ..stops });
        assert_eq!(answer.text, text[..end + stop.len()]);
    }
}

#[test]
fn settings_of_tokens_have_ranges() {
    let mut wrong = vec![];
    for change in [
        |s: &mut Settings| s.logit_bias = BTreeMap::from([(40, 1.0)]),
        |s: &mut Settings| s.logit_bias = BTreeMap::from([(1, 100.5)]),
        |s: &mut Settings| s.logit_bias = BTreeMap::from([(1, f64::NAN)]),
        |s: &mut Settings| s.stop_tokens = vec![40],
        |s: &mut Settings| s.min_tokens = 13,
        |s: &mut Settings| s.sampling = Sampling { presence_penalty: 2.5, ..Sampling::default() },
        |s: &mut Settings| s.sampling = Sampling { frequency_penalty: f64::NAN, ..Sampling::default() },
        |s: &mut Settings| s.log_probs = 5000,
    ] {
        let mut settings = settings(Method::Base);
        change(&mut settings);
        wrong.push(settings.check(40).expect_err("it is out of range").to_string());
    }
    let names =
        ["logit-bias", "logit-bias", "logit-bias", "stop-tokens", "min-tokens", "presence-penalty"];
    for (name, said) in names.iter().chain(&["frequency-penalty", "log-probs"]).zip(wrong) {
        assert!(said.starts_with(&format!("{name} is ")), "{said}");
    }
}
