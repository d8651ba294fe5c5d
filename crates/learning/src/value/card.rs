//! A trained value head as a file, and the card beside it. No date, so that the same training gives the same
//! bytes.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::loss::Errors;
use super::settings::Settings;
use super::train::Outcome;
use crate::card::{row, table};
use crate::error::Error;
use crate::rollouts::Dataset;
use crate::tensors::{Named, to_bytes};
use stackelberg_data::atomic::stage;

/// What only the caller knows about a head.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct About {
    /// The head's name.
    pub title: String,
    /// The command line that trains it again.
    pub command: String,
    /// A plot of the losses, by the name of its file beside the card.
    pub plot: Option<String>,
}

/// Writes a trained head to `path`, which ends in `.safetensors`: `0.weight` `[h₁, d]`, `0.bias` `[h₁]`,
/// `2.weight` `[h₂, h₁]`, `2.bias` `[h₂]`, `4.weight` `[1, h₂]`, `4.bias` `[1]` in F32, with metadata
/// `format=stackelberg-value`, `base` (the model's hash), `base_name`, `text_format`, `shaping`, `bound`,
/// `settings`; and a card beside it under the same stem with `.md`. Both are complete on disk before either
/// replaces what was there.
///
/// # Errors
/// Another ending; a place that cannot be written.
pub fn save(
    path: &Path,
    dataset: &Dataset,
    settings: &Settings,
    outcome: &Outcome,
    about: &About,
) -> Result<(), Error> {
    if path.extension().is_none_or(|e| e != "safetensors") {
        return Err(Error::Extension { file: path.display().to_string() });
    }
    let manifest = dataset.manifest();
    let summary = Value::Object(settings.summary(dataset));
    let format = manifest.settings.get("prompt_format").and_then(Value::as_str);
    let fields = [
        ("format", Some("stackelberg-value".to_owned())),
        ("base", Some(manifest.model.hash.clone()).filter(|hash| !hash.is_empty())),
        ("base_name", Some(manifest.model.name.clone())),
        ("text_format", format.map(str::to_owned)),
        ("shaping", Some(settings.shaping.rule.name().to_owned())),
        ("bound", settings.bound().map(|bound| bound.to_string())),
        ("settings", Some(summary.to_string())),
    ];
    let metadata: BTreeMap<String, String> =
        fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    let tensors = outcome.network.tensors();
    let tensors: Vec<Named<'_>> =
        tensors.iter().map(|(name, shape, numbers)| (*name, shape.clone(), &numbers[..])).collect();
    let beside = path.with_extension("md");
    let card = stage(&beside, render(dataset, settings, outcome, about).as_bytes())?;
    let head = stage(path, &to_bytes(&metadata, &tensors))?;
    head.finish()?;
    Ok(card.finish()?)
}

fn render(dataset: &Dataset, settings: &Settings, outcome: &Outcome, about: &About) -> String {
    let manifest = dataset.manifest();
    let counts = &outcome.counts;
    let mut out = format!("# {}\n\n", about.title);
    let [d, first, second] = outcome.widths();
    table(&mut out, &["value head", ""]);
    let mut line = |name: &str, value: &str| row(&mut out, &[name, value]);
    line("base model", &format!("{} ({})", manifest.model.name, manifest.model.hash));
    let reward =
        manifest.reward.as_ref().map_or("none".to_owned(), |r| format!("{} ({})", r.name, r.hash));
    line("reward", &reward);
    line("widths", &format!("{d} → {first} → {second} → 1, tanh between"));
    if let Some(bound) = settings.bound() {
        line("values", &format!("clamped to 0 to {bound}"));
    }
    let part = |(samples, prompts): (usize, usize)| format!("{samples} samples of {prompts} prompts");
    line("learned from", &part(counts.training));
    line("validated on", &part(counts.validation));
    line("samples without a token, left out", &counts.empty.to_string());
    line("prompts with one reward for all samples", &counts.all_equal.to_string());
    line("prompts none of whose samples ended by itself", &counts.unfinished.to_string());
    line("most epochs", &settings.epochs.to_string());
    if let Some(Errors { last, along }) = outcome.explained() {
        line("explained at the last token", &format!("{:.1} percent", 100.0 * last));
        line("explained along the text", &format!("{:.1} percent", 100.0 * along));
    }
    out += "\nExplained: by how much values err less, in squares, than the mean of the targets learned from does, on \
            prompts that teach nothing. The epoch was chosen by them, so that flatters a little; with few prompts \
            to validate it says little.\n\n## Settings\n\n";
    table(&mut out, &["setting", ""]);
    for (name, value) in settings.summary(dataset) {
        row(&mut out, &[&name, &value.to_string()]);
    }
    out += "\n## Epochs\n\nMean squared errors on the validation samples.\n\n";
    if let Some(plot) = &about.plot {
        out += &format!("![losses]({plot})\n\n");
    }
    table(&mut out, &["epoch", "training loss", "last token", "along the text", ""]);
    for (i, epoch) in outcome.epochs.iter().enumerate() {
        let kept = if i == outcome.best { "kept" } else { "" };
        let Errors { last, along } = epoch.validation;
        let numbers = [epoch.training, last, along].map(|x| format!("{x:.4}"));
        let [training, last, along] = &numbers;
        row(&mut out, &[&(i + 1).to_string(), training, last, along, kept]);
    }
    if !about.command.is_empty() {
        out += &format!("\n## Command\n\n    {}\n", about.command.replace('\n', "\n    "));
    }
    out
}
