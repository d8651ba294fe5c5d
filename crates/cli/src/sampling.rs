//! Decoding on the command line: how tokens are chosen and where answers end.

use clap::Args;
use stackelberg_decoding::{Method, Perturbation, Sampling, Settings};
use stackelberg_shaping::Shaping;

#[derive(Args)]
#[command(next_help_heading = "Decoding")]
pub(crate) struct SamplingArgs {
    /// Candidates per guided step, k.
    #[arg(long, default_value_t = 10, value_name = "K")]
    candidates: usize,

    /// Temperature of the log-probabilities that cd adds values to.
    #[arg(long, default_value_t = 0.7, value_name = "T", allow_negative_numbers = true)]
    policy_temperature: f64,

    /// Texts that cd keeps at every step; 1 is greedy decoding.
    #[arg(long, default_value_t = 1, value_name = "N")]
    beams: usize,

    /// Of several beams the best by score / length^P is the answer.
    #[arg(long, default_value_t = 1.0, value_name = "P", allow_negative_numbers = true)]
    length_penalty: f64,

    /// Answers that best-of-n, soft-best-of-n and follower choose from.
    #[arg(long, default_value_t = 10, value_name = "N")]
    samples: usize,

    /// Most new tokens.
    #[arg(long, default_value_t = 128, value_name = "N")]
    max_new_tokens: usize,

    /// 0 is greedy. [default: 0; best-of-n, soft-best-of-n and follower: 1]
    #[arg(long, allow_negative_numbers = true)]
    temperature: Option<f64>,

    /// Draw from the so many likeliest tokens only; 0 is all (where answers are not guided).
    #[arg(long, default_value_t = 0, value_name = "N")]
    top_k: usize,

    /// Draw from the likeliest tokens that hold this mass only (where answers are not guided).
    #[arg(long, default_value_t = 1.0, value_name = "P", allow_negative_numbers = true)]
    top_p: f64,

    /// Draw from tokens at least this likely only, relative to the likeliest (where answers are not guided).
    #[arg(long, default_value_t = 0.0, value_name = "P", allow_negative_numbers = true)]
    min_p: f64,

    /// Divide the logits of tokens already written by this.
    #[arg(long, default_value_t = 1.0, value_name = "F", allow_negative_numbers = true)]
    repetition_penalty: f64,

    /// Everything random follows from this.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Perturb the rewards before they guide, to see how robust the method is: noise=STD, random=STD (numbers that have
    /// nothing to do with the text) or reversed (the ranking is reversed).
    #[arg(long, alias = "stress", default_value_t = Perturbation::None, hide_default_value = true)]
    perturb_rewards: Perturbation,

    /// End the answer at this text; may be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,

    /// Write on after the model ends its answer, as the paper's public code does.
    #[arg(long)]
    no_eos: bool,

    /// Look N tokens ahead: the model carries each candidate on by itself to N tokens, and the reward is asked once
    /// for each such segment. Faster where the reward costs more than the model.
    #[arg(long, default_value_t = 1, value_name = "N")]
    score_every: usize,

    /// Ask for rewards only where the model is unsure: where its entropy over the candidates is at least this.
    /// Faster, and the text follows less.
    #[arg(long, alias = "min-entropy", default_value_t = 0.0, value_name = "NATS")]
    #[arg(allow_negative_numbers = true)]
    entropy_gate: f64,

    /// Ask for rewards also where they provably cannot change the choice.
    #[arg(long)]
    no_skip: bool,
}

impl SamplingArgs {
    /// All settings of a generation.
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
