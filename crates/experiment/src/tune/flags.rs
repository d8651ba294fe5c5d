//! A setting as a command line of `stackelberg generate`.

use stackelberg_data::words::command_line;
use stackelberg_decoding::{Options, Settings};
use stackelberg_registry::usual_dtype;

use crate::error::Result;
use crate::file::{Experiment, Policy, shown};

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
    if let Some(tokenizer) = &policy.tokenizer {
        flag("tokenizer", tokenizer.clone());
    }
    if let Some(states) = &policy.states {
        flag("states", states.clone());
    }
    let dtype = policy.dtype();
    if dtype != usual_dtype(&policy.model) {
        flag("dtype", dtype.to_string());
    }
    if policy.kv_dtype != plain.kv_dtype {
        flag("kv-dtype", policy.kv_dtype.to_string());
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Map, json};

    use super::*;
    use crate::tune::Tuning;

    #[test]
    fn the_command_has_the_settings_of_the_run() {
        let policy = Policy { model: "my model.gguf".to_owned(), ..Policy::default() };
        let tuning = Tuning { policy, reward: "a*0.7+b".to_owned(), ..Tuning::example() };
        let text = tuning.file().unwrap();
        let experiment = Experiment::from_text(&text, Path::new("tune.toml")).unwrap();
        let settings = experiment.all_settings();
        assert_eq!(settings.len(), 11);
        for setting in settings {
            let command = command(&experiment, &setting.settings).unwrap();
            let begin = "stackelberg generate --model 'my model.gguf' --reward 'a*0.7+b' ";
            let flags = command.strip_prefix(begin).unwrap_or_else(|| panic!("{command}"));
            let words: Vec<&str> = flags.split(' ').collect();
            let mut given = Map::new();
            for pair in words.chunks(2) {
                let name = pair[0].trim_start_matches("--").replace('-', "_");
                given.insert(name, serde_json::from_str(pair[1]).unwrap_or_else(|_| json!(pair[1])));
            }
            let options: Options = serde_json::from_value(given.into()).unwrap();
            let found = options.settings().unwrap();
            assert_eq!(Options::used(&found), Options::used(&setting.settings), "{command}");
        }
    }
}
