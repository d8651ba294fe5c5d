//! From a dataset of rollouts to a value head on disk, with its card and a plot of its losses.

use std::io;
use std::path::{Path, PathBuf};

use stackelberg_data::Error as FileError;
use stackelberg_engine::reward::Head;

use super::card::{About, foresight_plot, save};
use super::epoch::Epoch;
use super::foresight::{Distance, Foresight};
use super::held_out::foresight;
use super::settings::Settings;
use super::train::{Outcome, Watch, learn, read};
use crate::error::Error;
use crate::plot::{Curve, draw};
use crate::rollouts::Dataset;

/// Where the checkpoint of a head's training is, while it is not finished.
pub fn checkpoint_of(head: &Path) -> PathBuf {
    head.with_extension("training")
}

/// Checks whether a stopped training left a checkpoint, which a run continues only if it is asked to.
///
/// # Errors
/// There is a checkpoint that is not to be continued, or none to continue.
pub fn check_resume(out: &Path, resume: bool) -> Result<(), Error> {
    let checkpoint = checkpoint_of(out);
    let problem = match (resume, checkpoint.exists()) {
        (false, true) => format!(
            "{}: a stopped run left this file: continue the run with --resume, or delete the file",
            checkpoint.display()
        ),
        (true, false) => format!("--resume: there is no {} to continue", checkpoint.display()),
        _ => return Ok(()),
    };
    Err(Error::Resume { problem })
}

/// Trains a head and writes it to `out` (`.safetensors`), its card (`.md`), a plot of its losses (`.svg`) and a plot of
/// what it foresees (`-foresight.svg`) beside it. With `resume`, training continues from the checkpoint that a stopped run
/// left. `command` goes into the card. `so_far` is the reward, if it is a head on the policy's hidden states and so scores
/// unfinished answers, or the reason why their rewards are not known; see [`Foresight`].
///
/// # Errors
/// As [`train`](super::train()); a hidden state does not fit `so_far`; a file cannot be written.
pub fn train_to_file(
    dataset: &Dataset,
    settings: &Settings,
    out: &Path,
    resume: bool,
    command: String,
    so_far: Result<&Head, String>,
    watch: &mut dyn Watch,
) -> Result<Outcome, Error> {
    let checkpoint = checkpoint_of(out);
    let (data, mut held) = read(dataset, settings)?;
    let mut outcome = learn(dataset, (&data, &mut held), settings, (&checkpoint, resume), watch)?;
    let foreseen = foresight(&data, &mut held, settings, &outcome.network, so_far, watch)?;
    draw_foresight(&foresight_plot(out), &foreseen)?;
    outcome.foresight = Some(foreseen);
    let title = out.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let plot = Some(format!("{title}.svg"));
    save(out, dataset, settings, &outcome, &About { title, command, plot })?;
    draw_losses(&out.with_extension("svg"), &outcome)?;
    match std::fs::remove_file(&checkpoint) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::write(&checkpoint, e).into()),
        _ => Ok(outcome),
    }
}

/// The correlations by distance from the end.
fn draw_foresight(path: &Path, foresight: &Foresight) -> Result<(), Error> {
    let curve = |name: &str, thick: bool, of: fn(&Distance) -> Option<f64>| Curve {
        name: name.to_owned(),
        points: foresight
            .distances
            .iter()
            .filter_map(|distance| Some((distance.tokens as f64, of(distance)?)))
            .collect(),
        thick,
    };
    let curves = [
        curve("value", true, |distance| distance.value),
        curve("reward read so far", false, |distance| distance.so_far),
    ];
    let curves: Vec<Curve> = curves.into_iter().filter(|curve| !curve.points.is_empty()).collect();
    let title = "Correlation with the final reward within prompts";
    draw(path, title, "tokens before the end", "correlation", &curves)
}

/// The losses by epoch.
fn draw_losses(path: &Path, outcome: &Outcome) -> Result<(), Error> {
    let curve = |name: &str, thick: bool, of: fn(&Epoch) -> f64| Curve {
        name: name.to_owned(),
        points: (1..).zip(&outcome.epochs).map(|(n, epoch)| (f64::from(n), of(epoch))).collect(),
        thick,
    };
    let curves = [
        curve("training loss", false, |epoch| epoch.training),
        curve("validation, last token", true, |epoch| epoch.validation.last),
        curve("validation, along the text", false, |epoch| epoch.validation.along),
    ];
    let title = format!("Epoch {} of {} is kept", outcome.best + 1, outcome.epochs.len());
    draw(path, &title, "epoch", "squared error", &curves)
}
