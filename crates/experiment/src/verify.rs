//! Verifies an experiment: generates some answers again and compares them with the saved ones.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use stackelberg_data::generations::{self, Response};
use stackelberg_data::words::count as counted;
use stackelberg_evaluation::metrics::Measured;

use crate::answers::Files;
use crate::error::{Context, Error, Result, invalid};
use crate::lab::{Done, Lab};
use crate::plan::Setting;
use crate::stages::{all_settings, kept_so_far};
use crate::sweep;

/// The part of an experiment to verify.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// The number of runs, drawn at random from the finished ones.
    pub runs: usize,
    /// The number of prompts per run, drawn at random.
    pub prompts: usize,
    /// The random seed of the selection.
    pub seed: u64,
}

/// A finished run.
struct Candidate {
    setting: Setting,
    seed: u64,
    done: Done,
}

/// Generates the answers to some prompts of some runs again and measures them: every text, reward and score must be
/// identical to the saved one. `said` receives one line per run. Returns the number of answers compared.
///
/// # Errors
/// An answer or a score differs, answers were changed after they were measured, or no run is finished.
pub fn verify(lab: &Lab<'_>, part: &Part, said: &mut dyn FnMut(&str)) -> Result<usize> {
    unchanged(lab)?;
    let settings = all_settings(lab, &kept_so_far(lab)?);
    if let Some(device) = &lab.device {
        return invalid(format!(
            "verify expects bit-identical results: only the CPU is batch-invariant, results on {device} depend on the batch"
        ));
    }
    let mut candidates = Vec::new();
    for setting in settings {
        let Some(runs) = sweep::runs(lab, &setting)? else { continue };
        for (&seed, done) in lab.seeds(&setting).iter().zip(runs) {
            candidates.push(Candidate { setting: setting.clone(), seed, done });
        }
    }
    if candidates.is_empty() {
        return invalid(format!(
            "{}: no run is finished: there is nothing to verify",
            lab.out.display()
        ));
    }
    let mut rng = ChaCha12Rng::seed_from_u64(part.seed);
    let chosen: Vec<&Candidate> = candidates.sample(&mut rng, part.runs).collect();
    let (mut compared, mut wrong) = (0, Vec::new());
    for candidate in chosen {
        let different = compare(lab, candidate, part.prompts, &mut rng)?;
        compared += part.prompts.min(lab.prompts.len());
        let verdict = if different.is_empty() { "identical" } else { "DIFFERENT" };
        said(&format!("{}, seed {}: {verdict}", candidate.setting, candidate.seed));
        wrong.extend(different);
    }
    if let Some(first) = wrong.first() {
        let s = if wrong.len() == 1 { "s" } else { "" };
        return invalid(format!(
            "{} of {} differ{s}, the first: {first}: the processor, the version or a file has changed; make \
             the runs again on one machine",
            wrong.len(),
            counted(compared, "answer")
        ));
    }
    Ok(compared)
}

/// Generates a run's answers to some prompts again; returns the differences.
fn compare(
    lab: &Lab<'_>,
    candidate: &Candidate,
    prompts: usize,
    rng: &mut impl Rng,
) -> Result<Vec<String>> {
    let all: Vec<usize> = (0..lab.prompts.len()).collect();
    let mut numbers: Vec<usize> = all.sample(rng, prompts).copied().collect();
    numbers.sort_unstable();
    let asked: Vec<_> = numbers.iter().map(|&number| lab.prompts[number].clone()).collect();
    let place = lab
        .place(&candidate.setting, candidate.seed)?
        .ok_or_else(|| gone("the value head is missing"))?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let file = folder.path().join("answers.jsonl");
    let files = Files { out: Some(&file), trace: None, traced: 0, resume: false, again: None };
    lab.with_session(&candidate.setting, &place.settings, |session| {
        session.answer_all(&asked, &files, &lab.cancel, &mut ())
    })?;
    let answers = generations::read(&file)?.responses;
    let again: Vec<Response> = asked
        .iter()
        .map(|(id, _)| answers.iter().find(|answer| answer.id == *id).cloned())
        .collect::<Option<_>>()
        .ok_or_else(|| gone("an answer is missing"))?;
    let measured = lab.measure(&again, &mut lab.evaluator.coherence())?;
    let mut different = Vec::new();
    for ((answer, measured), &number) in again.iter().zip(&measured).zip(&numbers) {
        let (before, kept) = (&candidate.done.responses[number], &candidate.done.measured[number]);
        let name = format!("{}, seed {}, prompt {}", candidate.setting, candidate.seed, answer.id);
        if answer.text != before.text {
            different.push(format!("{name}: the text"));
        } else if !same(measured, kept) {
            different.push(format!("{name}: the scores"));
        }
    }
    Ok(different)
}

fn gone(what: &str) -> Error {
    Error::Invalid(what.to_owned())
}

/// Checks that no answers were changed after they were measured.
fn unchanged(lab: &Lab<'_>) -> Result<()> {
    for setting in lab.experiment.all_settings() {
        for &seed in lab.seeds(&setting) {
            let Some(place) = lab.place(&setting, seed)? else { continue };
            if place.folder.exists() && lab.is_changed(&place.folder)? {
                return invalid(format!(
                    "{}: the answers were changed after they were measured",
                    place.folder.display()
                ));
            }
        }
    }
    Ok(())
}

/// Whether scores are equal, apart from the speed of generation.
fn same(a: &Measured, b: &Measured) -> bool {
    Measured { tokens_per_second: None, ..a.clone() }
        == Measured { tokens_per_second: None, ..b.clone() }
}
