//! Writes a trained value head and its model card. The card has no date, so that equal training gives equal bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use stackelberg_data::words::count;

use super::foresight::Foresight;
use super::loss::Errors;
use super::settings::Settings;
use super::train::Outcome;
use crate::card::{row, table};
use crate::error::Error;
use crate::rollouts::Dataset;
use crate::tensors::{Named, to_bytes};
use stackelberg_data::atomic::stage;

/// The parts of a card that only the caller knows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct About {
    /// The head's name.
    pub title: String,
    /// The command line that reproduces the head.
    pub command: String,
    /// File name of a plot of the losses, in the folder of the card.
    pub plot: Option<String>,
}

/// Writes a trained head to `path`, which must end in `.safetensors`, and its card to the same path with extension
/// `.md`.
///
/// The tensors are `0.weight` `[h₁, d]`, `0.bias` `[h₁]`, `2.weight` `[h₂, h₁]`, `2.bias` `[h₂]`, `4.weight` `[1,
/// h₂]` and `4.bias` `[1]`, in F32. The metadata are `format=stackelberg-value`, `base` (hash of the model),
/// `base_name`, `text_format`, `reward` (its name), `reward_hash`, `shaping`, `bound` and `settings`. Both files are complete on disk before either
/// replaces an existing file.
///
/// # Errors
/// The path has another extension or cannot be written.
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
        ("reward", manifest.reward.as_ref().map(|reward| reward.name.clone())),
        ("reward_hash", manifest.reward.as_ref().map(|reward| reward.hash.clone())),
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
    let card = stage(&beside, render(dataset, settings, outcome, about, path).as_bytes())?;
    let head = stage(path, &to_bytes(&metadata, &tensors))?;
    head.finish()?;
    Ok(card.finish()?)
}

fn render(
    dataset: &Dataset,
    settings: &Settings,
    outcome: &Outcome,
    about: &About,
    path: &Path,
) -> String {
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
    line("layers", &format!("{d} → {first} → {second} → 1, tanh"));
    if let Some(bound) = settings.bound() {
        line("values", &format!("clamped to [0, {bound}]"));
    }
    let part = |(samples, prompts): (usize, usize)| {
        format!("{} ({})", count(samples, "sample"), count(prompts, "prompt"))
    };
    line("training set", &part(counts.training));
    line("validation set", &part(counts.validation));
    line("skipped samples without tokens", &counts.empty.to_string());
    line("prompts whose samples all have the same reward", &counts.all_equal.to_string());
    line("prompts whose samples were all cut at the length limit", &counts.unfinished.to_string());
    line("maximum number of epochs", &settings.epochs.to_string());
    line("baseline MSE", &format!("{:.4}", counts.constant));
    if let Some(Errors { last, along }) = outcome.explained() {
        line("validation R² at the last token", &format!("{last:.3}"));
        line("validation R² along the text", &format!("{along:.3}"));
    }
    out += "\nR² (explained variance) is 1 minus the mean squared error divided by the baseline MSE, both on the \
            validation set. The baseline always predicts the mean training target. The epoch was chosen by the \
            validation error, so R² is slightly optimistic, and it is noisy if the validation set has few \
            prompts.\n\n";
    if let Some(foresight) = &outcome.foresight {
        out += &foreseen(foresight, path);
    }
    out += "## Settings\n\n";
    table(&mut out, &["setting", ""]);
    for (name, value) in settings.summary(dataset) {
        row(&mut out, &[&name, &value.to_string()]);
    }
    out += "\n## Epochs\n\nThe head of the epoch with the smallest validation MSE at the last token is kept.\n\n";
    if let Some(plot) = &about.plot {
        out += &format!("![losses]({plot})\n\n");
    }
    table(
        &mut out,
        &["epoch", "training loss", "validation MSE, last token", "validation MSE, along the text", ""],
    );
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

/// Where the plot of what a head foresees is.
pub(super) fn foresight_plot(head: &Path) -> PathBuf {
    let stem = head.file_stem().unwrap_or_default().to_string_lossy();
    head.with_file_name(format!("{stem}-foresight.svg"))
}

/// The section on what the head foresees.
fn foreseen(foresight: &Foresight, path: &Path) -> String {
    let mut out = format!("## Foresight\n\nOn the validation set: {}.\n\n", foresight.sentence());
    table(&mut out, &Foresight::COLUMNS);
    for cells in foresight.cells() {
        row(&mut out, &cells.each_ref().map(String::as_str));
    }
    let plot = foresight_plot(path);
    let plot = plot.file_name().unwrap_or_default().to_string_lossy();
    out += "\nThe columns *value* and *reward so far* are correlations with the final reward (before shaping) within \
            prompts: both variables are centred per prompt. Prompts with fewer than two samples that are long enough, or \
            with equal final rewards, are left out. *difference* is the 95 percent bootstrap interval over prompts of \
            value minus reward so far. *slope* is that of the regression of the final shaped reward on the value within \
            prompts: 1 is calibrated, and a head with a slope below 1 exaggerates differences. R² is the variance of the \
            shaped reward that the values explain, over all samples that are long enough.\n\n";
    out + &format!("![correlation with the final reward]({plot})\n\n")
}
