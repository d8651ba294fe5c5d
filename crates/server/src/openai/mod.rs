//! The bodies of requests and answers, as OpenAI and vLLM have them.

pub(crate) mod answer;
pub(crate) mod logprobs;
pub(crate) mod message;
pub(crate) mod objects;
pub(crate) mod prompts;
pub(crate) mod request;
