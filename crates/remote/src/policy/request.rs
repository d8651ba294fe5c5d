//! The bodies of requests to `/v1/completions`.

use serde_json::{Value, json};
use stackelberg_decoding::policy::{Call, Wanted};

/// What a server calls its fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Dialect {
    /// vLLM's names, which most servers share.
    #[default]
    Vllm,
    /// llama-server's.
    LlamaCpp,
}

impl Dialect {
    /// The request for the tokens of a text.
    pub(super) fn tokenize(self, model: &str, text: &str) -> Value {
        match self {
            Self::Vllm => json!({"model": model, "prompt": text, "add_special_tokens": false}),
            Self::LlamaCpp => json!({"content": text}),
        }
    }

    /// What asks for so many likeliest tokens and for the log-probability of the drawn one.
    fn log_probs(self, likeliest: usize) -> usize {
        match self {
            Self::Vllm => likeliest,
            // 0 asks for nothing here.
            Self::LlamaCpp => likeliest.max(1),
        }
    }

    fn repetition_penalty(self) -> &'static str {
        match self {
            Self::Vllm => "repetition_penalty",
            Self::LlamaCpp => "repeat_penalty",
        }
    }
}

/// The request for a call. Every sampling setting is sent, since servers have defaults of their own.
pub(super) fn body(dialect: Dialect, model: &str, call: &Call) -> Value {
    let mut body = json!({
        "model": model,
        "prompt": call.tokens,
        "return_token_ids": true,
        // Different tokens may have the same text: tokens are named by their ids.
        "return_tokens_as_token_ids": true,
        // Ids are sent as they are.
        "add_special_tokens": false,
    });
    match &call.wanted {
        Wanted::Likeliest { k } => {
            body["max_tokens"] = json!(1);
            body["logprobs"] = json!(k);
            body["temperature"] = json!(0.0);
        }
        Wanted::Continuation { n, tokens, least, settings, seed, log_probs } => {
            let sampling = &settings.sampling;
            for (name, value) in [
                ("max_tokens", json!(tokens)),
                ("logprobs", json!(dialect.log_probs(*log_probs))),
                ("temperature", json!(sampling.temperature)),
                ("top_p", json!(sampling.top_p)),
                ("top_k", json!(sampling.top_k)),
                ("min_p", json!(sampling.min_p)),
                ("presence_penalty", json!(sampling.presence_penalty)),
                ("frequency_penalty", json!(sampling.frequency_penalty)),
                (dialect.repetition_penalty(), json!(1.0)),
                ("seed", json!(seed)),
            ] {
                body[name] = value;
            }
            if *n > 1 {
                body["n"] = json!(n);
            }
            if *least > 0 {
                body["min_tokens"] = json!(least);
            } else if !settings.stop.is_empty() {
                body["stop"] = json!(settings.stop);
            }
            if !settings.stop_tokens.is_empty() {
                body["stop_token_ids"] = json!(settings.stop_tokens);
            }
            if settings.no_eos {
                body["ignore_eos"] = json!(true);
            }
            if !settings.logit_bias.is_empty() {
                let bias =
                    settings.logit_bias.iter().map(|(token, bias)| (token.to_string(), json!(bias)));
                body["logit_bias"] = Value::Object(bias.collect());
            }
        }
    }
    body
}
