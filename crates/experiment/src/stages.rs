//! The order of an experiment's runs.

use crate::error::Result;
use crate::file::{Experiment, Methods};
use crate::lab::Lab;
use crate::plan::Setting;
use crate::sweep::Kept;

/// The names of stages, with their settings.
pub type Stages = Vec<(String, Vec<Setting>)>;

/// All stages. For a method whose sweep is not finished, the first strength is used; the number of runs is the same.
pub fn stages(experiment: &Experiment, kept: &[Kept]) -> Stages {
    let knob = |methods: &Methods| match Kept::of(kept, &methods.group()) {
        Some(kept) => Some(kept.knob),
        None => methods.knobs().first().copied(),
    };
    [experiment.first_stages(), experiment.later_stages(&knob)].concat()
}

/// The stages after the sweeps, at the kept strengths.
pub(crate) fn later_stages(experiment: &Experiment, kept: &[Kept]) -> Stages {
    let knob = |methods: &Methods| Kept::of(kept, &methods.group()).map(|kept| kept.knob);
    experiment.later_stages(&knob)
}

/// All settings, at the kept strengths.
pub(crate) fn all_settings(lab: &Lab<'_>, kept: &[Kept]) -> Vec<Setting> {
    let stages = [lab.experiment.first_stages(), later_stages(lab.experiment, kept)].concat();
    stages.into_iter().flat_map(|(_, settings)| settings).collect()
}

/// The kept strengths of the methods whose sweep is finished.
pub(crate) fn kept_so_far(lab: &Lab<'_>) -> Result<Vec<Kept>> {
    let kept = lab.experiment.guided().map(|methods| Kept::choose(lab, methods));
    Ok(kept.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}
