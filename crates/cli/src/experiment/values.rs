//! The value heads of an experiment: made by the commands that anyone could type.

use anyhow::{Context, Result};
use serde_json::json;
use stackelberg_engine::Prompt;
use stackelberg_learning::whole;

use super::file::Values;
use super::lab::{Lab, prompts_of};
use super::plan::ValueHead;
use crate::record::prompt_value;

impl Lab<'_> {
    /// Trains the value heads that are not there yet, from rollouts that are drawn first where they are not.
    pub(crate) fn train_values(&self, heads: &[ValueHead]) -> Result<()> {
        let mut missing: Vec<ValueHead> = Vec::new();
        for &head in heads {
            if !missing.contains(&head) && !self.value_file(head).exists() {
                missing.push(head);
            }
        }
        let (Some(values), false) = (&self.experiment.values, missing.is_empty()) else { return Ok(()) };
        let folder = self.out.join("values");
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
