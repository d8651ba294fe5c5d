//! The settings of an adapter: `adapter_config.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};

/// Settings that change the merged weights in ways that are not supported, unless they are null, false or empty.
const REFUSED: [&str; 9] = [
    "use_dora",
    "lora_bias",
    "use_qalora",
    "alora_invocation_tokens",
    "trainable_token_indices",
    "layer_replication",
    "arrow_config",
    "use_bdlora",
    "target_parameters",
];

/// The settings of an adapter.
pub(super) struct Config {
    /// The name of the base model.
    pub(super) base: String,
    /// Whether the model is a classifier or reward model (`SEQ_CLS`).
    pub(super) classifies: bool,
    /// Whether layers store their weights transposed.
    pub(super) transposed: bool,
    alpha: f64,
    /// The values of alpha for modules whose names have these ends.
    alphas: BTreeMap<String, f64>,
    rank_stabilised: bool,
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// It is malformed, is no LoRA adapter, or has a setting that cannot be merged.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| stackelberg_data::Error::read(path, e))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| Error::invalid(path, e))?;
        let kind = value["peft_type"].as_str().unwrap_or("(none named)");
        if kind != "LORA" {
            return Err(Error::invalid(
                path,
                format!("peft_type {kind} cannot be merged: only LORA can"),
            ));
        }
        let is_set = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Array(all) => !all.is_empty(),
            Value::Object(all) => !all.is_empty(),
            _ => true,
        };
        if let Some(name) = REFUSED.into_iter().find(|name| is_set(&value[*name])) {
            return Err(Error::invalid(
                path,
                format!("{name} cannot be merged: merge the adapter with PEFT and give that folder"),
            ));
        }
        if let Some(bias) = value["bias"].as_str().filter(|bias| *bias != "none") {
            return Err(Error::invalid(
                path,
                format!("bias \"{bias}\" cannot be merged: only \"none\" can"),
            ));
        }
        let number = |name: &str, value: &Value| {
            let number = value.as_f64().filter(|number| number.is_finite());
            number.ok_or_else(|| {
                Error::invalid(path, format!("{name} is {value}: it must be a finite number"))
            })
        };
        let mut alphas = BTreeMap::new();
        for (pattern, alpha) in value["alpha_pattern"].as_object().into_iter().flatten() {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if !pattern.strip_prefix('^').unwrap_or(pattern).chars().all(plain) {
                let what = format!(
                    "alpha_pattern has the expression '{pattern}': only names of modules can be merged"
                );
                return Err(Error::invalid(path, what));
            }
            alphas.insert(pattern.clone(), number("alpha_pattern", alpha)?);
        }
        let Some(base) = value["base_model_name_or_path"].as_str().filter(|name| !name.is_empty())
        else {
            return Err(Error::invalid(
                path,
                "base_model_name_or_path is missing: write the folder or the name of the base model",
            ));
        };
        Ok(Self {
            base: base.to_owned(),
            classifies: value["task_type"] == "SEQ_CLS",
            transposed: value["fan_in_fan_out"] == true,
            alpha: number("lora_alpha", &value["lora_alpha"])?,
            alphas,
            rank_stabilised: value["use_rslora"] == true,
        })
    }

    /// What the product of a module's two matrices of this rank is multiplied by: alpha / r, with rank stabilisation
    /// alpha / sqrt(r).
    pub(super) fn scale(&self, module: &str, rank: usize) -> f64 {
        let fits = |pattern: &str| match pattern.strip_prefix('^') {
            Some(whole) => module == whole,
            None => module == pattern || module.ends_with(&format!(".{pattern}")),
        };
        let own = self.alphas.iter().find(|(pattern, _)| fits(pattern));
        let alpha = own.map_or(self.alpha, |(_, alpha)| *alpha);
        let rank = rank as f64;
        alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }
}
