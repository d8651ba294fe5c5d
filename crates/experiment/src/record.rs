//! Converts the results of decoding to lines of output files.

use serde_json::json;
use stackelberg_data::generations::{Record, Response};
use stackelberg_data::hash::sha256;
use stackelberg_data::trace::{Scores, TraceBlock, TraceStep};
use stackelberg_data::{Identity, Prompt};
use stackelberg_decoding::{Generation, Method, Options, Policy, Settings, Step};
use stackelberg_engine::reward::TextFormat;
use stackelberg_engine::{ChatTemplate, Reward, TextProcessor, Tokenizer};

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
pub fn identity(names: Names<'_>, settings: &Settings, format: TextFormat, policy: &Policy) -> Identity {
    let mut options = Options::all(settings).without_neutral();
    // The method and the seed have fields of their own. Settings added later are written only if they differ from the
    // default, so that older files still match.
    (options.method, options.seed) = (None, None);
    options.score_every = options.score_every.filter(|&tokens| tokens != 1);
    options.entropy_gate = options.entropy_gate.filter(|&nats| nats != 0.0);
    options.token_price = options.token_price.filter(|&price| price != 0.0);
    options.reject = options.reject.filter(|&fraction| fraction != 0.0);
    if !settings.method.decodes_blocks() {
        options.keep = None;
    }
    if !settings.decodes_blocks() {
        options.block = None;
    }
    let mut value = json!(options);
    value["kl_budget"] = json!(options.kl_budget);
    for (name, of) in [
        ("model", json!(names.model)),
        ("model_fingerprint", json!(policy.fingerprint())),
        ("dtype", json!(names.dtype)),
        ("reward", json!(names.reward)),
        ("value", json!(names.value)),
        ("prompt_format", json!(format.name())),
        ("system", json!(names.system)),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
    ] {
        value[name] = of;
    }
    if let Some(device) = names.device {
        value["device"] = json!(device);
    }
    if let Some(template) = policy.template.as_ref().filter(|template| !template.args().is_empty()) {
        value["template_args"] = json!(template.args());
    }
    Identity {
        method: settings.method.name().to_owned(),
        settings: value,
        seed: settings.seed,
        reward_hash: names.reward_hash.map(str::to_owned),
        value_hash: names.value_hash.map(str::to_owned),
        template_hash: None,
    }
}

/// The hash of the chat templates that lay out prompts for the policy and texts for the reward; `None` if none does.
pub fn template_hash(
    policy: &TextProcessor,
    format: TextFormat,
    reward: Option<&Reward>,
) -> Option<String> {
    let own = policy.template.as_ref().filter(|_| format == TextFormat::Chat);
    let of_rewards = reward.map_or(&[][..], Reward::each).iter().filter_map(|reward| match reward {
        Reward::Text(text) => text.template(),
        _ => None,
    });
    let all: Vec<String> = own.into_iter().chain(of_rewards).map(ChatTemplate::fingerprint).collect();
    (!all.is_empty()).then(|| sha256(all.join("\n")))
}

/// An answer as a line of the output file.
pub fn response(
    identity: &Identity,
    parts: &[String],
    (id, prompt): (&str, &Prompt),
    answer: &Generation,
    warnings: &[String],
) -> Response {
    let saves = ["token_price", "reject"].iter().any(|name| !identity.settings[*name].is_null());
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
        tail_nll: answer.tail_nll,
        kl_bound: answer.kl_bound(),
        tokens_run: Some(answer.tokens_run),
        tokens_scored: Some(answer.tokens_scored),
        tokens_saved: saves.then_some(answer.tokens_saved),
        reward_lost: saves.then_some(answer.reward_lost),
        warnings: warnings.to_vec(),
        ..Record::default()
    };
    let (id, prompt, text) = (id.to_owned(), prompt.clone(), answer.text.clone());
    Response { id, prompt, text, record: identity.record(record) }
}

/// The block that begins with a step, if one does.
fn block(step: &Step, tokenizer: &Tokenizer) -> Result<Option<TraceBlock>> {
    let (Some(block), Some(chosen)) = (&step.block, step.continuation) else { return Ok(None) };
    let texts = block.continuations.iter().map(|tokens| tokenizer.decode(tokens, true));
    Ok(Some(TraceBlock {
        continuations: block.continuations.clone(),
        texts: texts.collect::<std::result::Result<_, _>>()?,
        scores: block.scores.clone(),
        shaped: block.shaped.clone(),
        threshold: block.threshold,
        bound: block.bound,
        weights: block.weights.clone(),
        rewards: block.rewards.clone(),
        parents: block.parents.clone(),
        chosen,
    }))
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
    let steps = steps.iter().enumerate();
    steps.map(|(number, step)| trace_step(id, method, number, step, parts, tokenizer)).collect()
}

/// One step of an answer as a line of a trace. `number` counts from 0.
///
/// # Errors
/// The tokenizer cannot decode a candidate.
pub fn trace_step(
    id: &str,
    method: Method,
    number: usize,
    step: &Step,
    parts: &[String],
    tokenizer: &Tokenizer,
) -> Result<TraceStep> {
    let tokens = step.candidates.iter().map(|&token| tokenizer.decode(&[token], true));
    let (scores, rewards) = (step.logits.clone(), step.rewards.clone());
    Ok(TraceStep {
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
        block: block(step, tokenizer)?,
    })
}
