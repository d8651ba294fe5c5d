//! The strength of each method that the other shapings are compared at.

use stackelberg_evaluation::findings::{Knob, Series};
use stackelberg_evaluation::metrics::Metric;

use crate::choice::Choice;
use crate::error::Result;
use crate::file::Methods;
use crate::lab::{Done, Lab};
use crate::plan::Setting;

/// The strength at which the shapings of a method are compared, and the reason for it.
#[derive(Debug, Clone)]
pub struct Kept {
    group: String,
    /// The strength, or KL budget.
    pub knob: Knob,
    why: String,
}

impl Kept {
    /// Chooses the strength to keep; `None` if the sweep is not finished. The reward that decides is the first held-out
    /// one if there is one, else the guide's.
    pub(crate) fn choose(lab: &Lab<'_>, methods: &Methods) -> Result<Option<Self>> {
        let experiment = lab.experiment;
        let rewards = experiment.rewards.shown();
        let judge = Metric::Reward(rewards.get(1).unwrap_or(&rewards[0]).clone());
        let series = |setting: &Setting| -> Result<Option<Series>> {
            Ok(runs(lab, setting)?.map(|runs| measured(setting, &runs)))
        };
        let sweep = experiment.sweep_of(methods);
        let sweep = sweep.iter().map(series).collect::<Result<Option<Vec<_>>>>()?;
        let (Some(base), Some(sweep)) = (series(&experiment.unguided()[0])?, sweep) else {
            return Ok(None);
        };
        let shaping = experiment.sweep.shaping.to_string();
        let choice = Choice::new(&base, &sweep, &judge, &experiment.sweep.limits(), &shaping);
        Ok(choice.map(|Choice { knob, why }| Self { group: methods.group(), knob, why }))
    }

    /// The kept strength of a group, if there is one.
    pub(crate) fn of<'k>(kept: &'k [Self], group: &str) -> Option<&'k Self> {
        kept.iter().find(|kept| kept.group == group)
    }

    /// The choice and its reason as a sentence.
    pub fn finding(&self) -> String {
        format!("{}: {} is kept: {}.", self.group, self.knob, self.why)
    }
}

/// A setting's runs for all seeds, if all are finished.
pub(crate) fn runs(lab: &Lab<'_>, setting: &Setting) -> Result<Option<Vec<Done>>> {
    lab.seeds(setting).iter().map(|&seed| lab.done(setting, seed)).collect()
}

/// The measured answers of a setting.
pub(crate) fn measured(setting: &Setting, runs: &[Done]) -> Series {
    Series {
        method: Some(setting.method),
        knob: setting.knob,
        seeds: runs.iter().map(|run| run.measured.clone()).collect(),
        ..Series::default()
    }
}
