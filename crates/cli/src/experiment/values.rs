//! The value heads of an experiment: made by the commands that anyone could type.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::json;
use stackelberg_engine::Prompt;
use stackelberg_learning::whole;

use super::file::Values;
use super::lab::{Lab, hash_of, prompts_of};
use super::plan::ValueHead;
use crate::record::prompt_value;

impl Lab<'_> {
    /// Where value heads are, by all that they are taught from: another guide, policy or setting has other heads.
    pub(super) fn values_folder(&self) -> Result<Option<PathBuf>> {
        let Some(values) = &self.experiment.values else { return Ok(None) };
        let prompts: Vec<_> = prompts_of(&values.prompts)?
            .iter()
            .map(|(id, prompt)| json!([id, prompt_value(prompt)]))
            .collect();
        let mut taught = json!({
            "policy": self.policy.fingerprint, "dtype": self.experiment.policy.dtype.to_string(),
            "guide": self.guide_hash, "format": self.format.name(), "system": self.experiment.policy.system,
            "prompts": prompts, "samples": values.samples, "max_new_tokens": values.max_new_tokens,
            "strength": values.strength, "bound": values.bound, "alpha": values.alpha, "cap": values.cap,
            "epochs": values.epochs, "validation": values.validation,
        });
        if let Some(device) = &self.device {
            taught["device"] = json!(device);
        }
        Ok(Some(self.out.join("values").join(&hash_of(&taught)[..8])))
    }

    /// Trains the value heads that are not there yet, from rollouts that are drawn first where they are not.
    pub(crate) fn train_values(&self, heads: &[ValueHead]) -> Result<()> {
        let mut missing: Vec<ValueHead> = Vec::new();
        for &head in heads {
            if !missing.contains(&head) && !self.value_file(head).exists() {
                missing.push(head);
            }
        }
        let (Some(values), false) = (&self.experiment.values, missing.is_empty()) else { return Ok(()) };
        let Some(folder) = self.values.clone() else { return Ok(()) };
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let (prompts, rollouts) = (folder.join("prompts.jsonl"), folder.join("rollouts"));
        let mut lines = String::new();
        for (id, prompt) in prompts_of(&values.prompts)? {
            let field = match prompt {
                Prompt::Text(_) => "prompt",
                Prompt::Messages(_) => "messages",
            };
            lines.push_str(&json!({"id": id, (field): prompt_value(&prompt)}).to_string());
            lines.push('\n');
        }
        whole::write(&prompts, lines.as_bytes())?;
        let mut command = vec!["rollout".to_owned(), "--prompts".to_owned(), text(&prompts)];
        let mut flag = |name: &str, value: String| command.extend([format!("--{name}"), value]);
        flag("out", text(&rollouts));
        flag("reward", self.experiment.rewards.guide.clone());
        flag("model", self.experiment.policy.model.clone());
        flag("dtype", self.experiment.policy.dtype.to_string());
        flag("device", self.experiment.policy.device.to_string());
        flag("samples", values.samples.to_string());
        flag("max-new-tokens", values.max_new_tokens.to_string());
        if let Some(format) = self.experiment.policy.prompt_format {
            flag("prompt-format", format.to_string());
        }
        if let Some(system) = &self.experiment.policy.system {
            flag("system", system.clone());
        }
        crate::run(&command)?;
        missing.into_iter().try_for_each(|head| self.train_value(values, head, &text(&rollouts)))
    }

    fn train_value(&self, values: &Values, head: ValueHead, rollouts: &str) -> Result<()> {
        let file = self.value_file(head);
        let mut command = ["train", "value", rollouts].map(str::to_owned).to_vec();
        let mut flag = |name: &str, value: String| command.extend([format!("--{name}"), value]);
        flag("out", text(&file));
        flag("shaping", head.rule.to_string());
        flag("strength", values.strength.to_string());
        flag("bound", values.bound.to_string());
        flag("alpha", values.alpha.to_string());
        flag("cap", values.cap.to_string());
        flag("epochs", values.epochs.to_string());
        flag("validation", values.validation.to_string());
        flag("budget", if head.reference { "reference" } else { "paper" }.to_owned());
        if file.with_extension("training").exists() {
            command.push("--resume".to_owned());
        }
        crate::run(&command)
    }
}

fn text(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}
