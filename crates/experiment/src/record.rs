//! Converts the results of decoding to lines of output files.

use serde_json::json;
use stackelberg_data::generations::{Record, Response};
use stackelberg_data::trace::{Scores, TraceStep};
use stackelberg_data::{Identity, Prompt};
use stackelberg_decoding::{Generation, Method, Settings, Step};
use stackelberg_engine::reward::TextFormat;
use stackelberg_engine::{Checkpoint, Tokenizer};

use crate::error::Result;

/// The names and hashes that a run's output records.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// The policy.
    pub model: &'a str,
    /// The data type of its weights.
    pub dtype: &'a str,
    /// Its device; `None` is the CPU.
    pub device: Option<&'a str>,
    /// The reward.
    pub reward: &'a str,
    /// The reward's hash, if a reward is used.
    pub reward_hash: Option<&'a str>,
    /// The value head's hash, if one is used.
    pub value_hash: Option<&'a str>,
    /// The value head.
    pub value: Option<&'a str>,
    /// The system message.
    pub system: Option<&'a str>,
    /// The names of the reward's parts, if it is a combination.
    pub parts: &'a [String],
}

/// The settings of a run, as every line of its output records them.
pub fn identity(
    names: Names<'_>,
    settings: &Settings,
    format: TextFormat,
    policy: &Checkpoint,
) -> Identity {
    let (s, d) = (&settings.shaping, &settings.sampling);
    let mut value = json!({
        "model": names.model, "model_fingerprint": policy.fingerprint,
        "dtype": names.dtype, "reward": names.reward,
        "value": names.value, "policy_temperature": settings.policy_temperature,
        "beams": settings.beams, "length_penalty": settings.length_penalty,
        "prompt_format": format.name(), "system": names.system,
        "shaping": s.rule.name(), "strength": s.strength, "bound": s.bound,
        "kl_budget": settings.kl_budget, "alpha": s.alpha, "cap": s.cap, "stretch": s.stretch,
        "ref_quantile": s.ref_quantile, "budget": s.budget.name(), "exponent_cap": s.exponent_cap,
        "candidates": settings.candidates, "samples": settings.samples,
        "max_new_tokens": settings.max_new_tokens, "temperature": d.temperature, "top_k": d.top_k,
        "top_p": d.top_p, "min_p": d.min_p, "repetition_penalty": d.repetition_penalty,
        "stop": settings.stop, "no_eos": settings.no_eos, "skip": settings.skip,
        "perturbation": settings.perturbation.to_string(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    // Settings added later are written only if they differ from the default, so that older files still match.
    if let Some(device) = names.device {
        value["device"] = json!(device);
    }
    if settings.score_every != 1 {
        value["score_every"] = json!(settings.score_every);
    }
    if settings.entropy_gate != 0.0 {
        value["entropy_gate"] = json!(settings.entropy_gate);
    }
    Identity {
        method: settings.method.name().to_owned(),
        settings: value,
        seed: settings.seed,
        reward_hash: names.reward_hash.map(str::to_owned),
        value_hash: names.value_hash.map(str::to_owned),
    }
}

/// An answer as a line of the output file.
pub fn response(
    identity: &Identity,
    parts: &[String],
    (id, prompt): (&str, &Prompt),
    answer: &Generation,
    warnings: &[String],
) -> Response {
    let record = Record {
        tokens: Some(answer.tokens.len()),
        finish_reason: Some(answer.finish.name().to_owned()),
        reward: answer.reward,
        rewards: parts.iter().cloned().zip(answer.parts.iter().copied()).collect(),
        mean_log_prob: Some(answer.mean_log_prob),
        elapsed: Some(answer.elapsed.as_secs_f64()),
        steered: Some(answer.steered),
        reward_calls: Some(answer.reward_calls),
        skipped: Some(answer.skipped),
        kl: answer.kl,
        tail_nll: Some(answer.tail_nll),
        warnings: warnings.to_vec(),
        ..Record::default()
    };
    let (id, prompt, text) = (id.to_owned(), prompt.clone(), answer.text.clone());
    Response { id, prompt, text, record: identity.record(record) }
}

/// The steps of an answer as lines of a trace.
///
/// # Errors
/// The tokenizer cannot decode a candidate.
pub fn trace(
    id: &str,
    method: Method,
    steps: &[Step],
    parts: &[String],
    tokenizer: &Tokenizer,
) -> Result<Vec<TraceStep>> {
    let mut lines = Vec::with_capacity(steps.len());
    for (number, step) in steps.iter().enumerate() {
        let tokens = step.candidates.iter().map(|&token| tokenizer.decode(&[token], true));
        let (scores, rewards) = (step.logits.clone(), step.rewards.clone());
        lines.push(TraceStep {
            id: id.to_owned(),
            step: number,
            candidates: step.candidates.clone(),
            tokens: tokens.collect::<std::result::Result<_, _>>()?,
            scores: match method {
                Method::Cd => Scores::Values { log_probs: scores, values: rewards },
                _ => Scores::Rewards { logits: scores, rewards },
            },
            threshold: step.threshold,
            bound: step.bound,
            shaped: step.shaped.clone(),
            fused: step.fused.clone(),
            chosen: step.chosen,
            base_choice: step.base_choice,
            skipped: step.skipped,
            kl: step.kl,
            ess: step.ess,
            tail_nll: step.tail_nll,
            log_prob: Some(step.log_prob),
            continuations: step.continuations.clone(),
            parts: parts.iter().cloned().zip(step.parts.iter().cloned()).collect(),
        });
    }
    Ok(lines)
}
