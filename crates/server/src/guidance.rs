//! The `guidance` of a request: settings of decoding, and a reward and a value head by name.

use serde_json::{Map, Value};
use stackelberg_decoding::{Method, Options};

use crate::error::ApiError;
use crate::models::{Models, known};
use crate::openai::request::Object;

/// Settings that are fields of the request itself.
const ELSEWHERE: [(&str, &str); 16] = [
    ("max_new_tokens", "max_tokens"),
    ("temperature", "temperature"),
    ("top_k", "top_k"),
    ("top_p", "top_p"),
    ("min_p", "min_p"),
    ("repetition_penalty", "repetition_penalty"),
    ("seed", "seed"),
    ("stop", "stop"),
    ("no_eos", "ignore_eos"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    ("logit_bias", "logit_bias"),
    ("min_tokens", "min_tokens"),
    ("stop_tokens", "stop_token_ids"),
    ("include_stop", "include_stop_str_in_output"),
    ("log_probs", "logprobs"),
];

/// Fields beside the settings.
const OWN: [&str; 5] = ["beta", "extends", "reward", "trace", "value"];

/// What guides an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Guidance {
    /// The settings that are given.
    pub(crate) options: Options,
    /// A reward's name, or a combination of several.
    pub(crate) reward: Option<String>,
    /// A value head's name.
    pub(crate) value: Option<String>,
    /// Whether the steps are told.
    pub(crate) trace: bool,
}

impl Guidance {
    /// Reads the object. `default` is what `"extends": "default"` extends.
    ///
    /// # Errors
    /// A field is unknown, or its value is no good.
    pub(crate) fn read(object: Value, default: Option<&Self>) -> Result<Self, ApiError> {
        let Value::Object(mut object) = object else {
            return Err(ApiError::invalid("guidance", "guidance must be an object"));
        };
        let extends = match text(&mut object, "extends")?.as_deref() {
            None => None,
            Some("default") => Some(default.cloned().unwrap_or_else(Self::base)),
            Some(_) => {
                return Err(wrong("extends", "it must be \"default\", the server's default guidance"));
            }
        };
        let (reward, value) = (text(&mut object, "reward")?, text(&mut object, "value")?);
        let trace = match object.remove("trace") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(trace)) => Some(trace),
            Some(_) => return Err(wrong("trace", "it must be true or false")),
        };
        take_beta(&mut object)?;
        check_names(&object)?;
        let options = settings(object)?;
        if options.bound.is_some() && options.kl_budget.is_some() {
            return Err(wrong(
                "bound",
                "it has no effect with kl_budget, which solves for it: give one",
            ));
        }
        let given = Self { options, reward, value, trace: trace.unwrap_or(false) };
        let Some(default) = extends else { return Ok(given) };
        let mut rest = default.options;
        // A strength or a bound replaces a budget, and a budget a bound.
        if given.options.kl_budget.is_some() {
            rest.bound = None;
        } else if given.options.strength.is_some() || given.options.bound.is_some() {
            rest.kl_budget = None;
        }
        Ok(Self {
            options: given.options.or(rest),
            reward: given.reward.or(default.reward),
            value: given.value.or(default.value),
            trace: trace.unwrap_or(default.trace),
        })
    }

    /// The base policy alone.
    pub(crate) fn base() -> Self {
        Self { options: Options { method: Some(Method::Base), ..Options::default() }, ..Self::default() }
    }

    /// The method.
    pub(crate) fn method(&self) -> Method {
        self.options.method.unwrap_or_default()
    }

    /// Checks that the method has what it needs, and that it uses what it has.
    ///
    /// # Errors
    /// A reward or a value head is missing, or has no effect.
    pub(crate) fn check(&self, models: &Models) -> Result<(), ApiError> {
        let method = self.method();
        let lacks = |field: &str, what: &str, known: String| {
            Err(wrong(field, &format!("the method {method} needs {what}; {known}")))
        };
        if self.reward.is_none() && needs(method).contains(&"reward") {
            return lacks("reward", "a reward", known(models.rewards()));
        }
        if self.value.is_none() && needs(method).contains(&"value") {
            return lacks("value", "a value head", known(models.values()));
        }
        if self.value.is_some() && !takes(method).contains(&"value") {
            return Err(wrong("value", &format!("it has no effect with method {method}: leave it out")));
        }
        Ok(())
    }
}

/// Which of reward and value head a method needs.
pub(crate) fn needs(method: Method) -> &'static [&'static str] {
    match method {
        Method::Base => &[],
        Method::Cd => &["value"],
        _ => &["reward"],
    }
}

/// Which of reward and value head a method takes.
pub(crate) fn takes(method: Method) -> &'static [&'static str] {
    match method {
        Method::Cd | Method::Blockwise | Method::Particles => &["reward", "value"],
        _ => &["reward"],
    }
}

/// The settings of `guidance` that a method uses.
pub(crate) fn names(method: Method) -> impl Iterator<Item = &'static str> {
    let of_method = Options::FIELDS.iter().filter(move |(_, methods)| methods.contains(&method));
    of_method.map(|(field, _)| *field).filter(|field| is_own(field))
}

/// Whether a setting is a field of `guidance`, not of the request itself.
fn is_own(field: &str) -> bool {
    ELSEWHERE.iter().all(|(setting, _)| *setting != field)
}

/// The guidance in a request: its field `guidance`, or that of `extra_body` or `vllm_xargs`.
///
/// # Errors
/// There are two, or these objects have other fields.
pub(crate) fn given(
    own: Option<Value>,
    extra_body: Option<Object>,
    vllm_xargs: Option<Object>,
) -> Result<Option<Value>, ApiError> {
    let mut found = own.filter(|value| !value.is_null());
    for (name, object) in [("extra_body", extra_body), ("vllm_xargs", vllm_xargs)] {
        for (field, mut value) in object.unwrap_or_default() {
            if field != "guidance" {
                let field = format!("{name}.{field}");
                let message = format!("{field} is unknown: {name} may have the field guidance only");
                return Err(ApiError::invalid(field, message));
            }
            if let Value::String(text) = &value {
                value = serde_json::from_str(text).map_err(|error| {
                    ApiError::invalid(
                        format!("{name}.guidance"),
                        format!("{name}.guidance: not JSON: {error}"),
                    )
                })?;
            }
            if found.replace(value).is_some() {
                return Err(ApiError::invalid("guidance", "guidance is given twice: give it once"));
            }
        }
    }
    Ok(found)
}

fn wrong(field: &str, message: &str) -> ApiError {
    let field = format!("guidance.{field}");
    let message = format!("{field}: {message}");
    ApiError::invalid(field, message)
}

/// Takes out a text.
fn text(object: &mut Map<String, Value>, field: &str) -> Result<Option<String>, ApiError> {
    match object.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(field, "it must be a text")),
    }
}

/// Replaces `beta` by the strength.
fn take_beta(object: &mut Map<String, Value>) -> Result<(), ApiError> {
    let Some(beta) = object.remove("beta").filter(|beta| !beta.is_null()) else { return Ok(()) };
    let Some(beta) = beta.as_f64() else { return Err(wrong("beta", "it must be a number above zero")) };
    let given = object.get("strength").filter(|strength| !strength.is_null());
    let given = given.map(|strength| strength.as_f64().unwrap_or_default());
    let strength = strength(Some(beta), given).map_err(|message| wrong("beta", &message))?;
    object.insert("strength".to_owned(), strength.into());
    Ok(())
}

/// The strength: as given, or `1/beta`.
///
/// # Errors
/// Both are given, or `beta` has no inverse.
pub(crate) fn strength(beta: Option<f64>, strength: Option<f64>) -> Result<Option<f64>, String> {
    match (beta, strength) {
        (None, strength) => Ok(strength),
        (Some(_), Some(_)) => Err("it is 1/strength: give one of them".to_owned()),
        (Some(beta), None) if beta > 0.0 && beta.recip().is_finite() => Ok(Some(beta.recip())),
        (Some(_), None) => Err("it must be a number above zero".to_owned()),
    }
}

/// Refuses unknown fields, and those that belong elsewhere.
fn check_names(object: &Map<String, Value>) -> Result<(), ApiError> {
    for name in object.keys() {
        if let Some((_, field)) = ELSEWHERE.iter().find(|(setting, _)| setting == name) {
            return Err(wrong(name, &format!("give it as {field} of the request")));
        }
        let setting = Options::FIELDS.iter().any(|(field, _)| field == name);
        if !setting && name != "method" {
            let others = Options::FIELDS.iter().map(|(field, _)| *field);
            let others = others.filter(|field| is_own(field));
            let mut known: Vec<&str> = others.chain(OWN).chain(["method"]).collect();
            known.sort_unstable();
            return Err(wrong(name, &format!("unknown; known are {}", known.join(", "))));
        }
    }
    Ok(())
}

/// The settings, whose names are known.
fn settings(object: Map<String, Value>) -> Result<Options, ApiError> {
    serde_path_to_error::deserialize(Value::Object(object)).map_err(|error| {
        let field = error.path().to_string();
        match field.as_str() {
            "." => ApiError::invalid("guidance", format!("guidance: {}", error.inner())),
            field => wrong(field, &error.inner().to_string()),
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Guidance, String> {
        let default = json!({"method": "args", "reward": "kind", "bound": 2.0, "candidates": 5});
        let default = Guidance::read(default, None).map_err(|error| error.message)?;
        Guidance::read(value, Some(&default)).map_err(|error| error.message)
    }

    #[test]
    fn the_default_is_replaced_whole_unless_it_is_extended() {
        let whole = read(json!({"reward": "short", "strength": 0.5})).unwrap();
        assert_eq!((whole.options.candidates, whole.options.bound), (None, None));
        let extended = read(json!({"extends": "default", "strength": 0.5, "trace": true})).unwrap();
        assert_eq!(extended.reward.as_deref(), Some("kind"));
        assert_eq!((extended.options.candidates, extended.options.bound), (Some(5), Some(2.0)));
        assert_eq!((extended.options.strength, extended.trace), (Some(0.5), true));
        let budget = read(json!({"extends": "default", "kl_budget": 0.5})).unwrap();
        assert_eq!((budget.options.kl_budget, budget.options.bound), (Some(0.5), None));
        assert_eq!(read(json!({"beta": 4.0})).unwrap().options.strength, Some(0.25));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (value, message) in [
            (json!(3), "guidance must be an object"),
            (json!({"extends": "mine"}), "guidance.extends: it must be \"default\""),
            (json!({"reward": 3}), "guidance.reward: it must be a text"),
            (json!({"trace": 1}), "guidance.trace: it must be true or false"),
            (json!({"strenght": 1}), "guidance.strenght: unknown; known are alpha, beams, "),
            (
                json!({"max_new_tokens": 1}),
                "guidance.max_new_tokens: give it as max_tokens of the request",
            ),
            (json!({"method": "magic"}), "guidance.method: unknown method 'magic'"),
            (json!({"bound": "x"}), "guidance.bound: invalid type"),
            (json!({"beta": 0}), "guidance.beta: it must be a number above zero"),
            (json!({"beta": 1, "strength": 1}), "guidance.beta: it is 1/strength"),
            (json!({"bound": 1, "kl_budget": 1}), "guidance.bound: it has no effect with kl_budget"),
            (json!({"candidates": -1}), "guidance.candidates: invalid value"),
        ] {
            let said = read(value.clone()).expect_err("it is wrong");
            assert!(said.starts_with(message), "{value}: {said}");
        }
    }

    #[test]
    fn guidance_is_given_once() {
        let object = |text: &str| serde_json::from_str::<Object>(text).ok();
        let found = given(None, object(r#"{"guidance": {"reward": "a"}}"#), None);
        assert_eq!(found.unwrap(), Some(json!({"reward": "a"})));
        let found = given(Some(Value::Null), None, object(r#"{"guidance": "{\"reward\": \"a\"}"}"#));
        assert_eq!(found.unwrap(), Some(json!({"reward": "a"})));
        assert!(given(Some(json!({})), None, object(r#"{"guidance": {}}"#)).is_err());
        assert_eq!(
            given(None, object(r#"{"x": 1}"#), None).unwrap_err().param.as_deref(),
            Some("extra_body.x")
        );
    }
}
