//! Decoding options: sampling, candidates and stopping.

use clap::Args;
use stackelberg_decoding::{Keep, Options, Perturbation, most};

use crate::help::{KEEP, named};
use crate::limits::count;

#[derive(Args)]
#[command(next_help_heading = "Decoding")]
pub(crate) struct SamplingArgs {
    /// Number of candidates per guided step, k. [default: 10]
    #[arg(long, value_name = "K", value_parser = count(1, most::CANDIDATES))]
    candidates: Option<usize>,

    /// Temperature of the base policy's log-probabilities, to which cd adds values. [default: 0.7]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    policy_temperature: Option<f64>,

    /// Number of beams for cd; 1 disables beam search. [default: 1]
    #[arg(long, value_name = "N", value_parser = count(1, most::BEAMS))]
    beams: Option<usize>,

    /// Exponent P of the length normalization: beams are ranked by score / length^P. [default: 1]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    length_penalty: Option<f64>,

    /// best-of-n, soft-best-of-n, follower: number of answers to choose from. blockwise: number of continuations of each
    /// block. particles: number of particles. [default: 10; blockwise and particles: 8]
    #[arg(long, value_name = "N", value_parser = count(1, most::SAMPLES))]
    samples: Option<usize>,

    /// best-of-n, blockwise: stop drawing samples when one more is expected to gain less than this price per token, in
    /// reward units; --samples is then the maximum. Decided after every 4 samples. 0 draws all. [default: 0]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    token_price: Option<f64>,

    /// best-of-n: drop this fraction of the samples under way at the end of each block of --block tokens, those with the lowest
    /// rewards so far (speculative rejection). 0 drops none. [default: 0]
    #[arg(long, value_name = "FRACTION", allow_negative_numbers = true)]
    reject: Option<f64>,

    /// blockwise, particles, best-of-n with --reject: number of tokens of a block. [default: 16, or --max-new-tokens if that is
    /// less]
    #[arg(long, value_name = "N", value_parser = count(1, most::BLOCK))]
    block: Option<usize>,

    /// blockwise: which continuation of each block is kept. particles: which answer is returned at the end. best: the
    /// highest score. draw: at random, by weight. [default: best; particles: draw]
    #[arg(long, value_name = "HOW", hide_possible_values = true, value_parser = named::<Keep>(KEEP))]
    keep: Option<Keep>,

    /// Maximum new tokens. [default: 128]
    #[arg(long, value_name = "N", value_parser = count(1, most::NEW_TOKENS))]
    max_new_tokens: Option<usize>,

    /// Sampling temperature; 0 is greedy. [default: 0; methods that choose among samples: 0.7]
    #[arg(long, allow_negative_numbers = true)]
    temperature: Option<f64>,

    /// Sample from the N likeliest tokens only; 0 is all. Not for args and cd. [default: 0]
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,

    /// Sample from the smallest set of likeliest tokens with at least this total probability. Not for args and cd.
    /// [default: 1; methods that choose among samples: 0.9]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f64>,

    /// Sample from tokens with at least this probability relative to the likeliest token only. Not for args and cd.
    /// [default: 0]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f64>,

    /// Repetition penalty: the logits of tokens that were already generated are divided by this factor.
    /// [default: 1]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    repetition_penalty: Option<f64>,

    /// Random seed. [default: 0]
    #[arg(long)]
    seed: Option<u64>,

    /// Perturb the rewards before they guide, to test robustness: noise=STD (added noise), random=STD (random numbers
    /// instead of rewards) or reversed (the ranking is reversed).
    #[arg(long, alias = "stress", value_name = "HOW")]
    perturb_rewards: Option<Perturbation>,

    /// Stop string: the answer ends before this text; may be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,

    /// Ignore the end-of-text token and continue, as the paper's public code does.
    #[arg(long)]
    no_eos: bool,

    /// Segment length in tokens: the base policy continues each candidate to N tokens, the reward scores each segment
    /// once, and the chosen segment is kept. Faster if the reward costs more than the model. [default: 1]
    #[arg(long, value_name = "N", value_parser = count(1, most::SCORE_EVERY))]
    score_every: Option<usize>,

    /// Compute rewards only at steps where the policy's entropy over the candidates is at least this. Faster, but
    /// guidance is weaker. [default: 0]
    #[arg(long, alias = "min-entropy", value_name = "NATS", allow_negative_numbers = true)]
    entropy_gate: Option<f64>,

    /// Disable the lossless skip: compute rewards even at steps where they provably cannot change the choice.
    #[arg(long)]
    no_skip: bool,
}

impl SamplingArgs {
    /// The settings that are given.
    pub(crate) fn options(&self) -> Options {
        Options {
            candidates: self.candidates,
            policy_temperature: self.policy_temperature,
            beams: self.beams,
            length_penalty: self.length_penalty,
            samples: self.samples,
            token_price: self.token_price,
            reject: self.reject,
            block: self.block,
            keep: self.keep,
            max_new_tokens: self.max_new_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            stop: (!self.stop.is_empty()).then(|| self.stop.clone()),
            no_eos: self.no_eos.then_some(true),
            perturbation: self.perturb_rewards,
            score_every: self.score_every,
            entropy_gate: self.entropy_gate,
            skip: self.no_skip.then_some(false),
            ..Options::default()
        }
    }
}

/// The flag of a setting of this name.
pub(crate) fn flag(field: &str) -> String {
    match field {
        "perturbation" => "--perturb-rewards".to_owned(),
        "skip" => "--no-skip".to_owned(),
        _ => format!("--{}", field.replace('_', "-")),
    }
}
