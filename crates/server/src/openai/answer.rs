//! Answers, whole and in chunks.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use stackelberg_data::trace::TraceStep;
use utoipa::ToSchema;

use super::logprobs::{ChatLogprobs, CompletionLogprobs, PromptLogprob};

/// How guidance went.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct GuidanceReport {
    /// The decoding method.
    pub(crate) method: &'static str,
    /// The answer's reward, if there is a reward.
    pub(crate) reward: Option<f64>,
    /// The rewards by name: of a combination those that it is made of.
    pub(crate) rewards: BTreeMap<String, f64>,
    /// KL from the base policy over the candidates, in nats; null for greedy guided answers.
    pub(crate) kl: Option<f64>,
    /// Upper bound on the KL from the base policy, in nats; of particles an estimate, whose mean over answers is meant.
    pub(crate) kl_bound: Option<f64>,
    /// Steps in which the choice was not the base policy's.
    pub(crate) steered: usize,
    /// Steps in which rewards were computed; texts that were scored in order to choose among them.
    pub(crate) reward_calls: usize,
    /// Steps whose rewards could not change the choice.
    pub(crate) skipped: usize,
    /// Tokens that were run through the policy.
    pub(crate) tokens_run: usize,
    /// The settings in force, with the names of the reward and the value head.
    #[schema(value_type = Object)]
    pub(crate) settings: Value,
}

/// Numbers of tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: usize,
    pub(crate) total_tokens: usize,
    pub(crate) completion_tokens: usize,
}

impl Usage {
    pub(crate) fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self { prompt_tokens, total_tokens: prompt_tokens + completion_tokens, completion_tokens }
    }
}

/// An answer, or a chunk of one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Answer<C> {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    /// Seconds since 1970.
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) choices: Vec<C>,
    /// The seed of everything random: with it, the same request has the same answer.
    pub(crate) seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Usage>,
    /// Of a chat, with `return_token_ids`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_token_ids: Option<Vec<u32>>,
    /// Of a chat, with `prompt_logprobs`: for each token of the prompt the log-probabilities by token id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Option<BTreeMap<String, PromptLogprob>>>>)]
    pub(crate) prompt_logprobs: Option<PromptLogprobs>,
}

/// For each token of the prompt the log-probabilities by token id; null for the first.
pub(crate) type PromptLogprobs = Vec<Option<BTreeMap<u32, PromptLogprob>>>;

/// How `stop_reason` looks.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "it is a schema only")]
pub(crate) enum StopReason {
    /// A stop text.
    Text(String),
    /// A stop token.
    Token(u32),
}

/// What choices have in common.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct Rest {
    /// `stop`, `length`, or `abort` if the server ended; null while the answer goes on.
    pub(crate) finish_reason: Option<&'static str>,
    /// The stop text or stop token that ended the answer.
    #[schema(value_type = Option<StopReason>)]
    pub(crate) stop_reason: Option<Value>,
    /// The tokens, with `return_token_ids`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_ids: Option<Vec<u32>>,
    /// How guidance went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) guidance: Option<GuidanceReport>,
    /// The steps that led to the tokens, with `trace`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub(crate) trace: Vec<TraceStep>,
}

/// A choice of a chat.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatChoice {
    pub(crate) index: usize,
    pub(crate) message: AnswerMessage,
    pub(crate) logprobs: Option<ChatLogprobs>,
    #[serde(flatten)]
    pub(crate) rest: Rest,
}

/// The message of a choice.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnswerMessage {
    /// `assistant`.
    pub(crate) role: &'static str,
    pub(crate) content: String,
    /// Always null.
    pub(crate) refusal: Option<String>,
}

/// A chunk of a chat's choice.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatDelta {
    pub(crate) index: usize,
    pub(crate) delta: Delta,
    pub(crate) logprobs: Option<ChatLogprobs>,
    #[serde(flatten)]
    pub(crate) rest: Rest,
}

/// What a chunk adds to a message.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<String>,
}

/// A completion's choice, or a chunk of one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CompletionChoice {
    pub(crate) index: usize,
    pub(crate) text: String,
    pub(crate) logprobs: Option<CompletionLogprobs>,
    /// With `return_token_ids`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_token_ids: Option<Vec<u32>>,
    /// With `prompt_logprobs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Option<BTreeMap<String, PromptLogprob>>>>)]
    pub(crate) prompt_logprobs: Option<PromptLogprobs>,
    #[serde(flatten)]
    pub(crate) rest: Rest,
}
