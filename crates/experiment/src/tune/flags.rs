//! A setting as a command line of `stackelberg generate`.

use serde_json::Value;
use stackelberg_data::words::command_line;
use stackelberg_decoding::{Options, Settings};

use crate::error::Result;
use crate::file::{Experiment, Policy};

/// The command that generates with these settings. Settings that have the default of the method are left out.
///
/// # Errors
/// A setting has no effect with the method.
pub(super) fn command(experiment: &Experiment, settings: &Settings) -> Result<String> {
    let (policy, plain) = (&experiment.policy, Policy::default());
    let mut words = vec!["stackelberg".to_owned(), "generate".to_owned()];
    let mut flag = |name: &str, value: String| {
        words.extend([format!("--{}", name.replace('_', "-")), value]);
    };
    if policy.model != plain.model {
        flag("model", policy.model.clone());
    }
    if policy.dtype != plain.dtype {
        flag("dtype", policy.dtype.to_string());
    }
    if policy.device != plain.device {
        flag("device", policy.device.to_string());
    }
    if let Some(format) = policy.prompt_format {
        flag("prompt-format", format.to_string());
    }
    if let Some(system) = &policy.system {
        flag("system", system.clone());
    }
    for (name, value) in &policy.template_args {
        flag("template-arg", format!("{name}={}", serde_json::json!(value)));
    }
    flag("reward", experiment.rewards.guide.clone());
    let default = Options {
        method: Some(settings.method),
        score_every: (settings.score_every > 1).then_some(settings.score_every),
        ..Options::default()
    };
    let (used, default) = (Options::used(settings), Options::used(&default.settings()?));
    let (used, default) = (serde_json::json!(used), serde_json::json!(default));
    for (name, value) in used.as_object().into_iter().flatten() {
        // The number of tokens of a segment selects the defaults.
        let chosen = name == "method" || name == "score_every" && settings.score_every > 1;
        if chosen || default[name] != *value {
            flag(name, shown(value));
        }
    }
    Ok(command_line(&words))
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        // Without the decimals of a whole number.
        Value::Number(number) if number.is_f64() => number.as_f64().unwrap_or_default().to_string(),
        other => other.to_string(),
    }
}
