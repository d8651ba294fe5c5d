//! Requests for answers. Every field that is known is listed: others are errors, so that nothing is ignored unnoticed.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Number, Value};
use utoipa::ToSchema;

use super::message::ChatMessage;
use super::objects;
use super::prompts::{OneOrMany, Prompts, PromptsSchema};

/// An object of JSON.
pub(crate) type Object = Map<String, Value>;

/// Generates requests, each with its own fields and those that all requests for answers have.
macro_rules! requests {
    (common $common:tt $($(#[$meta:meta])* $name:ident $own:tt)*) => {
        common! { $common }
        $(request! { [$(#[$meta])*] $name $own $common })*
    };
}

macro_rules! common {
    ({ $($(#[$_meta:meta])* $field:ident: $type:ty,)* }) => {
        /// The fields that all requests for answers have.
        #[derive(Debug, Default)]
        #[allow(dead_code, reason = "some fields are accepted and not used")]
        pub(crate) struct Common { $(pub(crate) $field: Option<$type>,)* }
    };
}

macro_rules! request {
    ([$(#[$meta:meta])*] $name:ident { $($(#[$om:meta])* $own:ident: $ot:ty,)* }
     { $($(#[$cm:meta])* $common:ident: $ct:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code, reason = "some fields are accepted and not used")]
        pub(crate) struct $name {
            $($(#[$om])* pub(crate) $own: Option<$ot>,)*
            $($(#[$cm])* $common: Option<$ct>,)*
        }

        impl $name {
            /// Takes out the fields that all requests have.
            pub(crate) fn common(&mut self) -> Common {
                Common { $($common: self.$common.take(),)* }
            }
        }
    };
}

requests! {
    common {
        /// The model's name, as `/v1/models` lists it. May be left out.
        model: String,
        /// Maximum number of new tokens. Prompt and answer must fit the context.
        #[schema(minimum = 0)]
        max_tokens: u64,
        /// Choices per prompt.
        #[schema(minimum = 1)]
        n: u64,
        /// Sampling temperature; 0 is greedy. Without guidance the default is 1, with guidance the method's.
        temperature: f64,
        /// Sample from the likeliest tokens with this total probability only.
        top_p: f64,
        /// Sample from so many likeliest tokens only; 0 and -1 are all.
        top_k: i64,
        /// Sample from tokens with at least this probability relative to the likeliest only.
        min_p: f64,
        /// Logits of tokens already written are divided by this.
        repetition_penalty: f64,
        /// Subtracted from the logits of tokens already written.
        presence_penalty: f64,
        /// Subtracted from the logits of tokens already written, for each time.
        frequency_penalty: f64,
        /// Added to the logits of these tokens.
        #[schema(value_type = Option<BTreeMap<String, f64>>)]
        logit_bias: BTreeMap<String, f64>,
        /// Everything random follows from this and the choice's index. Without it, a new one is drawn and returned.
        #[schema(value_type = Option<i64>)]
        seed: Number,
        /// Texts that end the answer.
        stop: OneOrMany,
        /// Tokens that end the answer.
        stop_token_ids: Vec<u32>,
        /// Whether the answer is sent token by token.
        stream: bool,
        /// Options of a stream.
        #[serde(default, deserialize_with = "objects::one")]
        stream_options: StreamOptions,
        /// What guides the answer; see the guide. May also be in `extra_body` or `vllm_xargs`.
        #[schema(value_type = Option<crate::openapi::Guidance>)]
        guidance: Value,
        /// Its field `guidance` is read.
        #[schema(value_type = Option<Object>)]
        extra_body: Object,
        /// Its field `guidance` is read, an object or its JSON as a text.
        #[schema(value_type = Option<Object>)]
        vllm_xargs: Object,
        /// Log-probabilities of so many likeliest tokens at each place of the prompt.
        prompt_logprobs: u64,
        /// The answer does not end before it has so many tokens.
        min_tokens: u64,
        /// Whether the answer goes on after the end-of-text token.
        ignore_eos: bool,
        /// Whether the text that ended the answer is part of it.
        include_stop_str_in_output: bool,
        /// Whether special tokens such as BOS are added to a text.
        add_special_tokens: bool,
        /// Whether choices have the ids of their tokens.
        return_token_ids: bool,
        /// Whether log-probabilities name tokens as `token_id:N`.
        return_tokens_as_token_ids: bool,
        /// Whether the answer begins with the prompt.
        echo: bool,
        /// Must be true.
        detokenize: bool,
        /// Must be null or empty.
        allowed_token_ids: Vec<u32>,
        /// Must be null or empty.
        bad_words: Vec<String>,
        /// Must be null: answers are plain text.
        #[schema(value_type = Option<Object>)]
        structured_outputs: Value,
        /// Must be true.
        skip_special_tokens: bool,
        /// Accepted and not used: no spaces are added.
        spaces_between_special_tokens: bool,
        /// Must be null: prompts are never cut.
        truncate_prompt_tokens: i64,
        /// Must be false: beams are a setting of the method cd.
        use_beam_search: bool,
        /// Must be 1: see `guidance`.
        length_penalty: f64,
        /// Must be `{"type": "text"}`.
        #[schema(value_type = Option<Object>)]
        response_format: Value,
        /// Accepted and not used.
        user: String,
        /// Accepted and not used.
        #[schema(value_type = Option<Object>)]
        metadata: IgnoredAny,
        /// Accepted and not used: nothing is stored.
        store: bool,
        /// Accepted and not used.
        service_tier: String,
        /// Accepted and not used.
        safety_identifier: String,
        /// Accepted and not used.
        prompt_cache_key: String,
        /// Accepted and not used.
        cache_salt: String,
        /// Accepted and not used.
        request_id: String,
        /// Must be 0.
        priority: i64,
    }

    /// A request for the next message of a chat.
    ChatRequest {
        /// The conversation so far.
        #[serde(default, deserialize_with = "objects::several")]
        messages: Vec<ChatMessage>,
        /// As `max_tokens`.
        max_completion_tokens: u64,
        /// Whether choices have the log-probabilities of their tokens.
        logprobs: bool,
        /// Log-probabilities of so many likeliest tokens, too.
        top_logprobs: u64,
        /// Whether the template begins the assistant's message.
        add_generation_prompt: bool,
        /// Whether the last message is continued.
        continue_final_message: bool,
        /// Variables of the chat template.
        #[schema(value_type = Option<Object>)]
        chat_template_kwargs: Object,
        /// Must be null: the model's own template is used.
        chat_template: String,
        /// Must be null or empty.
        #[schema(value_type = Option<Vec<Object>>)]
        tools: Value,
        /// Must be `none` or `auto`.
        #[schema(value_type = Option<Value>)]
        tool_choice: Value,
        /// Accepted and not used: there are no tools.
        parallel_tool_calls: bool,
        /// Must be null or empty.
        #[schema(value_type = Option<Vec<Object>>)]
        functions: Value,
        /// Must be `none` or `auto`.
        #[schema(value_type = Option<Value>)]
        function_call: Value,
        /// Must be `["text"]`.
        modalities: Vec<String>,
        /// Must be null.
        #[schema(value_type = Option<Object>)]
        audio: Value,
        /// Must be null.
        #[schema(value_type = Option<Object>)]
        prediction: Value,
        /// Must be null.
        #[schema(value_type = Option<Object>)]
        web_search_options: Value,
        /// Must be null: use `chat_template_kwargs`.
        reasoning_effort: String,
        /// Must be null.
        verbosity: String,
        /// Must be null or empty.
        #[schema(value_type = Option<Vec<Object>>)]
        documents: Value,
    }

    /// A request for the continuation of texts.
    CompletionRequest {
        /// A text, texts, token ids, or lists of token ids.
        #[schema(value_type = Option<PromptsSchema>)]
        prompt: Prompts,
        /// Must be null or `n`.
        best_of: u64,
        /// Must be null: insertion is not supported.
        suffix: String,
        /// Log-probabilities of so many likeliest tokens.
        logprobs: u64,
    }
}

/// Options of a stream.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "some fields are accepted and not used")]
pub(crate) struct StreamOptions {
    /// Whether a last chunk has the numbers of tokens.
    pub(crate) include_usage: Option<bool>,
    /// Whether every chunk has them.
    pub(crate) continuous_usage_stats: Option<bool>,
    /// Accepted and not used.
    pub(crate) include_obfuscation: Option<bool>,
}
