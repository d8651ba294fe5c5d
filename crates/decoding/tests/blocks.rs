//! Blockwise decoding and particles: against whole texts, and against the exact follower where it can be enumerated.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::follower::{Counts, PROMPT, chi_square, exact};
use crate::common::{Steps, config, guidance, parts, run, settings, values};
use proptest::prelude::*;
use stackelberg_decoding::{
    Block, Generation, Guidance, Job, Keep, Method, Perturbation, Sampling, Settings, Step, Watch,
    generate, generate_all,
};
use stackelberg_engine::reward::{Question, RewardState, ask};
use stackelberg_shaping::{Rule, Shaping};

/// Settings of both methods.
fn blocks() -> impl Strategy<Value = Settings> {
    let method = prop::sample::select(vec![Method::Blockwise, Method::Particles]);
    let keep = prop::sample::select(Keep::ALL.to_vec());
    (settings(), method, keep, 2..7usize, 1..10usize, 0.3..2.0f64, any::<u64>(), any::<bool>()).prop_map(
        |(base, method, keep, samples, block, temperature, seed, no_eos)| Settings {
            method,
            keep,
            samples,
            block,
            seed,
            no_eos,
            sampling: Sampling { temperature, ..Sampling::default() },
            ..base
        },
    )
}

/// The blocks of an answer: of each the number of the step that it begins with, and the index of the text's own.
fn blocks_of(steps: &[Step]) -> Vec<(usize, Arc<Block>, usize)> {
    let block = |(number, step): (usize, &Step)| Some((number, step.block.clone()?, step.continuation?));
    steps.iter().enumerate().filter_map(block).collect()
}

fn with_value(value: usize, settings: &Settings) -> (Generation, Vec<Step>) {
    let mut steps = Steps::default();
    let answer = generate(&parts().0, guidance(0, value), &PROMPT, "p", settings, &mut steps).unwrap();
    (answer, steps.0)
}

proptest! {
    #![proptest_config(config(60))]

    /// Every block is what it says: continuations of one text, the scores of whole texts, and the choice by them.
    #[test]
    fn blocks_are_what_they_say(
        settings in blocks(), reward in 0..3usize, prompt in prop::collection::vec(1..40u32, 1..8),
    ) {
        let (policy, rewards) = parts();
        let (answer, steps) = run(reward, &prompt, &settings);
        let tokens: Vec<u32> = steps.iter().map(|step| step.chosen).collect();
        // A token that ends the answer is not part of it.
        prop_assert!(tokens.starts_with(&answer.tokens) && tokens.len() <= answer.tokens.len() + 1);
        let found = blocks_of(&steps);
        prop_assert_eq!(found.len(), steps.len().div_ceil(settings.block));
        for (i, (start, block, own)) in found.iter().enumerate() {
            prop_assert_eq!(*start, i * settings.block);
            prop_assert_eq!(block.continuations.len(), settings.samples);
            prop_assert!((block.weights.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            let end = found.get(i + 1).map_or(steps.len(), |(next, ..)| *next);
            prop_assert_eq!(&block.continuations[*own], &tokens[*start..end]);
            let blockwise = settings.method == Method::Blockwise;
            for (m, (continuation, score)) in block.continuations.iter().zip(&block.scores).enumerate() {
                prop_assert!(continuation.len() <= settings.block);
                // Of particles the texts before the block differ: only the text's own is known here.
                if blockwise || m == *own {
                    let kept = match policy.eos.contains(continuation.last().unwrap()) && !settings.no_eos {
                        true => &continuation[..continuation.len() - 1],
                        false => continuation,
                    };
                    let whole = [&prompt[..], &tokens[..*start], kept].concat();
                    prop_assert_eq!(*score, rewards[reward].of_tokens(policy, &whole).unwrap());
                }
            }
            if blockwise && settings.keep == Keep::Best {
                let most = block.scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                prop_assert_eq!(block.scores[*own], most);
                prop_assert_eq!(block.weights[*own], 1.0);
            }
        }
        let text = [&prompt[..], &answer.tokens].concat();
        prop_assert_eq!(answer.reward.unwrap(), rewards[reward].of_tokens(policy, &text).unwrap());
        // Every token is run at most once. Particles may go on after the chosen one has ended.
        prop_assert!(answer.tokens_run <= settings.samples * settings.max_new_tokens);
        prop_assert!(answer.tokens_run + settings.samples >= answer.tokens_scored);
        let (m, n) = (settings.samples as f64, found.len() as f64);
        match (settings.method, settings.keep) {
            (Method::Blockwise, Keep::Best) => {
                prop_assert!((answer.kl.unwrap() - n * (m.ln() - (m - 1.0) / m)).abs() < 1e-9);
            }
            _ => prop_assert!((0.0..=n * m.ln() + 1e-9).contains(&answer.kl.unwrap())),
        }
    }

    /// Where values score, finished answers are chosen among by their rewards.
    #[test]
    fn the_last_choice_is_by_the_reward(settings in blocks(), value in 0..2usize) {
        let settings = Settings { method: Method::Blockwise, keep: Keep::Best, ..settings };
        let (policy, rewards) = parts();
        let (answer, steps) = with_value(value, &settings);
        let found = blocks_of(&steps);
        let tokens: Vec<u32> = steps.iter().map(|step| step.chosen).collect();
        for (i, (start, block, own)) in found.iter().enumerate() {
            let most = block.scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            if i + 1 < found.len() {
                prop_assert_eq!(block.scores[*own], most);
                continue;
            }
            // The continuations that end the answer; the best value is one of theirs.
            let ends = |continuation: &[u32]| {
                let eos = !settings.no_eos && policy.eos.contains(continuation.last().unwrap());
                (eos || start + continuation.len() == settings.max_new_tokens, eos)
            };
            let mut rewarded = Vec::new();
            for (continuation, score) in block.continuations.iter().zip(&block.scores) {
                let (ended, eos) = ends(continuation);
                if ended {
                    let kept = &continuation[..continuation.len() - usize::from(eos)];
                    let whole = [&PROMPT[..], &tokens[..*start], kept].concat();
                    rewarded.push((*score, rewards[0].of_tokens(policy, &whole).unwrap()));
                }
            }
            prop_assert!(rewarded.iter().any(|(value, _)| *value == most));
            let best = rewarded.iter().map(|(_, reward)| *reward).fold(f64::NEG_INFINITY, f64::max);
            prop_assert_eq!(answer.reward, Some(best));
        }
    }
}

/// Scores of blocks are those of the value head, at the last tokens of the texts.
#[test]
fn values_score_blocks() {
    let settings = Settings {
        method: Method::Blockwise,
        samples: 3,
        block: 2,
        max_new_tokens: 6,
        no_eos: true,
        sampling: Sampling { temperature: 1.0, ..Sampling::default() },
        ..Settings::default()
    };
    let policy = &parts().0;
    let (answer, steps) = with_value(0, &settings);
    let tokens: Vec<u32> = steps.iter().map(|step| step.chosen).collect();
    for (start, block, _) in blocks_of(&steps) {
        for (continuation, score) in block.continuations.iter().zip(&block.scores) {
            let text = [&PROMPT[..], &tokens[..start], continuation].concat();
            let (_, hidden) = policy.model.prefill(&text).unwrap();
            let last = hidden.narrow(0, text.len() - 1, 1).unwrap();
            let mut state = RewardState::Value(values()[0].clone());
            let candidates = [*continuation.last().unwrap()];
            let mut question = [Question {
                state: &mut state,
                candidates: &candidates,
                further: &[],
                ahead: Some(&last),
            }];
            let value = ask(&mut question).remove(0).unwrap()[0];
            assert_eq!(*score, value);
        }
    }
    assert_eq!((answer.tokens_run, answer.tokens_scored, answer.reward_calls), (18, 36, 12));
}

/// With many particles, both methods draw from the follower; with the strength of another follower, the test would notice.
#[test]
fn many_texts_draw_from_the_follower() {
    let strength = 0.5;
    let shaping = Shaping { rule: Rule::Raw, strength, ..Shaping::default() };
    let base = Settings {
        keep: Keep::Draw,
        shaping,
        samples: 64,
        max_new_tokens: 3,
        no_eos: true,
        sampling: Sampling { temperature: 1.0, top_k: 3, ..Sampling::default() },
        ..Settings::default()
    };
    let ids: Vec<String> = (0..1500).map(|i| i.to_string()).collect();
    let jobs: Vec<Job<'_>> = ids.iter().map(|id| Job { id, prompt: &PROMPT, asked: None }).collect();
    let guidance: Guidance<'_> = Some(&parts().1[0]).into();
    for (method, block) in [(Method::Blockwise, 3), (Method::Particles, 1), (Method::Particles, 2)] {
        let settings = Settings { method, block, ..base.clone() };
        let mut counts = Counts::default();
        generate_all(&parts().0, guidance, &jobs, &settings, 16, &mut counts).unwrap();
        let (square, freedom) = chi_square(&counts.0, &exact(strength));
        let limit = freedom + 4.0 * (2.0 * freedom).sqrt();
        assert!(square < limit, "{method} {block}: {square} of {freedom}");
        let (square, freedom) = chi_square(&counts.0, &exact(0.0));
        assert!(square > 2.0 * limit, "{method} {block}: {square} of {freedom} for the base policy");
    }
}

/// One block as long as the answer, of which the best is kept, is best-of-n.
#[test]
fn one_block_is_best_of_n() {
    let mean = |method, block| {
        let settings = Settings {
            method,
            block,
            samples: 4,
            max_new_tokens: 6,
            no_eos: true,
            sampling: Sampling { temperature: 1.0, ..Sampling::default() },
            ..Settings::default()
        };
        let ids: Vec<String> = (0..400).map(|i| i.to_string()).collect();
        let jobs: Vec<Job<'_>> = ids.iter().map(|id| Job { id, prompt: &PROMPT, asked: None }).collect();
        let mut rewards = Rewards::default();
        generate_all(&parts().0, Some(&parts().1[0]), &jobs, &settings, 16, &mut rewards).unwrap();
        let n = rewards.0.len() as f64;
        let mean = rewards.0.iter().sum::<f64>() / n;
        let variance = rewards.0.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / n;
        (mean, (variance / n).sqrt())
    };
    let (one, best, base) =
        (mean(Method::Blockwise, 6), mean(Method::BestOfN, 16), mean(Method::Base, 16));
    let error = |a: (f64, f64), b: (f64, f64)| a.1.hypot(b.1);
    assert!((one.0 - best.0).abs() < 3.0 * error(one, best), "{one:?} {best:?}");
    assert!(one.0 - base.0 > 6.0 * error(one, base), "{one:?} {base:?}");
}

/// Where drawing may stop early, no price that is ever paid is the same as all samples, and a price too high stops after the
/// first round. Any price in between draws some rounds, and the answer is the best of those.
#[test]
fn drawing_stops_where_one_more_is_not_worth_its_tokens() {
    let answer = |method, samples, token_price, seed| {
        let settings = Settings {
            method,
            samples,
            token_price,
            seed,
            block: 3,
            max_new_tokens: 6,
            no_eos: true,
            sampling: Sampling { temperature: 1.0, ..Sampling::default() },
            ..Settings::default()
        };
        run(0, &PROMPT, &settings)
    };
    let mut stopped = [0; 2];
    for seed in 0..20 {
        let (all, _) = answer(Method::BestOfN, 14, 0.0, seed);
        let (none_saved, _) = answer(Method::BestOfN, 14, 1e-12, seed);
        assert_eq!((&all.tokens, all.reward), (&none_saved.tokens, none_saved.reward));
        assert_eq!((none_saved.tokens_run, none_saved.tokens_saved), (14 * 6, 0));
        assert_eq!((none_saved.tokens_scored, none_saved.reward_calls), (14 * 6, 14));
        assert!((none_saved.kl.unwrap() - 14.0f64.ln()).abs() < 1e-12);
        // The samples are numbered, so the first ones are those of a smaller number.
        let (first, _) = answer(Method::BestOfN, 14, 1e9, seed);
        let (four, _) = answer(Method::BestOfN, 4, 0.0, seed);
        assert_eq!((&first.tokens, first.reward), (&four.tokens, four.reward));
        assert_eq!((first.tokens_run, first.tokens_saved), (4 * 6, 10 * 6));
        assert!(first.reward_lost > 0.0);
        assert!((first.kl.unwrap() - (14.0f64.ln() - 1.0 + 4.0 / 14.0)).abs() < 1e-12);
        let (some, _) = answer(Method::BestOfN, 14, 0.01, seed);
        let drawn = some.tokens_run / 6;
        assert!(matches!(drawn, 4 | 8 | 12 | 14), "{drawn}");
        let (same, _) = answer(Method::BestOfN, drawn, 0.0, seed);
        assert_eq!((&some.tokens, some.reward), (&same.tokens, same.reward));
        stopped[0] += usize::from(drawn < 14);

        let (blocks, steps) = answer(Method::Blockwise, 6, 1e-12, seed);
        assert_eq!((blocks.tokens_run, blocks.tokens_saved), (2 * 6 * 3, 0));
        assert!(blocks_of(&steps).iter().all(|(_, block, _)| block.continuations.len() == 6));
        let (cheap, steps) = answer(Method::Blockwise, 6, 1e9, seed);
        assert_eq!((cheap.tokens_run, cheap.tokens_saved), (2 * 4 * 3, 2 * 2 * 3));
        for (_, block, chosen) in blocks_of(&steps) {
            assert_eq!((block.continuations.len(), block.scores.len(), block.weights.len()), (4, 4, 4));
            assert!(block.scores.iter().all(|score| *score <= block.scores[chosen]));
        }
        let two_blocks = 2.0 * (6.0f64.ln() - 1.0 + 4.0 / 6.0);
        assert!((cheap.kl.unwrap() - two_blocks).abs() < 1e-12);
        let (some, steps) = answer(Method::Blockwise, 6, 0.05, seed);
        let drawn =
            blocks_of(&steps).iter().map(|(_, block, _)| block.continuations.len()).sum::<usize>();
        assert_eq!(some.tokens_run, 3 * drawn);
        stopped[1] += usize::from(drawn < 12);
    }
    assert!(stopped.iter().all(|stopped| (1..20).contains(stopped)), "{stopped:?}");
}

/// How many samples are drawn does not depend on what else is decoded.
#[test]
fn stopping_is_batch_invariant() {
    for method in [Method::BestOfN, Method::Blockwise] {
        let settings = Settings {
            method,
            samples: 9,
            token_price: 0.01,
            block: 3,
            max_new_tokens: 6,
            sampling: Sampling { temperature: 1.0, ..Sampling::default() },
            ..Settings::default()
        };
        let ids: Vec<String> = (0..12).map(|i| i.to_string()).collect();
        let jobs: Vec<Job<'_>> = ids.iter().map(|id| Job { id, prompt: &PROMPT, asked: None }).collect();
        let answers = |at_once| {
            let mut answers = Answers::default();
            generate_all(&parts().0, Some(&parts().1[0]), &jobs, &settings, at_once, &mut answers)
                .unwrap();
            answers.0
        };
        let alone = answers(1);
        assert_eq!(alone, answers(32));
        let runs: Vec<usize> = alone.values().map(|(_, run)| *run).collect();
        assert!(runs.iter().any(|run| *run != runs[0]), "{runs:?}");
    }
}

/// Of each job the tokens of its answer, and how many were run for it.
#[derive(Default)]
struct Answers(BTreeMap<usize, (Vec<u32>, usize)>);

impl Watch for Answers {
    fn watches(&self) -> bool {
        false
    }

    fn done(&mut self, job: usize, answer: Generation) {
        self.0.insert(job, (answer.tokens, answer.tokens_run));
    }
}

#[derive(Default)]
struct Rewards(Vec<f64>);

impl Watch for Rewards {
    fn watches(&self) -> bool {
        false
    }

    fn done(&mut self, _: usize, answer: Generation) {
        self.0.push(answer.reward.unwrap());
    }
}

#[test]
fn bad_settings_are_named() {
    let said = |change: fn(&mut Settings)| {
        let mut settings = Settings::new(Method::Blockwise);
        change(&mut settings);
        settings.check(usize::MAX).map_or_else(|error| error.to_string(), |()| String::new())
    };
    assert_eq!(said(|_| ()), "");
    for m in [0, 1] {
        let error = match m {
            0 => said(|s| s.samples = 0),
            _ => said(|s| s.samples = 1),
        };
        assert_eq!(error, format!("samples is {m}: it must be at least 2 with blockwise and particles"));
    }
    assert_eq!(said(|s| s.block = 0), "block is 0: it must be at least 1");
    assert_eq!(
        said(|s| s.block = 129),
        "block is 129: it must be at most the maximum number of new tokens"
    );
    assert_eq!(said(|s| s.samples = 1025), "samples is 1025: it must be at most 1024");
    assert!(said(|s| s.sampling.temperature = 0.0).starts_with("temperature is 0: it must be above 0"));
}

/// Perturbed scores choose; the record has the true reward.
#[test]
fn perturbation_leaves_the_record_alone() {
    let (policy, rewards) = parts();
    for method in [Method::Blockwise, Method::Particles] {
        let mut settings = Settings { block: 3, max_new_tokens: 9, samples: 4, ..Settings::new(method) };
        settings.perturbation = Perturbation::Reversed;
        settings.no_eos = true;
        let (answer, steps) = run(0, &PROMPT, &settings);
        let text = [&PROMPT[..], &answer.tokens].concat();
        assert_eq!(answer.reward.unwrap(), rewards[0].of_tokens(policy, &text).unwrap());
        if method == Method::Blockwise {
            for (_, block, own) in blocks_of(&steps) {
                let least = block.scores.iter().copied().fold(f64::INFINITY, f64::min);
                assert_eq!(block.scores[own], least);
            }
        }
    }
}
