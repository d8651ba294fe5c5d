//! Guidance as requests describe it: settings of decoding, and a reward and a value head by name.

use serde_json::{Map, Value, json};
use stackelberg_decoding::{Method, Options, Settings};

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
pub const OWN: [&str; 5] = ["beta", "extends", "reward", "trace", "value"];

/// Characters of an unknown name that errors repeat.
const NAME: usize = 100;

/// What guides an answer: the JSON object `guidance` of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GuidanceSpec {
    /// The settings that are given.
    pub options: Options,
    /// A reward's name, or a combination of several.
    pub reward: Option<String>,
    /// A value head's name.
    pub value: Option<String>,
    /// Whether the steps are told.
    pub trace: bool,
}

/// A field of [`GuidanceSpec`] that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct GuidanceError {
    /// The field: `guidance`, or `guidance.NAME`.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl GuidanceError {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl GuidanceSpec {
    /// Reads the object. `default` is what `"extends": "default"` extends.
    ///
    /// # Errors
    /// A field is unknown, or its value is no good.
    pub fn read(object: Value, default: Option<&Self>) -> Result<Self, GuidanceError> {
        let Value::Object(mut object) = object else {
            return Err(GuidanceError::new("guidance", "guidance must be an object"));
        };
        let extends = match text(&mut object, "extends")?.as_deref() {
            None => None,
            Some("default") => {
                // Without a default, what is given guides.
                let guides = object.contains_key("method") || object.contains_key("reward");
                let none = || if guides { Self::default() } else { Self::base() };
                Some(default.cloned().unwrap_or_else(none))
            }
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
        let method = given.options.method.or(default.options.method).unwrap_or_default();
        let mut rest = default.options;
        // A strength or a bound replaces a budget, and a budget a bound.
        if given.options.kl_budget.is_some() {
            rest.bound = None;
        } else if given.options.strength.is_some() || given.options.bound.is_some() {
            rest.kl_budget = None;
        }
        Ok(Self {
            options: given.options.extending(rest),
            reward: given.reward.or(default.reward),
            value: given.value.or(default.value.filter(|_| takes(method).contains(&"value"))),
            trace: trace.unwrap_or(default.trace),
        })
    }

    /// The base policy alone.
    pub fn base() -> Self {
        Self { options: Options { method: Some(Method::Base), ..Options::default() }, ..Self::default() }
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.options.method.unwrap_or_default()
    }

    /// Checks that the method has what it needs, and that it uses what it has. `rewards` and `values` are the names that are
    /// known, which errors list.
    ///
    /// # Errors
    /// A reward or a value head is missing, or has no effect.
    pub fn check(&self, rewards: &[&str], values: &[&str]) -> Result<(), GuidanceError> {
        let method = self.method();
        let lacks = |field: &str, what: &str, known: String| {
            Err(wrong(field, &format!("the method {method} needs {what}; {known}")))
        };
        if self.reward.is_none() && needs(method).contains(&"reward") {
            return lacks("reward", "a reward", known(rewards.iter().copied()));
        }
        if self.value.is_none() && needs(method).contains(&"value") {
            return lacks("value", "a value head", known(values.iter().copied()));
        }
        if self.value.is_some() && !takes(method).contains(&"value") {
            return Err(wrong("value", &format!("it has no effect with method {method}: leave it out")));
        }
        Ok(())
    }

    /// The settings in force under the names that requests give them, with the names of the reward and the value head.
    /// Candidates are only shown in traces where the method does not choose among them, and a KL budget solves for the bound.
    pub fn in_force(&self, settings: &Settings) -> Value {
        let mut options = Options::used(settings);
        options.log_probs = None;
        if !guides_steps(settings.method) && !self.trace {
            options.candidates = None;
        }
        if options.kl_budget.is_some() {
            options.bound = None;
        }
        let mut settings = json!(options);
        if let Value::Object(fields) = &mut settings {
            for (setting, field) in ELSEWHERE {
                if let Some(value) = fields.remove(setting) {
                    fields.insert(field.to_owned(), value);
                }
            }
        }
        for (name, value) in [("reward", &self.reward), ("value", &self.value)] {
            if let Some(value) = value {
                settings[name] = json!(value);
            }
        }
        settings
    }
}

/// The names that are known, as the end of an error.
pub fn known<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        "none is loaded".to_owned()
    } else {
        format!("known are {}", names.join(", "))
    }
}

/// Whether a method chooses among candidates at every step.
pub fn guides_steps(method: Method) -> bool {
    matches!(method, Method::Args | Method::Cd)
}

/// Which of reward and value head a method needs.
pub fn needs(method: Method) -> &'static [&'static str] {
    match method {
        Method::Base => &[],
        Method::Cd => &["value"],
        _ => &["reward"],
    }
}

/// Which of reward and value head a method takes.
pub fn takes(method: Method) -> &'static [&'static str] {
    match method {
        Method::Cd | Method::Blockwise | Method::Particles => &["reward", "value"],
        _ => &["reward"],
    }
}

/// The settings of `guidance` that a method uses.
pub fn names(method: Method) -> impl Iterator<Item = &'static str> {
    let of_method = Options::FIELDS.iter().filter(move |(_, methods)| methods.contains(&method));
    of_method.map(|(field, _)| *field).filter(|field| is_own(field))
}

/// Whether a setting is a field of `guidance`, not of the request itself.
pub fn is_own(field: &str) -> bool {
    ELSEWHERE.iter().all(|(setting, _)| *setting != field)
}

fn wrong(field: &str, message: &str) -> GuidanceError {
    let field = format!("guidance.{field}");
    let message = format!("{field}: {message}");
    GuidanceError::new(field, message)
}

/// Takes out a text.
fn text(object: &mut Map<String, Value>, field: &str) -> Result<Option<String>, GuidanceError> {
    match object.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(field, "it must be a text")),
    }
}

/// Replaces `beta` by the strength.
fn take_beta(object: &mut Map<String, Value>) -> Result<(), GuidanceError> {
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
pub fn strength(beta: Option<f64>, strength: Option<f64>) -> Result<Option<f64>, String> {
    match (beta, strength) {
        (None, strength) => Ok(strength),
        (Some(_), Some(_)) => Err("it is 1/strength: give one of them".to_owned()),
        (Some(beta), None) if beta > 0.0 && beta.recip().is_finite() => Ok(Some(beta.recip())),
        (Some(_), None) => Err("it must be a number above zero".to_owned()),
    }
}

/// Refuses unknown fields, and those that belong elsewhere.
fn check_names(object: &Map<String, Value>) -> Result<(), GuidanceError> {
    for name in object.keys() {
        let elsewhere = |(setting, field): &&(&str, &str)| setting == name || field == name;
        if let Some((_, field)) = ELSEWHERE.iter().find(elsewhere) {
            return Err(wrong(name, &format!("give it as {field} of the request")));
        }
        if name == "threshold" {
            let message = "the threshold m* follows from the rewards and the shaping rule; a trace has it: leave it out";
            return Err(wrong(name, message));
        }
        let setting = Options::FIELDS.iter().any(|(field, _)| field == name);
        if !setting && name != "method" {
            let others = Options::FIELDS.iter().map(|(field, _)| *field);
            let others = others.filter(|field| is_own(field));
            let mut known: Vec<&str> = others.chain(OWN).chain(["method"]).collect();
            known.sort_unstable();
            let name: String = name.chars().take(NAME).collect();
            return Err(wrong(&name, &format!("unknown; known are {}", known.join(", "))));
        }
    }
    Ok(())
}

/// The settings, whose names are known.
fn settings(object: Map<String, Value>) -> Result<Options, GuidanceError> {
    serde_path_to_error::deserialize(Value::Object(object)).map_err(|error| {
        let field = error.path().to_string();
        match field.as_str() {
            "." => GuidanceError::new("guidance", format!("guidance: {}", error.inner())),
            field => wrong(field, &error.inner().to_string()),
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<GuidanceSpec, String> {
        let default = json!({"method": "args", "reward": "kind", "bound": 2.0, "candidates": 5});
        let default = GuidanceSpec::read(default, None).map_err(|error| error.message)?;
        GuidanceSpec::read(value, Some(&default)).map_err(|error| error.message)
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
    fn another_method_inherits_what_it_uses() {
        let default = json!({"method": "best-of-n", "reward": "kind", "samples": 4});
        let default = GuidanceSpec::read(default, None).unwrap();
        let read = |value| GuidanceSpec::read(value, Some(&default)).unwrap();
        let args = read(json!({"extends": "default", "method": "args"}));
        assert_eq!((args.options.samples, args.reward.as_deref()), (None, Some("kind")));
        assert_eq!(read(json!({"extends": "default"})).options.samples, Some(4));
        // Without a default, a reward guides, and nothing is the base policy.
        let read = |value| GuidanceSpec::read(value, None).unwrap();
        assert_eq!(read(json!({"extends": "default", "reward": "kind"})).method(), Method::Args);
        assert_eq!(read(json!({"extends": "default"})).method(), Method::Base);
    }

    #[test]
    fn what_has_no_effect_is_not_inherited() {
        let read = |default: Value, given: Value| {
            let default = GuidanceSpec::read(default, None).unwrap();
            let found = GuidanceSpec::read(given, Some(&default)).unwrap();
            found.options.settings().expect("settings that fit each other");
            found
        };
        let budget = json!({"reward": "kind", "kl_budget": 0.5, "shaping": "hard"});
        let best = read(budget.clone(), json!({"extends": "default", "method": "blockwise"}));
        assert_eq!((best.options.kl_budget, best.options.shaping), (None, None));
        let drawn = json!({"extends": "default", "method": "blockwise", "keep": "draw"});
        assert_eq!(read(budget, drawn).options.kl_budget, Some(0.5));
        let drawn = json!({"method": "blockwise", "keep": "draw", "kl_budget": 0.3, "block": 8, "reward": "kind"});
        let best = read(drawn.clone(), json!({"extends": "default", "keep": "best"}));
        assert_eq!((best.options.kl_budget, best.options.block), (None, Some(8)));
        assert_eq!(
            read(drawn, json!({"extends": "default", "method": "best-of-n"})).options.block,
            None
        );
    }

    #[test]
    fn settings_in_force_have_the_names_of_requests() {
        let spec = GuidanceSpec::read(json!({"reward": "kind", "kl_budget": 0.5}), None).unwrap();
        let options = Options { max_new_tokens: Some(7), no_eos: Some(true), ..spec.options.clone() };
        let options = Options { stop_tokens: Some(vec![3]), log_probs: Some(2), ..options };
        let found = spec.in_force(&options.settings().unwrap());
        assert_eq!((&found["max_tokens"], &found["ignore_eos"]), (&json!(7), &json!(true)));
        assert_eq!((&found["stop_token_ids"], &found["kl_budget"]), (&json!([3]), &json!(0.5)));
        for name in ["max_new_tokens", "no_eos", "stop_tokens", "log_probs", "logprobs", "bound"] {
            assert_eq!(found.get(name), None, "{name}");
        }
        // What belongs to guidance can be sent again.
        let fields = found.as_object().unwrap().clone().into_iter();
        let own = fields.filter(|(name, _)| ELSEWHERE.iter().all(|(_, field)| field != name));
        let again = GuidanceSpec::read(Value::Object(own.collect()), None).unwrap();
        assert_eq!((again.method(), again.options.kl_budget), (Method::Args, Some(0.5)));
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
            (json!({"max_tokens": 1}), "guidance.max_tokens: give it as max_tokens of the request"),
            (json!({"threshold": 1}), "guidance.threshold: the threshold m* follows from the rewards"),
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
}
