//! Chooses the strength of a method that is kept: the best one before text degenerates.

use std::cmp::Ordering;

use stackelberg_evaluation::compare::{Bootstrap, mean};
use stackelberg_evaluation::findings::{Knob, Series};
use stackelberg_evaluation::metrics::Metric;

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
    /// Chooses the strength to keep; `None` if the sweep is not finished.
    ///
    /// A strength is degenerate if diversity or coherence falls below the given fraction of the base policy's. Only
    /// strengths below the first degenerate one are considered. The best of them has the highest reward: the first
    /// held-out reward if there is one, else the guide's. The largest strength whose paired difference from the best is
    /// not significant is kept. If the smallest strength is degenerate, it is kept.
    pub(crate) fn choose(lab: &Lab<'_>, methods: &Methods) -> Result<Option<Self>> {
        let experiment = lab.experiment;
        let rewards = experiment.rewards.shown();
        let judge = Metric::Reward(rewards.get(1).unwrap_or(&rewards[0]).clone());
        let sweep = experiment.sweep_of(methods);
        let done = sweep
            .iter()
            .map(|setting| Ok(runs(lab, setting)?.and_then(|runs| Some((setting.knob?, runs)))));
        let done = done.collect::<Result<Option<Vec<_>>>>()?;
        let (Some(base), Some(mut sweep)) = (runs(lab, &experiment.unguided()[0])?, done) else {
            return Ok(None);
        };
        sweep.sort_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(Ordering::Equal));
        let mut sound: Vec<(Knob, Vec<f64>)> = Vec::new();
        let mut degenerate = None;
        let Some(least) = sweep.first().map(|(knob, _)| *knob) else { return Ok(None) };
        for (knob, done) in sweep {
            if is_degenerate(lab, &done, &base) {
                degenerate = Some(knob);
                break;
            }
            sound.push((knob, values(&done, &judge)));
        }
        let limits = format!(
            "diversity or coherence below {} and {} of the base policy's",
            experiment.sweep.diversity, experiment.sweep.coherence
        );
        let bootstrap = Bootstrap::new(lab.prompts.len(), 0);
        let best = sound.iter().max_by(|(_, a), (_, b)| mean(a).total_cmp(&mean(b)));
        let level = |(_, values): &&(Knob, Vec<f64>)| {
            let behind = best.and_then(|(_, best)| bootstrap.difference(best, values));
            behind.is_none_or(|behind| behind.low <= 0.0 && behind.low.is_finite() || behind.mean == 0.0)
        };
        let unguided = mean(&values(&base, &judge));
        let (knob, why) = match (best, sound.iter().rfind(level)) {
            (Some((most, best)), Some((knob, values))) => {
                let limit = match degenerate {
                    None => {
                        let tried: Vec<String> =
                            sound.iter().map(|(knob, _)| knob.to_string()).collect();
                        format!("text degenerates at none of {}", tried.join(", "))
                    }
                    Some(first) => format!("text degenerates from {first} on ({limits})"),
                };
                let shaping = experiment.sweep.shaping;
                let judge = judge.name();
                let why = match knob == most {
                    true => format!(
                        "{shaping} has the highest {judge} there, {:+.3} (base {unguided:+.3})",
                        mean(best)
                    ),
                    false => format!(
                        "{shaping} has the highest {judge} at {most}, {:+.3} (base {unguided:+.3}), and {knob}, {:+.3}, is not significantly different",
                        mean(best),
                        mean(values)
                    ),
                };
                (*knob, format!("{why}; {limit}"))
            }
            _ => (least, format!("it is the smallest, and text degenerates already ({limits})")),
        };
        Ok(Some(Self { group: methods.group(), knob, why }))
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

/// Whether diversity or coherence is below the sweep's fraction of the base policy's.
pub(crate) fn is_degenerate(lab: &Lab<'_>, runs: &[Done], base: &[Done]) -> bool {
    let sweep = &lab.experiment.sweep;
    let below =
        |metric: &Metric, fraction: f64| average(runs, metric) < fraction * average(base, metric);
    below(&Metric::Diversity, sweep.diversity) || below(&Metric::Coherence, sweep.coherence)
}

fn average(runs: &[Done], metric: &Metric) -> f64 {
    mean(&values(runs, metric))
}

/// One value per prompt: the mean over seeds.
fn values(runs: &[Done], metric: &Metric) -> Vec<f64> {
    let seeds = runs.iter().map(|run| run.measured.clone()).collect();
    Series { seeds, ..Series::default() }.values(metric)
}
