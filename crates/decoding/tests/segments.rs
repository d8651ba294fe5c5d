//! Segments of several tokens are what a slow search finds that reads every text from its beginning.

use std::sync::Arc;
use std::sync::OnceLock;

use crate::common::{Steps, Together, config, parts, settings, softmax, values};
use proptest::prelude::*;
use stackelberg_decoding::{
    Generation, Guidance, Job, Method, Perturbation, Randomness, Settings, Step, generate, generate_all,
};
use stackelberg_engine::reward::{Exchange, PromptInput, RewardFormat, TextReward, TextScorer};
use stackelberg_engine::{Prompt, Reward};
use stackelberg_shaping::{Rule, Samples, Shaping, argmax};

/// A number for every text, as good as random.
struct Hash;

impl TextScorer for Hash {
    fn score(
        &self,
        exchanges: &[Exchange<'_>],
        _: RewardFormat,
    ) -> stackelberg_engine::Result<Vec<f64>> {
        let hash = |text: &str| {
            text.bytes().fold(7u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
        };
        Ok(exchanges.iter().map(|e| (hash(e.answer) >> 40) as f64 / (1 << 23) as f64 - 1.0).collect())
    }

    fn usual_format(&self) -> RewardFormat {
        RewardFormat::Answer
    }
}

/// Guided by a head, a reward model, both at once, what reads text, a value head, a bounded one.
const GUIDES: usize = 6;

fn guidance(guide: usize) -> (Method, Guidance<'static>) {
    static TEXT: OnceLock<Reward> = OnceLock::new();
    let text = || TEXT.get_or_init(|| Reward::Text(Arc::new(TextReward::new(Hash))));
    match guide {
        0..3 => (Method::Args, Some(&parts().1[guide]).into()),
        3 => (Method::Args, Some(text()).into()),
        _ => (Method::Cd, Guidance { reward: Some(text()), value: Some(&values()[guide - 4]) }),
    }
}

fn asked(tokens: &[u32]) -> PromptInput<'_> {
    static PROMPT: OnceLock<Prompt> = OnceLock::new();
    PromptInput { tokens, prompt: Some(PROMPT.get_or_init(|| Prompt::Text("w1".to_owned()))) }
}

fn run(guide: usize, prompt: &[u32], settings: &Settings) -> (Generation, Vec<Step>) {
    let (method, guidance) = guidance(guide);
    let settings = Settings { method, ..settings.clone() };
    let mut steps = Steps::default();
    let answer = generate(&parts().0, guidance, asked(prompt), "p", &settings, &mut steps).unwrap();
    (answer, steps.0)
}

/// One segment as the slow search finds it.
struct Found {
    /// What each candidate becomes, and its reward.
    paths: Vec<Vec<u32>>,
    rewards: Vec<f64>,
    chosen: usize,
}

/// The search, written down plainly: every text is read from its beginning, one after the other.
struct Search<'a> {
    guide: usize,
    prompt: &'a [u32],
    settings: &'a Settings,
}

impl Search<'_> {
    fn segments(&self) -> Vec<Found> {
        let (settings, every) = (self.settings, self.settings.score_every);
        let mut stream = Randomness::new(settings.seed, "p", 0);
        let (mut written, mut found) = (Vec::new(), Vec::new());
        while !self.is_over(&written) {
            let logits = self.logits(&written);
            let candidates = self.likeliest(&logits, settings.candidates);
            let (mut paths, mut streams) = (Vec::new(), Vec::new());
            for &candidate in &candidates {
                let mut stream = if every > 1 { stream.fork() } else { stream.clone() };
                let mut path = vec![candidate];
                let mut text = [&written[..], &path].concat();
                while path.len() < every && !self.is_over(&text) {
                    path.push(self.next(&text, &mut stream));
                    text = [&written[..], &path].concat();
                }
                paths.push(path);
                streams.push(stream);
            }
            let rewards = self.rewards(&written, &paths);
            let fused = self.fused(&logits, &candidates, &rewards);
            let temperature = settings.sampling.temperature;
            let chosen = match temperature {
                0.0 => argmax(&fused).unwrap(),
                _ => draw(&fused, temperature, stream.uniform()),
            };
            if every > 1 {
                stream = streams.swap_remove(chosen);
            }
            written.extend(&paths[chosen]);
            found.push(Found { paths, rewards, chosen });
        }
        found
    }

    fn logits(&self, written: &[u32]) -> Vec<f32> {
        let (model, text) = (&parts().0.model, [self.prompt, written].concat());
        let hidden = model.prefill(&text).unwrap().1.narrow(0, text.len() - 1, 1).unwrap();
        let mut logits: Vec<f32> =
            model.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let penalty = self.settings.sampling.repetition_penalty as f32;
        for (token, logit) in logits.iter_mut().enumerate() {
            if written.contains(&(token as u32)) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
        logits
    }

    fn likeliest(&self, logits: &[f32], k: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
        order.truncate(k);
        order
    }

    /// The base policy's next token.
    fn next(&self, written: &[u32], stream: &mut Randomness) -> u32 {
        let (logits, sampling) = (self.logits(written), self.settings.sampling);
        let order = match (sampling.temperature, sampling.top_k) {
            (0.0, _) => return self.likeliest(&logits, 1)[0],
            (_, 0) => (0..logits.len() as u32).collect(),
            (_, k) => self.likeliest(&logits, k),
        };
        let scores: Vec<f64> = order.iter().map(|&t| f64::from(logits[t as usize])).collect();
        order[draw(&scores, sampling.temperature, stream.uniform())]
    }

    fn is_over(&self, written: &[u32]) -> bool {
        let (settings, policy) = (self.settings, &parts().0);
        let ends = !settings.no_eos && written.last().is_some_and(|token| policy.eos.contains(token));
        let text = policy.tokenizer.decode(written, false).unwrap();
        let most = settings.max_new_tokens.min(policy.model.context() - self.prompt.len());
        ends || written.len() == most || settings.stop.iter().any(|stop| text.contains(stop))
    }

    fn rewards(&self, written: &[u32], paths: &[Vec<u32>]) -> Vec<f64> {
        let texts: Vec<Vec<u32>> = paths.iter().map(|path| [written, path].concat()).collect();
        if self.guide > 3 {
            let ends = |token: &u32| !self.settings.no_eos && parts().0.eos.contains(token);
            let value = |text: &Vec<u32>| {
                // Values do not read what ends the text.
                let of_text = text.len() - usize::from(text.last().is_some_and(ends));
                let text = [self.prompt, &text[..of_text]].concat();
                let hidden = parts().0.model.prefill(&text).unwrap().1;
                let last = hidden.narrow(0, text.len() - 1, 1).unwrap();
                values()[self.guide - 4].score(&last).unwrap()[0]
            };
            return texts.iter().map(value).collect();
        }
        let texts: Vec<&[u32]> = texts.iter().map(|text| &text[..]).collect();
        let reward = guidance(self.guide).1.reward.unwrap();
        reward.of_answers(&parts().0, asked(self.prompt), &texts).unwrap()
    }

    fn fused(&self, logits: &[f32], candidates: &[u32], rewards: &[f64]) -> Vec<f64> {
        let strength = self.settings.shaping.strength;
        let of = |scores: &[f64], shaped: &[f64]| {
            scores.iter().zip(shaped).map(|(score, s)| score + strength * s).collect()
        };
        if self.guide > 3 {
            let at = self.settings.policy_temperature;
            let masses = softmax(&logits.iter().map(|&l| f64::from(l) / at).collect::<Vec<_>>());
            let scores: Vec<f64> = candidates.iter().map(|&c| masses[c as usize].ln()).collect();
            return of(&scores, rewards);
        }
        let scores: Vec<f64> = candidates.iter().map(|&c| f64::from(logits[c as usize])).collect();
        let samples = Samples::from_logits(rewards, &scores).unwrap();
        of(&scores, &self.settings.shaping.apply(&samples).unwrap().values)
    }
}

fn draw(scores: &[f64], temperature: f64, uniform: f64) -> usize {
    let mut left = uniform;
    let masses = softmax(&scores.iter().map(|s| s / temperature).collect::<Vec<_>>());
    let index = masses.iter().position(|mass| {
        left -= mass;
        left < 0.0
    });
    index.unwrap_or(scores.len() - 1)
}

/// Settings with segments, greedy and sampled, with all that may end an answer.
fn segmented() -> impl Strategy<Value = Settings> {
    let sampling = (prop::sample::select(vec![0.0, 1.3]), prop::sample::select(vec![0, 3]));
    let penalty = prop::sample::select(vec![1.0, 1.4]);
    (settings(), 1..7usize, 1..14usize, sampling, penalty, any::<bool>(), any::<bool>()).prop_map(
        |(mut settings, every, most, (temperature, top_k), penalty, no_eos, stops)| {
            settings.sampling.temperature = temperature;
            settings.sampling.top_k = top_k;
            settings.sampling.repetition_penalty = penalty;
            let stop = if stops { vec!["w5".to_owned(), "w8 w".to_owned()] } else { Vec::new() };
            Settings { score_every: every, max_new_tokens: most, no_eos, stop, ..settings }
        },
    )
}

/// Holds an answer and its steps against what the slow search finds.
fn is_found(guide: usize, prompt: &[u32], settings: &Settings) -> Result<(), TestCaseError> {
    let (answer, steps) = run(guide, prompt, settings);
    let found = Search { guide, prompt, settings }.segments();
    let mut steps = steps.into_iter();
    let mut written = Vec::new();
    for Found { paths, rewards, chosen } in &found {
        let segment: Vec<Step> = steps.by_ref().take(paths[*chosen].len()).collect();
        let tokens: Vec<u32> = segment.iter().map(|step| step.chosen).collect();
        prop_assert_eq!(&tokens, &paths[*chosen]);
        written.extend(tokens);
        let (first, later) = segment.split_first().unwrap();
        if !first.skipped {
            prop_assert_eq!(first.rewards.as_ref(), Some(rewards));
            let further = paths.iter().map(|path| path[1..].to_vec()).collect::<Vec<_>>();
            prop_assert_eq!(
                &first.continuations,
                if settings.score_every > 1 { &further } else { &[][..] }
            );
        }
        for step in later {
            prop_assert!(step.rewards.is_none() && step.continuations.is_empty() && !step.skipped);
            prop_assert_eq!(step.chosen, step.base_choice);
        }
    }
    prop_assert_eq!(steps.next(), None);
    prop_assert!(written.starts_with(&answer.tokens));
    prop_assert_eq!(answer.skipped + answer.reward_calls, found.len());
    // The reward is that of the answer, wherever in a segment it ended.
    let reward = guidance(guide).1.reward.unwrap();
    let whole = reward.of_answers(&parts().0, asked(prompt), &[&answer.tokens]).unwrap()[0];
    prop_assert_eq!(answer.reward, Some(whole));
    Ok(())
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn segments_are_those_of_whole_texts(
        settings in segmented(), guide in 0..GUIDES, skip: bool, prompt in prop::collection::vec(0..40u32, 1..8),
    ) {
        is_found(guide, &prompt, &Settings { skip, ..settings })?;
    }

    /// The lossless skip is lossless for segments, too.
    #[test]
    fn skipping_changes_no_token(
        mut settings in segmented(), guide in 0..GUIDES, prompt in prop::collection::vec(0..40u32, 1..8),
    ) {
        settings.sampling.temperature = 0.0;
        let (with, _) = run(guide, &prompt, &settings);
        let (without, _) = run(guide, &prompt, &Settings { skip: false, ..settings });
        prop_assert_eq!(&with.tokens, &without.tokens);
        prop_assert_eq!(with.reward, without.reward);
        prop_assert_eq!(with.skipped + with.reward_calls, without.reward_calls);
    }

    /// Where the policy is sure enough, all is its own, to the random number.
    #[test]
    fn a_gate_that_never_opens_leaves_the_base_policy(
        mut settings in segmented(), guide in 0..GUIDES, prompt in prop::collection::vec(0..40u32, 1..8),
    ) {
        settings.candidates += 1;
        settings.entropy_gate = (settings.candidates as f64).ln();
        settings.skip = false;
        let (answer, _) = run(guide, &prompt, &settings);
        prop_assert_eq!(answer.reward_calls, 0);
        let temperature = settings.sampling.temperature;
        let base = Settings { method: Method::Base, ..settings };
        let base = generate(&parts().0, guidance(guide).1, asked(&prompt), "p", &base, &mut ()).unwrap();
        prop_assert_eq!(&answer.tokens, &base.tokens);
        prop_assert_eq!(answer.reward, base.reward);
        if temperature > 0.0 {
            prop_assert_eq!(answer.kl, Some(0.0));
        }
    }

    #[test]
    fn segments_are_the_same_in_company(
        settings in segmented(), guide in 0..GUIDES, gate in prop::sample::select(vec![0.0, 0.5]),
        prompts in prop::collection::vec(prop::collection::vec(0..40u32, 1..8), 1..6), at_once in 1..9usize,
        perturbation in prop::sample::select(vec![Perturbation::None, Perturbation::Noise(1.0)]),
    ) {
        let (method, guidance) = guidance(guide);
        let entropy_gate = if settings.candidates > 1 { gate } else { 0.0 };
        let settings = Settings { method, entropy_gate, perturbation, ..settings };
        let ids: Vec<String> = (0..prompts.len()).map(|i| i.to_string()).collect();
        let job = |(prompt, id)| Job { id, prompt, asked: asked(prompt).prompt };
        let jobs: Vec<Job<'_>> = prompts.iter().map(|prompt| &prompt[..]).zip(ids.iter().map(|id| &id[..])).map(job).collect();
        let mut together = Together::default();
        generate_all(&parts().0, guidance, &jobs, &settings, at_once, &mut together).unwrap();
        for (i, Job { id, prompt, .. }) in jobs.into_iter().enumerate() {
            let mut steps = Steps::default();
            let alone = generate(&parts().0, guidance, asked(prompt), id, &settings, &mut steps).unwrap();
            let (seen, answer) = together.0.remove(&i).unwrap();
            let answer = answer.unwrap();
            prop_assert_eq!(seen, steps.0);
            prop_assert_eq!(&answer, &Generation { elapsed: answer.elapsed, ..alone });
            let reward = guidance.reward.unwrap();
            let whole = reward.of_answers(&parts().0, asked(prompt), &[&answer.tokens]).unwrap()[0];
            prop_assert_eq!(answer.reward, Some(whole));
        }
    }
}

#[test]
fn a_segment_ends_with_the_context() {
    for (guide, every) in (0..GUIDES).flat_map(|guide| [2, 3, 4, 7].map(|every| (guide, every))) {
        let settings = Settings { no_eos: true, skip: false, score_every: every, ..Settings::default() };
        is_found(guide, &[7; 395], &settings).unwrap();
        let (answer, _) = run(guide, &[7; 395], &settings);
        assert_eq!((answer.tokens.len(), answer.finish.name()), (5, "length"));
        assert_eq!(answer.reward_calls, 5usize.div_ceil(every));
    }
}

/// What the properties are about happens in them: ends inside segments, skips, steering.
#[test]
fn segments_are_chosen_skipped_and_ended() {
    let shaping = Shaping { rule: Rule::Hard, strength: 0.5, bound: 2.0, ..Shaping::default() };
    let settings = Settings { shaping, score_every: 4, max_new_tokens: 30, ..Settings::default() };
    for guides in [&[0][..], &[1], &[2], &[3], &[4, 5]] {
        let (mut inside, mut skipped, mut steered) = (0, 0, 0);
        for (&guide, prompt) in guides.iter().flat_map(|guide| (4..40).map(move |p| (guide, p))) {
            let (answer, steps) = run(guide, &[prompt], &settings);
            inside += usize::from(answer.finish.name() == "stop" && !steps.len().is_multiple_of(4));
            skipped += answer.skipped;
            steered += answer.steered;
        }
        assert!(inside > 0 && skipped > 0 && steered > 0, "{guides:?}: {inside} {skipped} {steered}");
    }
}

#[test]
fn beams_have_no_segments() {
    let settings = Settings { method: Method::Cd, beams: 2, score_every: 2, ..Settings::default() };
    let error = generate(&parts().0, guidance(4).1, asked(&[1]), "p", &settings, &mut ()).unwrap_err();
    assert_eq!(error.to_string(), "score-every is 2: it must be at least 1; with beams, 1");
}
