//! Best-of-n that drops samples, against the same rule applied to all samples of plain best-of-n.

use std::time::Duration;

use proptest::prelude::*;
use stackelberg_decoding::{
    Generation, Guidance, Job, Method, Perturbation, Sampling, Settings, Step, generate, generate_all,
};

use crate::common::{Steps, Together, config, guidance, parts, run, settings};

const PROMPT: [u32; 3] = [4, 9, 17];

/// Settings of best-of-n with blocks, and the fraction that is dropped.
fn rejecting() -> impl Strategy<Value = Settings> {
    let reject = prop_oneof![Just(0.5), Just(0.25), Just(0.9), 0.01..0.99f64];
    let stops = prop::collection::vec(prop::sample::select(vec!["w1 w", "w2", "1 w3", " w", "9"]), 0..2);
    (settings(), reject, 2..12usize, 1..11usize, 0.3..2.0f64, any::<u64>(), any::<bool>(), stops)
        .prop_map(|(base, reject, samples, block, temperature, seed, no_eos, stops)| Settings {
            method: Method::BestOfN,
            reject,
            samples,
            block,
            seed,
            no_eos,
            stop: stops.into_iter().map(str::to_owned).collect(),
            sampling: Sampling { temperature, ..Sampling::default() },
            ..base
        })
}

/// What best-of-n with rejection has to find, from all samples of plain best-of-n.
struct Expected {
    /// Tokens of each sample, to where it was dropped.
    texts: Vec<Vec<u32>>,
    dropped: Vec<bool>,
    scores: Vec<f64>,
    chosen: usize,
    tokens_run: usize,
    tokens_saved: usize,
}

fn expected(reward: usize, prompt: &[u32], settings: &Settings) -> Expected {
    let (policy, rewards) = parts();
    let (plain, steps) = run(reward, prompt, &Settings { reject: 0.0, ..settings.clone() });
    let samples = &steps[0].block.as_ref().unwrap().continuations;
    let of = |text: &[u32]| rewards[reward].of_tokens(policy, &[prompt, text].concat()).unwrap();
    // A token that ended a sample was a step, too.
    let ended = |text: &Vec<u32>| usize::from(text.len() < settings.max_new_tokens);
    let length = |i: usize| samples[i].len() + ended(&samples[i]);
    // A head reads the last token's state; for a reward model, the last token is not run.
    let reads = reward != 1;
    let whole = |i: usize| samples[i].len() - usize::from(!reads && ended(&samples[i]) == 0);
    assert_eq!(plain.tokens_run, (0..samples.len()).map(whole).sum::<usize>());
    let mut cut: Vec<Option<usize>> = vec![None; samples.len()];
    for end in (settings.block..).step_by(settings.block) {
        let under_way = (0..samples.len()).filter(|&i| cut[i].is_none() && length(i) > end);
        let mut ranked: Vec<(f64, usize)> = under_way.map(|i| (of(&samples[i][..end]), i)).collect();
        if ranked.is_empty() {
            break;
        }
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        let drop = (settings.reject * ranked.len() as f64).floor() as usize;
        assert!(drop < ranked.len());
        ranked[..drop].iter().for_each(|&(_, i)| cut[i] = Some(end));
    }
    let texts: Vec<Vec<u32>> =
        (0..samples.len()).map(|i| samples[i][..cut[i].unwrap_or(samples[i].len())].to_vec()).collect();
    let scores: Vec<f64> = texts.iter().map(|text| of(text)).collect();
    let finished: Vec<usize> = (0..samples.len()).filter(|&i| cut[i].is_none()).collect();
    let chosen = finished.iter().copied().reduce(|a, b| if scores[b] > scores[a] { b } else { a });
    let mean = finished.iter().map(|&i| texts[i].len()).sum::<usize>() as f64 / finished.len() as f64;
    let saved: f64 = cut.iter().flatten().map(|&end| (mean - end as f64).max(0.0)).sum();
    Expected {
        dropped: cut.iter().map(Option::is_some).collect(),
        scores,
        chosen: chosen.unwrap(),
        tokens_run: (0..samples.len()).map(|i| cut[i].unwrap_or_else(|| whole(i))).sum(),
        tokens_saved: saved.round() as usize,
        texts,
    }
}

proptest! {
    #![proptest_config(config(80))]

    /// Dropped samples, tokens and the answer are those of the rule, applied to the samples of plain best-of-n.
    #[test]
    fn samples_are_dropped_by_the_rule(
        mut settings in rejecting(), reward in 0..3usize, prompt in prop::collection::vec(1..40u32, 1..8),
    ) {
        // The reference has no tokens of stop texts, which a text under way may have.
        settings.stop.clear();
        let expected = expected(reward, &prompt, &settings);
        let (answer, steps) = run(reward, &prompt, &settings);
        let (block, chosen) = (steps[0].block.as_ref().unwrap(), steps[0].continuation.unwrap());
        prop_assert_eq!(&block.continuations, &expected.texts);
        prop_assert_eq!(&block.scores, &expected.scores);
        prop_assert_eq!(chosen, expected.chosen);
        let certain: Vec<f64> = (0..settings.samples).map(|i| f64::from(u8::from(i == chosen))).collect();
        prop_assert_eq!(&block.weights, &certain);
        prop_assert_eq!(&answer.tokens, &expected.texts[chosen]);
        prop_assert_eq!(answer.reward, Some(expected.scores[chosen]));
        let tokens: Vec<u32> = steps.iter().map(|step| step.chosen).collect();
        prop_assert!(tokens.starts_with(&answer.tokens) && tokens.len() <= answer.tokens.len() + 1);
        prop_assert_eq!(answer.tokens_run, expected.tokens_run);
        prop_assert_eq!(answer.tokens_saved, expected.tokens_saved);
        prop_assert!((answer.kl.unwrap() - (settings.samples as f64).ln()).abs() < 1e-12);
        let finished: Vec<f64> =
            (0..settings.samples).filter(|&i| !expected.dropped[i]).map(|i| expected.scores[i]).collect();
        let differ = finished.iter().any(|score| *score != finished[0]);
        let any = expected.dropped.contains(&true);
        prop_assert_eq!(answer.reward_lost > 0.0, any && differ, "{:?}", answer);
    }

    /// Where nothing is dropped, the answer and all of its steps are those of plain best-of-n.
    #[test]
    fn without_drops_it_is_best_of_n(
        settings in rejecting(), reward in 0..3usize, prompt in prop::collection::vec(1..40u32, 1..8),
    ) {
        let settings = Settings { reject: 1e-9, ..settings };
        let (answer, steps) = run(reward, &prompt, &settings);
        let (plain, plain_steps) = run(reward, &prompt, &Settings { reject: 0.0, ..settings.clone() });
        prop_assert_eq!(steps, plain_steps);
        let bound = Some((settings.samples as f64).ln());
        let Generation { elapsed, kl, reward_calls, tokens_scored, .. } = answer;
        prop_assert!(kl == bound && reward_calls >= plain.reward_calls && tokens_scored >= plain.tokens.len());
        prop_assert_eq!(answer, Generation { elapsed, kl, reward_calls, tokens_scored, ..plain });
    }
}

/// Which samples are dropped does not depend on what else is decoded. A fraction of a half saves tokens.
#[test]
fn rejection_is_batch_invariant() {
    let settings = Settings {
        method: Method::BestOfN,
        samples: 9,
        reject: 0.5,
        block: 2,
        max_new_tokens: 8,
        sampling: Sampling { temperature: 1.0, ..Sampling::default() },
        ..Settings::default()
    };
    let ids: Vec<String> = (0..12).map(|i| i.to_string()).collect();
    let jobs: Vec<Job<'_>> = ids.iter().map(|id| Job { id, prompt: &PROMPT, asked: None }).collect();
    for reward in &parts().1 {
        let answers = |at_once| -> Vec<(Vec<Step>, Generation)> {
            let mut together = Together::default();
            generate_all(&parts().0, Some(reward), &jobs, &settings, at_once, &mut together).unwrap();
            let timeless = |answer| Generation { elapsed: Duration::ZERO, ..answer };
            together.0.into_values().map(|(steps, answer)| (steps, timeless(answer.unwrap()))).collect()
        };
        let alone = answers(1);
        assert_eq!(alone, answers(32));
        assert!(alone.iter().all(|(_, answer)| answer.tokens_saved > 0 && answer.tokens_run < 9 * 8));
        assert!(alone.iter().any(|(_, answer)| answer.tokens_run != alone[0].1.tokens_run));
    }
}

/// A value head changes nothing: samples are dropped by their rewards.
#[test]
fn a_value_head_drops_no_sample() {
    let mut settings = Settings { reject: 0.5, block: 2, samples: 6, ..Settings::new(Method::BestOfN) };
    settings.max_new_tokens = 6;
    let one = |guidance: Guidance<'_>| {
        let mut steps = Steps::default();
        let answer = generate(&parts().0, guidance, &PROMPT, "p", &settings, &mut steps).unwrap();
        (Generation { elapsed: Duration::ZERO, ..answer }, steps.0)
    };
    assert_eq!(one(guidance(0, 1)), one(Some(&parts().1[0]).into()));
}

#[test]
fn bad_settings_are_named() {
    let said = |change: fn(&mut Settings)| {
        let mut settings = Settings { reject: 0.5, ..Settings::new(Method::BestOfN) };
        change(&mut settings);
        settings.check(usize::MAX).map_or_else(|error| error.to_string(), |()| String::new())
    };
    assert_eq!(said(|_| ()), "");
    assert_eq!(said(|s| s.reject = 1.0), "reject is 1: it must be at least 0 and below 1");
    assert_eq!(said(|s| s.reject = -0.1), "reject is -0.1: it must be at least 0 and below 1");
    assert_eq!(said(|s| s.reject = f64::NAN), "reject is NaN: it must be at least 0 and below 1");
    assert_eq!(said(|s| s.token_price = 0.1), "reject is 0.5: it must be 0 with a token price");
    let perturbed = "reject is 0.5: it must be 0 where rewards are perturbed";
    assert_eq!(said(|s| s.perturbation = Perturbation::Reversed), perturbed);
    assert_eq!(said(|s| s.block = 0), "block is 0: it must be at least 1");
    let long = "block is 129: it must be at most the maximum number of new tokens";
    assert_eq!(said(|s| s.block = 129), long);
    assert_eq!(said(|s| s.samples = 1025), "samples is 1025: it must be at most 1024");
    // Without rejection, the length of a block does not matter.
    assert_eq!(said(|s| (s.reject, s.block) = (0.0, 129)), "");
}
