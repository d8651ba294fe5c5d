//! Log-probabilities of tokens, in the shapes of chats and of completions.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

/// The log-probabilities of a chat's choice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct ChatLogprobs {
    pub(crate) content: Vec<ChatLogprob>,
}

/// A token of a chat's choice with its log-probability, in nats.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct ChatLogprob {
    #[serde(flatten)]
    pub(crate) token: TokenLogprob,
    pub(crate) top_logprobs: Vec<TokenLogprob>,
}

/// A token with its log-probability, in nats.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct TokenLogprob {
    pub(crate) token: String,
    pub(crate) logprob: f64,
    /// The token's text as UTF-8.
    pub(crate) bytes: Vec<u8>,
}

/// The log-probabilities of a completion's choice: lists with one element per token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct CompletionLogprobs {
    /// Where each token's text begins, in characters.
    pub(crate) text_offset: Vec<usize>,
    /// In nats; null for the first token of a prompt.
    pub(crate) token_logprobs: Vec<Option<f64>>,
    pub(crate) tokens: Vec<String>,
    pub(crate) top_logprobs: Vec<Option<BTreeMap<String, f64>>>,
}

/// A token at a place of a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct PromptLogprob {
    /// In nats.
    pub(crate) logprob: f64,
    /// Its place among all tokens, from 1.
    pub(crate) rank: usize,
    pub(crate) decoded_token: String,
}
