//! Decoding options: sampling, candidates and stopping.

use clap::Args;
use stackelberg_decoding::{Method, Perturbation, Sampling, Settings};
use stackelberg_shaping::Shaping;

#[derive(Args)]
#[command(next_help_heading = "Decoding")]
pub(crate) struct SamplingArgs {
    /// Number of candidates per guided step, k.
    #[arg(long, default_value_t = 10, value_name = "K")]
    candidates: usize,

    /// Temperature of the base policy's log-probabilities, to which cd adds values.
    #[arg(long, default_value_t = 0.7, value_name = "T", allow_negative_numbers = true)]
    policy_temperature: f64,

    /// Number of beams for cd; 1 disables beam search.
    #[arg(long, default_value_t = 1, value_name = "N")]
    beams: usize,

    /// Exponent P of the length normalization: beams are ranked by score / length^P.
    #[arg(long, default_value_t = 1.0, value_name = "P", allow_negative_numbers = true)]
    length_penalty: f64,

    /// Number of samples that best-of-n, soft-best-of-n and follower choose from.
    #[arg(long, default_value_t = 10, value_name = "N")]
    samples: usize,

    /// Maximum new tokens.
    #[arg(long, default_value_t = 128, value_name = "N")]
    max_new_tokens: usize,

    /// Sampling temperature; 0 is greedy. [default: 0; best-of-n, soft-best-of-n and follower: 1]
    #[arg(long, allow_negative_numbers = true)]
    temperature: Option<f64>,

    /// Sample from the N likeliest tokens only; 0 is all (unguided generation).
    #[arg(long, default_value_t = 0, value_name = "N")]
    top_k: usize,

    /// Sample from the smallest set of likeliest tokens with at least this total probability (unguided generation).
    #[arg(long, default_value_t = 1.0, value_name = "P", allow_negative_numbers = true)]
    top_p: f64,

    /// Sample from tokens with at least this probability relative to the likeliest token only (unguided generation).
    #[arg(long, default_value_t = 0.0, value_name = "P", allow_negative_numbers = true)]
    min_p: f64,

    /// Repetition penalty: the logits of tokens that were already generated are divided by this factor.
    #[arg(long, default_value_t = 1.0, value_name = "F", allow_negative_numbers = true)]
    repetition_penalty: f64,

    /// Random seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Perturb the rewards before they guide, to test robustness: noise=STD (added noise), random=STD (random numbers
    /// instead of rewards) or reversed (the ranking is reversed).
    #[arg(long, alias = "stress", default_value_t = Perturbation::None, hide_default_value = true)]
    perturb_rewards: Perturbation,

    /// Stop string: the answer ends before this text; may be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,

    /// Ignore the end-of-text token and continue, as the paper's public code does.
    #[arg(long)]
    no_eos: bool,

    /// Segment length in tokens: the base policy continues each candidate to N tokens, the reward scores each segment
    /// once, and the chosen segment is kept. Faster if the reward costs more than the model.
    #[arg(long, default_value_t = 1, value_name = "N")]
    score_every: usize,

    /// Compute rewards only at steps where the policy's entropy over the candidates is at least this. Faster, but
    /// guidance is weaker.
    #[arg(long, alias = "min-entropy", default_value_t = 0.0, value_name = "NATS")]
    #[arg(allow_negative_numbers = true)]
    entropy_gate: f64,

    /// Disable the lossless skip: compute rewards even at steps where they provably cannot change the choice.
    #[arg(long)]
    no_skip: bool,
}

impl SamplingArgs {
    /// The settings of a generation.
    pub(crate) fn settings(&self, method: Method, shaping: Shaping, kl_budget: Option<f64>) -> Settings {
        Settings {
            method,
            shaping,
            kl_budget,
            candidates: self.candidates,
            policy_temperature: self.policy_temperature,
            beams: self.beams,
            length_penalty: self.length_penalty,
            samples: self.samples,
            max_new_tokens: self.max_new_tokens,
            sampling: Sampling {
                temperature: self.temperature.unwrap_or(if method.chooses_answers() {
                    1.0
                } else {
                    0.0
                }),
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repetition_penalty: self.repetition_penalty,
            },
            seed: self.seed,
            stop: self.stop.clone(),
            no_eos: self.no_eos,
            perturbation: self.perturb_rewards,
            score_every: self.score_every,
            entropy_gate: self.entropy_gate,
            skip: !self.no_skip,
        }
    }
}
