//! From the fields of a request to the settings of decoding.

use std::collections::BTreeMap;

use stackelberg_decoding::{Method, Options, Settings};
use stackelberg_registry::guidance::{GuidanceSpec, guides_steps};

use crate::config::Limits;
use crate::error::ApiError;
use crate::openai::request::Common;

/// Most likeliest tokens at a place, as of OpenAI.
const LIKELIEST: u64 = 20;

/// The default temperature without guidance, as of OpenAI.
pub(crate) const UNGUIDED_TEMPERATURE: f64 = 1.0;

/// The settings of a request, without what depends on the prompt and the seed.
///
/// # Errors
/// A field is out of range, above the operator's limit, or has no effect with the method.
pub(crate) fn options(
    common: &Common,
    guidance: &GuidanceSpec,
    limits: &Limits,
) -> Result<Options, ApiError> {
    let method = guidance.method();
    let mut options = guidance.options.clone();
    options.temperature =
        common.temperature.or((method == Method::Base).then_some(UNGUIDED_TEMPERATURE));
    if method.chooses() && options.temperature == Some(0.0) {
        let message =
            format!("temperature is 0: all samples that {method} chooses from would be the same");
        return Err(ApiError::invalid("temperature", message));
    }
    // Neutral values of what a method does not use pass.
    let used = |name: &str| {
        Options::FIELDS.iter().any(|(field, methods)| *field == name && methods.contains(&method))
    };
    options.top_k = match common.top_k {
        Some(0 | -1) if !used("top_k") => None,
        Some(0 | -1) => Some(0),
        Some(k) => Some(usize::try_from(k).map_err(|_| {
            ApiError::invalid("top_k", format!("top_k is {k}: it must be -1, 0 or more"))
        })?),
        None => None,
    };
    options.top_p = common.top_p.filter(|p| *p != 1.0 || used("top_p"));
    options.min_p = common.min_p.filter(|p| *p != 0.0 || used("min_p"));
    options.repetition_penalty = common.repetition_penalty;
    options.presence_penalty = common.presence_penalty;
    options.frequency_penalty = common.frequency_penalty;
    options.logit_bias = common.logit_bias.as_ref().map(|bias| bias_of(bias, limits)).transpose()?;
    options.min_tokens = common.min_tokens.map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX));
    options.no_eos = common.ignore_eos;
    options.stop_tokens = common.stop_token_ids.clone();
    options.include_stop = common.include_stop_str_in_output;
    options.stop = common.stop.clone().map(|stop| stop.into_vec());
    if !guides_steps(method) && !guidance.trace {
        // Candidates are only shown in traces.
        options.candidates = Some(1);
    }
    check(&options, limits)?;
    limit_defaults(&mut options, limits).map_err(|error| ApiError::decoding(&error))?;
    Ok(options)
}

/// Lowers defaults of the method that are above the operator's limits.
///
/// # Errors
/// The settings that are given exclude each other.
pub(crate) fn limit_defaults(
    options: &mut Options,
    limits: &Limits,
) -> stackelberg_decoding::Result<()> {
    let settings = options.settings()?;
    let used = Options::used(&settings);
    let used: Vec<&str> = used.given().collect();
    for (name, given, default, most) in [
        ("samples", &mut options.samples, settings.samples, limits.samples),
        ("candidates", &mut options.candidates, settings.candidates, limits.candidates),
        ("beams", &mut options.beams, settings.beams, limits.samples),
        ("block", &mut options.block, settings.block, limits.block),
        ("score_every", &mut options.score_every, settings.score_every, limits.block),
    ] {
        if given.is_none() && default > most && used.contains(&name) {
            *given = Some(most);
        }
    }
    Ok(())
}

/// The bias of each token.
fn bias_of(bias: &BTreeMap<String, f64>, limits: &Limits) -> Result<BTreeMap<u32, f64>, ApiError> {
    let field = "logit_bias";
    if bias.len() > limits.logit_bias {
        let message = format!(
            "logit_bias has {} tokens: this server takes at most {}",
            bias.len(),
            limits.logit_bias
        );
        return Err(ApiError::invalid(field, message));
    }
    let one = |(token, bias): (&String, &f64)| match token.parse() {
        Ok(token) => Ok((token, *bias)),
        Err(_) => {
            Err(ApiError::invalid(field, format!("logit_bias: {token:?} is not the id of a token")))
        }
    };
    bias.iter().map(one).collect()
}

/// The number of likeliest tokens whose log-probabilities are wanted.
///
/// # Errors
/// There are too many.
pub(crate) fn likeliest(field: &str, count: Option<u64>) -> Result<Option<usize>, ApiError> {
    match count {
        Some(count) if count > LIKELIEST => {
            Err(ApiError::invalid(field, format!("{field} is {count}: it must be at most {LIKELIEST}")))
        }
        count => Ok(count.map(|count| count as usize)),
    }
}

/// Checks the operator's limits.
fn check(options: &Options, limits: &Limits) -> Result<(), ApiError> {
    for (field, value, most) in [
        ("samples", options.samples, limits.samples),
        ("candidates", options.candidates, limits.candidates),
        ("beams", options.beams, limits.samples),
        ("block", options.block, limits.block),
        ("score_every", options.score_every, limits.block),
    ] {
        if let Some(value) = value.filter(|value| *value > most) {
            let field = format!("guidance.{field}");
            let message = format!("{field} is {value}: this server takes at most {most}");
            return Err(ApiError::invalid(field, message));
        }
    }
    let tokens = options.stop_tokens.as_deref().unwrap_or_default();
    if tokens.len() > limits.stops {
        let field = "stop_token_ids";
        let (count, most) = (tokens.len(), limits.stops);
        let message = format!("{field} has {count} tokens: this server takes at most {most}");
        return Err(ApiError::invalid(field, message));
    }
    let stops = options.stop.as_deref().unwrap_or_default();
    if stops.len() > limits.stops {
        let message =
            format!("stop has {} texts: this server takes at most {}", stops.len(), limits.stops);
        return Err(ApiError::invalid("stop", message));
    }
    if stops.iter().any(|stop| stop.is_empty() || stop.len() > limits.stop_bytes) {
        let message = format!("stop: each text must have between 1 and {} bytes", limits.stop_bytes);
        return Err(ApiError::invalid("stop", message));
    }
    Ok(())
}

/// The settings for a prompt, which has room for an answer of so many tokens.
///
/// # Errors
/// As [`options`].
pub(crate) fn settings(options: &Options, tokens: usize, seed: u64) -> Result<Settings, ApiError> {
    let options = Options { max_new_tokens: Some(tokens), seed: Some(seed), ..options.clone() };
    options.settings().map_err(|error| ApiError::decoding(&error))
}

/// Checks the operator's limit on a prompt, the field of this name with so many tokens.
fn check_prompt((name, prompt): (&str, usize), limits: &Limits) -> Result<(), ApiError> {
    if prompt > limits.prompt {
        let message = format!("{name} has {prompt} tokens: this server takes at most {}", limits.prompt);
        return Err(ApiError::too_long(name, message));
    }
    Ok(())
}

/// Checks a prompt that nothing follows. The settings still have one new token.
///
/// # Errors
/// It does not fit the context, or is above the operator's limit.
pub(crate) fn read_alone(
    (name, prompt): (&str, usize),
    context: usize,
    limits: &Limits,
) -> Result<usize, ApiError> {
    if prompt > context {
        let message = format!("{name} has {prompt} tokens: it must fit the context of {context}");
        return Err(ApiError::too_long(name, message));
    }
    check_prompt((name, prompt), limits)?;
    Ok(1)
}

/// The number of new tokens for a prompt, the field of this name with `prompt` tokens, of which `asked` were asked for. `default` is what there is
/// without, `context` the most tokens of prompt and answer together.
///
/// # Errors
/// They do not fit, or are above the operator's limit.
pub(crate) fn room(
    (name, prompt): (&str, usize),
    asked: Option<u64>,
    default: usize,
    context: usize,
    limits: &Limits,
) -> Result<usize, ApiError> {
    let field = "max_tokens";
    if prompt >= context {
        return Err(ApiError::no_room(name, prompt, context));
    }
    check_prompt((name, prompt), limits)?;
    let Some(asked) = asked else { return Ok(default.min(context - prompt).min(limits.tokens)) };
    if asked == 0 {
        return Err(ApiError::invalid(field, "max_tokens is 0: it must be at least 1"));
    }
    if (prompt as u64).saturating_add(asked) > context as u64 {
        let message = format!(
            "{name} has {prompt} tokens and max_tokens is {asked}: together they must fit the context of {context}"
        );
        return Err(ApiError::too_long(field, message));
    }
    if asked > limits.tokens as u64 {
        let message = format!("max_tokens is {asked}: this server takes at most {}", limits.tokens);
        return Err(ApiError::invalid(field, message));
    }
    Ok(asked as usize)
}

#[cfg(test)]
mod tests {
    use super::room;
    use crate::config::Limits;

    #[test]
    fn prompt_and_answer_fit_the_context() {
        let limits = Limits { tokens: 50, ..Limits::default() };
        let room = |prompt, asked, default| {
            room(("prompt", prompt), asked, default, 100, &limits).map_err(|e| e.message)
        };
        assert_eq!(room(90, None, 16), Ok(10));
        assert_eq!(room(10, None, usize::MAX), Ok(50));
        assert_eq!(room(90, Some(10), 16), Ok(10));
        assert_eq!(room(99, Some(1), 16), Ok(1));
        for (prompt, asked) in [(90, Some(11)), (100, None), (100, Some(1)), (0, Some(51)), (1, Some(0))]
        {
            assert!(room(prompt, asked, 16).is_err(), "{prompt} {asked:?}");
        }
        assert!(room(1, Some(1 << 63), 16).is_err() && room(1, Some(u64::MAX), 16).is_err());
    }
}
