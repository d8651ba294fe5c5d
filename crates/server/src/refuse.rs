//! Fields that are known and not supported: neutral values pass, others are errors that name the field.

use serde_json::Value;

use crate::error::ApiError;
use crate::openai::request::{ChatRequest, Common, CompletionRequest};

/// The first field that is given and not neutral.
fn first(fields: &[(&str, bool, &str)]) -> Result<(), ApiError> {
    match fields.iter().find(|(_, given, _)| *given) {
        None => Ok(()),
        Some((field, _, why)) => {
            Err(ApiError::unsupported(*field, format!("{field} is not supported: {why}")))
        }
    }
}

/// Whether a value says nothing: null, an empty list or an empty object.
fn is_empty(value: &Option<Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(object)) => object.is_empty(),
        Some(_) => false,
    }
}

/// Whether a choice of tools says that none is used.
fn no_choice(value: &Option<Value>) -> bool {
    is_empty(value)
        || matches!(value, Some(Value::String(choice)) if choice == "none" || choice == "auto")
}

const LEAVE: &str = "leave it out";

/// Fields that all requests have.
///
/// # Errors
/// The first one that is not neutral.
pub(crate) fn common(common: &Common) -> Result<(), ApiError> {
    let text = |value: &Value| value.get("type").and_then(Value::as_str) == Some("text");
    let format = common.response_format.as_ref().filter(|value| !value.is_null());
    first(&[
        ("response_format", format.is_some_and(|format| !text(format)), "answers are plain text"),
        ("structured_outputs", !is_empty(&common.structured_outputs), "answers are plain text"),
        (
            "allowed_token_ids",
            common.allowed_token_ids.as_ref().is_some_and(|list| !list.is_empty()),
            "use logit_bias",
        ),
        ("bad_words", common.bad_words.as_ref().is_some_and(|list| !list.is_empty()), "use logit_bias"),
        ("detokenize", common.detokenize == Some(false), "answers always have their text"),
        ("truncate_prompt_tokens", common.truncate_prompt_tokens.is_some(), "prompts are never cut"),
        (
            "use_beam_search",
            common.use_beam_search == Some(true),
            "beams are a setting of guidance with method cd",
        ),
        (
            "length_penalty",
            common.length_penalty.is_some_and(|p| p != 1.0),
            "it is a setting of guidance",
        ),
        (
            "skip_special_tokens",
            common.skip_special_tokens == Some(false),
            "answers never have special tokens",
        ),
        ("priority", common.priority.is_some_and(|p| p != 0), "requests are answered in order"),
    ])
}

/// Fields of chats.
///
/// # Errors
/// As [`common`].
pub(crate) fn chat(chat: &ChatRequest, echo: Option<bool>) -> Result<(), ApiError> {
    let modalities = chat.modalities.as_deref().unwrap_or_default();
    first(&[
        ("tools", !is_empty(&chat.tools), "there are no tools"),
        ("tool_choice", !no_choice(&chat.tool_choice), "there are no tools"),
        ("functions", !is_empty(&chat.functions), "there are no functions"),
        ("function_call", !no_choice(&chat.function_call), "there are no functions"),
        ("modalities", modalities.iter().any(|modality| modality != "text"), "answers are text"),
        ("audio", !is_empty(&chat.audio), "answers are text"),
        ("prediction", !is_empty(&chat.prediction), LEAVE),
        ("web_search_options", !is_empty(&chat.web_search_options), "the server makes no web requests"),
        ("reasoning_effort", chat.reasoning_effort.is_some(), "use chat_template_kwargs"),
        ("verbosity", chat.verbosity.is_some(), LEAVE),
        ("documents", !is_empty(&chat.documents), LEAVE),
        ("echo", echo == Some(true), "it is a field of completions"),
        ("chat_template", chat.chat_template.is_some(), "the model's own is used"),
    ])
}

/// Fields of completions; `n` is the number of choices.
///
/// # Errors
/// As [`common`].
pub(crate) fn completion(completion: &CompletionRequest, n: usize) -> Result<(), ApiError> {
    let best_of = completion.best_of.is_some_and(|best| best != n as u64);
    first(&[
        ("best_of", best_of, "use guidance with method best-of-n"),
        ("suffix", completion.suffix.is_some(), "insertion is not supported"),
    ])
}
