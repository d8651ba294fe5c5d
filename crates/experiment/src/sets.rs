//! Reads the prompts of an experiment: sets by name or file.

use std::collections::HashSet;

use serde_json::{Value, json};
use stackelberg_data::hash::sha256;
use stackelberg_engine::Prompt;
use stackelberg_registry::Registry;

use crate::error::{Result, invalid};
use crate::file::PromptSet;

/// The prompts of several sets, in order.
///
/// # Errors
/// A set cannot be fetched or read; two prompts have the same id.
pub fn prompts_of(registry: &Registry, sets: &[PromptSet]) -> Result<Vec<(String, Prompt)>> {
    let (mut prompts, mut used) = (Vec::new(), HashSet::new());
    for set in sets {
        let read = registry.prompts(&set.from)?;
        for (id, prompt) in read.into_iter().take(set.limit.unwrap_or(usize::MAX)) {
            if !used.insert(id.clone()) {
                return invalid(format!(
                    "prompts: {}: id '{id}' is in two sets: ids must be unique",
                    set.from
                ));
            }
            prompts.push((id, prompt));
        }
    }
    Ok(prompts)
}

/// Prompts with their ids as JSON.
pub(crate) fn value_of(prompts: &[(String, Prompt)]) -> Value {
    prompts.iter().map(|(id, prompt)| json!([id, prompt])).collect()
}

/// The SHA-256 of a JSON value.
pub(crate) fn hash_of(value: &Value) -> String {
    sha256(value.to_string())
}
