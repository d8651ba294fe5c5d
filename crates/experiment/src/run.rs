//! Runs the missing runs of an experiment, and writes its report.

use stackelberg_evaluation::metrics::Coherence;

use crate::error::{Error, Result};
use crate::lab::Lab;
use crate::observer::Observer;
use crate::plan::Setting;
use crate::stages::{Stages, kept_so_far, later_stages};
use crate::{results, values};

/// Makes the missing runs, then writes the report. The same call resumes a stopped or killed experiment. Returns the
/// sentences that the report opens with.
///
/// # Errors
/// [`Error::Interrupted`]; any error of a run.
pub fn run(lab: &Lab<'_>, observer: &mut dyn Observer) -> Result<Vec<String>> {
    let mut coherence = lab.evaluator.coherence();
    run_all(lab, lab.experiment.first_stages(), &mut coherence, observer)?;
    let kept = kept_so_far(lab)?;
    kept.iter().for_each(|kept| observer.message(&kept.finding()));
    run_all(lab, later_stages(lab.experiment, &kept), &mut coherence, observer)?;
    results::write(lab, &kept)
}

/// Makes the missing runs of the base policy, of the methods without a sweep, and of the sweeps; then writes the report.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_first(lab: &Lab<'_>, observer: &mut dyn Observer) -> Result<()> {
    run_all(lab, lab.experiment.first_stages(), &mut lab.evaluator.coherence(), observer)?;
    report(lab).map(drop)
}

/// Writes the report of the finished runs. Returns the sentences that it opens with.
///
/// # Errors
/// No run is finished, or a file cannot be read or written.
pub fn report(lab: &Lab<'_>) -> Result<Vec<String>> {
    results::write(lab, &kept_so_far(lab)?)
}

fn run_all(
    lab: &Lab<'_>,
    stages: Stages,
    coherence: &mut Option<Coherence<'_>>,
    observer: &mut dyn Observer,
) -> Result<()> {
    for (stage, settings) in stages {
        observer.stage(&stage);
        run_stage(lab, &settings, coherence, observer).map_err(|error| match error {
            Error::Interrupted(_) => {
                let out = lab.out.display();
                Error::Interrupted(format!("interrupted; the same command resumes in {out}"))
            }
            error => error,
        })?;
    }
    Ok(())
}

fn run_stage(
    lab: &Lab<'_>,
    settings: &[Setting],
    coherence: &mut Option<Coherence<'_>>,
    observer: &mut dyn Observer,
) -> Result<()> {
    let heads: Vec<_> = settings.iter().filter_map(Setting::value).collect();
    values::train(lab, &heads, observer)?;
    for setting in settings {
        for &seed in lab.seeds(setting) {
            lab.run(setting, seed, coherence, observer)?;
        }
    }
    Ok(())
}
