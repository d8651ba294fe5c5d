//! The theory on a real model: what samples predict, the follower delivers.
//!
//! Some answers of SmolLM2-135M to each prompt fix the shaped reward `s` and predict the follower's utility;
//! for `hard` that is the threshold m\* itself. Fresh answers under another seed measure it: each is weighted
//! by `exp(strength · s)` and answers are drawn again by these weights, the follower of the theory to the
//! letter. `Method::Follower` does the same but finds `s` anew among its own answers and gives one of them,
//! so a measurement by it would need hundreds of answers for every one that counts.
//!
//! The test is fair because the estimates are: the exponent is 2, samples are many, errors of both sides
//! count, and prompts are pooled. The errors are those of a ratio of means with `s` held fixed (the delta
//! method). That is right to first order although the first answers also chose `s`: both sides use the same
//! `s`, and m\* is a maximum, so small errors of it cost nothing. In 3000 trials with answers drawn again out
//! of 4200 to each of these prompts, the difference in units of its error had mean -0.04 (`hard`) and -0.01
//! (`srs`) and standard deviation 1.00, and 2 in 1000 lay beyond 3.
//!
//! It notices a follower or threshold that is not the theory's: the base policy's utility is eight (`hard`) and
//! six (`srs`) tolerances away; a prediction for an exponent 20 percent off failed in 96 of 100 such trials for
//! `hard` and in 50 to 70 for `srs`. It cannot notice what is wrong on both sides alike, such as a wrong reward
//! or a wrong policy: other tests hold those against a reference. One correct implementation in 370 fails by
//! chance per rule; the seeds are fixed, but another set of instructions draws other answers.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use stackelberg_decoding::{Job, Sample, Sampling, Settings, Watch, rollout};
use stackelberg_engine::reward::TextFormat;
use stackelberg_engine::{Checkpoint, Dtype, Prompt, Reward};
use stackelberg_shaping::{Follower, Rule, Samples, Shaping};

const PROMPTS: [&str; 6] = [
    "How do I make friends in a new town?",
    "My neighbour's dog barks all night. What should I do?",
    "Tell me a short story about a lighthouse keeper.",
    "What should I cook for someone who has a cold?",
    "Is it a good idea to lend money to a friend?",
    "Give me advice for my first day at work.",
];

/// Answers to each prompt: for the prediction, and again for the measurement.
const SAMPLES: usize = 500;

/// Tokens of an answer.
const LENGTH: usize = 16;

/// Answers that the follower gives to each prompt.
const DRAWS: usize = 10_000;

/// Of the prediction and of the measurement.
const SEEDS: [u64; 2] = [1, 2];

/// The exponent `c = B/beta` is 2.
const SHAPING: Shaping = Shaping {
    rule: Rule::Hard,
    strength: 1.0,
    bound: 2.0,
    alpha: 2.0,
    cap: 1.0,
    stretch: 1.01,
    ref_quantile: 0.5,
    budget: stackelberg_shaping::Budget::Paper,
    exponent_cap: 2.0,
};

/// Rewards of the answers to each prompt.
struct Rewards(Vec<Vec<f64>>);

impl Watch for Rewards {
    fn watches(&self) -> bool {
        false
    }

    fn samples(&mut self, job: usize, samples: Vec<Sample>) {
        let rewards = samples.iter().map(|sample| sample.answer.reward.expect("there is a reward"));
        self.0[job] = rewards.collect();
    }
}

fn rewards(policy: &Checkpoint, reward: &Reward, seed: u64) -> Vec<Vec<f64>> {
    let prompts = PROMPTS.map(|text| {
        let format = TextFormat::Chat;
        let text = policy.lay_out(&Prompt::Text(text.to_owned()), None, format).unwrap();
        policy.read(&text).unwrap()
    });
    let jobs: Vec<Job<'_>> =
        PROMPTS.iter().zip(&prompts).map(|(id, prompt)| Job { id, prompt, asked: None }).collect();
    let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
    let settings =
        Settings { samples: SAMPLES, max_new_tokens: LENGTH, sampling, seed, ..Settings::default() };
    let mut rewards = Rewards(vec![Vec::new(); PROMPTS.len()]);
    rollout(policy, Some(reward), &jobs, &settings, false, 64, &mut rewards).unwrap();
    rewards.0
}

/// A utility and its squared standard error.
#[derive(Clone, Copy)]
struct Estimate {
    utility: f64,
    square: f64,
}

impl Estimate {
    /// `Σ p r` of masses that sum to 1, themselves made of samples: a ratio of two means.
    fn new(rewards: &[f64], masses: &[f64]) -> Self {
        let utility: f64 = rewards.iter().zip(masses).map(|(r, p)| p * r).sum();
        let square = rewards.iter().zip(masses).map(|(r, p)| (p * (r - utility)).powi(2)).sum();
        Self { utility, square }
    }
}

/// The threshold, and the utility of a follower whose reward is shaped by it.
fn predict(rewards: &[f64], shaping: &Shaping) -> (f64, Estimate) {
    let samples = Samples::new(rewards).unwrap();
    let shaped = shaping.apply(&samples).unwrap();
    let follower = Follower::respond(&samples, &shaped.values, shaping.strength).unwrap();
    let estimate = Estimate::new(rewards, &follower.policy);
    assert!((estimate.utility - follower.utility).abs() < 1e-9);
    let threshold = shaped.threshold.unwrap().value;
    match shaping.rule {
        Rule::Hard => (threshold, Estimate { utility: threshold, ..estimate }),
        _ => (threshold, estimate),
    }
}

/// The mean reward of answers drawn from these by the weights of a follower: of the shaping crate's results it
/// uses the threshold alone.
fn measure(rewards: &[f64], threshold: f64, shaping: &Shaping, rng: &mut ChaCha12Rng) -> Estimate {
    let shaped = |r: f64| match shaping.rule {
        Rule::Hard if r >= threshold => shaping.bound,
        Rule::Hard => 0.0,
        _ => shaping.bound / (1.0 + (-shaping.alpha * (r - threshold)).exp()),
    };
    let weights: Vec<f64> = rewards.iter().map(|&r| (shaping.strength * shaped(r)).exp()).collect();
    let total: f64 = weights.iter().sum();
    let masses: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
    let Estimate { utility, square } = Estimate::new(rewards, &masses);
    // The draws add an error of their own.
    let spread: f64 = rewards.iter().zip(&masses).map(|(r, p)| p * (r - utility).powi(2)).sum();
    let below: Vec<f64> = masses
        .iter()
        .scan(0.0, |sum, mass| {
            *sum += mass;
            Some(*sum)
        })
        .collect();
    let mut draw = || {
        let uniform: f64 = rng.random();
        rewards[below.partition_point(|&sum| sum <= uniform).min(rewards.len() - 1)]
    };
    let drawn = (0..DRAWS).map(|_| draw()).sum::<f64>() / DRAWS as f64;
    Estimate { utility: drawn, square: square + spread / DRAWS as f64 }
}

fn mean(numbers: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = numbers.len() as f64;
    numbers.sum::<f64>() / n
}

#[test]
#[ignore = "takes two minutes: `cargo test --release -p stackelberg-decoding --test tests -- theory:: --ignored`"]
fn the_follower_delivers_what_samples_predict() {
    let path = crate::weights::fetch("smollm2-135m");
    let policy = Checkpoint::load(&path, Dtype::Bf16).unwrap();
    let head = concat!(env!("CARGO_MANIFEST_DIR"), "/../registry/rewards/harmless.safetensors");
    let reward = Reward::load(head.as_ref(), &policy, Dtype::Bf16).unwrap();
    let [first, fresh] = SEEDS.map(|seed| rewards(&policy, &reward, seed));
    let mut rng = ChaCha12Rng::seed_from_u64(SEEDS[1]);
    let base = mean(first.iter().map(|rewards| mean(rewards.iter().copied())));
    for rule in [Rule::Hard, Rule::Srs] {
        let shaping = Shaping { rule, ..SHAPING };
        println!("{rule}\n  base predicted measured  error");
        let (mut predicted, mut measured, mut square) = (0.0, 0.0, 0.0);
        let share = 1.0 / PROMPTS.len() as f64;
        for ((first, fresh), prompt) in first.iter().zip(&fresh).zip(PROMPTS) {
            let (threshold, prediction) = predict(first, &shaping);
            let measurement = measure(fresh, threshold, &shaping, &mut rng);
            let (a, b) = (prediction.utility, measurement.utility);
            let both = prediction.square + measurement.square;
            println!(
                "{:+6.3} {a:+9.3} {b:+8.3} {:6.3}  {prompt}",
                mean(first.iter().copied()),
                both.sqrt()
            );
            predicted += share * a;
            measured += share * b;
            square += share * share * both;
        }
        let error = square.sqrt();
        let ratio = (measured - predicted) / error;
        println!(
            "{base:+6.3} {predicted:+9.3} {measured:+8.3} {error:6.3}  pooled: {ratio:+.2} errors apart"
        );
        assert!(
            ratio.abs() <= 3.0,
            "{rule}: predicted {predicted}, delivered {measured}, error {error}"
        );
        let tolerance = 3.0 * error;
        assert!(predicted - base > 4.0 * tolerance, "{rule}: the base policy would pass this test too");
    }
}
