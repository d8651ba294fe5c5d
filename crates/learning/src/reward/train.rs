//! From judgements to a reward head on disk, with its card.

use std::path::PathBuf;

use stackelberg_data::group_ids;
use stackelberg_registry::layout::OddTokens;

use super::data::{Data, fit_all};
use super::judgements::Judgements;
use super::reader::Reader;
use super::watch::Watch;
use crate::card::{Card, Source};
use crate::error::Error;
use crate::fit;
use crate::head::Head;
use crate::measure::Metric;

/// Settings of a training.
pub struct Settings {
    /// The head to write (`.safetensors`).
    pub out: PathBuf,
    /// What a high reward means, for the card.
    pub about: String,
    /// Folds of the cross-validation that chooses the regularisation.
    pub folds: usize,
    /// Seed of the folds.
    pub seed: u64,
    /// The name of the model that reads the texts, for the card.
    pub base_name: String,
    /// The command line that trains the same head, for the card.
    pub command: String,
    /// Number of threads of the fit. The head does not depend on it.
    pub threads: usize,
}

/// A trained head.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The files with their numbers of judgements; those that were held out with metrics.
    pub data: Vec<Source>,
    /// The metrics of the cross-validation.
    pub cross_validation: [Metric; 2],
    /// The regularisation that it chose.
    pub regularisation: f64,
}

impl Trained {
    /// All metrics, each with what it was measured on: held-out files, and `cross-validation`.
    pub fn metrics(&self) -> Vec<(&str, Metric)> {
        let files = self.data.iter().filter_map(|source| Some((source.name.as_str(), source.metrics?)));
        let all = files.chain([("cross-validation", self.cross_validation)]);
        all.flat_map(|(name, metrics)| metrics.map(|metric| (name, metric))).collect()
    }
}

/// Trains a head on judgements, and writes it and its card.
///
/// # Errors
/// A text cannot be read by the model, there is nothing to learn, or a file cannot be written. [`Error::Stopped`] if the watch
/// says so.
pub fn train(
    judgements: &Judgements,
    reader: &Reader,
    settings: &Settings,
    watch: &(dyn Watch + Sync),
) -> Result<Trained, Error> {
    let width = reader.width();
    let (mut training, mut held_out) = (Vec::new(), Vec::new());
    let mut odd = OddTokens::default();
    for (name, judged, trained_on) in &judgements.files {
        let data = Data::of(reader, judged, name, &mut odd, watch)?;
        if *trained_on { &mut training } else { &mut held_out }.push((name.clone(), data));
    }
    odd.warnings("text").iter().for_each(|warning| watch.warning(warning));

    let progress = |done: usize, total: usize| watch.progress("fitting", done, total);
    let names: Vec<&String> = training.iter().flat_map(|(_, data)| data.groups()).collect();
    let groups = group_ids(names.into_iter().map(String::as_str));
    let how = fit::Settings {
        folds: settings.folds,
        seed: settings.seed,
        groups: Some(&groups),
        threads: settings.threads,
        progress: &progress,
        ..fit::Settings::default()
    };
    let fit = fit_all(&training, width, &how)?;
    watch.done();

    let mut data: Vec<Source> = training.iter().map(|(name, data)| data.source(name, None)).collect();
    for (name, file) in &held_out {
        data.push(file.source(name, Some(file.measure(&fit, width)?)));
    }
    let mut head = Head::new(&fit, reader.text_format());
    head.backbone = reader.backbone();
    head.base = Some(reader.fingerprint().to_owned());
    head.base_name = Some(settings.base_name.clone());
    let card = Card {
        title: settings.out.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        about: settings.about.clone(),
        data: data.clone(),
        command: settings.command.clone(),
        notes: Vec::new(),
    };
    if watch.stop() {
        return Err(Error::Stopped);
    }
    head.save(&settings.out, &card.render(&head, &fit))?;
    Ok(Trained { data, cross_validation: fit.held_out, regularisation: fit.regularisation })
}
