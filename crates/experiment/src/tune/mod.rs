/*!
Finds a method and a strength for a reward, on a few prompts.

# Overview

```text
Tuning ──► file (TOML) ──► Lab, run ──► spread of the reward ──┐
                                   └──► trials (one per setting) ──► advice: the setting to use, or none
```

[`Tuning::file`] writes the settings to compare as an experiment's file: plain sampling, best-of-n, blocks, and ARGS by
tokens and by segments at several KL budgets. All of them run at most [`Tuning::cost`] times the tokens of a plain answer.
[`tune`] makes the missing runs, like [`run`](crate::run()), and returns what they say as [`Tuned`].
*/

mod advice;
mod flags;
mod noise;
mod plan;
mod spread;
mod table;
mod trial;

use stackelberg_evaluation::compare::mean;
use stackelberg_evaluation::metrics::Metric;
use stackelberg_evaluation::report::Table;
use stackelberg_learning::pair_accuracies;

use crate::error::Result;
use crate::lab::Lab;
use crate::observer::Observer;
use crate::run::run_first;

pub use advice::{Advice, Verdict};
pub use plan::{FEWEST_PROMPTS, MOST_COST, MOST_PROMPTS, Tuning};
pub use spread::{Choice, Spread};

use advice::Candidate;
use trial::Trial;

/// Prompts whose answers are shown side by side.
const SHOWN: usize = 3;

/// What the runs say.
#[derive(Debug, Clone)]
pub struct Tuned {
    /// How far the reward tells texts apart that continue the same text, from single tokens to whole answers.
    pub spread: Vec<Spread>,
    /// The mean rewards of plain sampling, by name.
    pub plain: Vec<(String, f64)>,
    /// One row per setting: gains over plain sampling, KL, log-probability, repetition and tokens run.
    pub table: Table,
    /// The answers to some prompts.
    pub answers: Vec<Answers>,
    /// Reasons why the reward may be unable to guide.
    pub doubts: Vec<String>,
    /// The setting to use.
    pub advice: Advice,
    /// The command line of `stackelberg generate` with this setting, if there is one.
    pub command: Option<String>,
}

/// The answers to one prompt.
#[derive(Debug, Clone)]
pub struct Answers {
    /// The prompt.
    pub prompt: String,
    /// The name of each setting, and its answer.
    pub texts: Vec<(String, String)>,
}

/// Makes the missing runs of a tuning's experiment, writes its report, and says which setting to use. The same call resumes a
/// stopped or killed run.
///
/// # Errors
/// As [`run`](crate::run()).
pub fn tune(lab: &Lab<'_>, observer: &mut dyn Observer) -> Result<Tuned> {
    run_first(lab, observer)?;
    let mut trials = Trial::all(lab)?;
    let spread = spread::measure(&trials)?;
    let mut doubts = separable(lab)?;
    doubts.extend(noise::remove(lab, &mut trials)?);
    doubts.extend(spread::doubt(&spread));
    let prompts = lab.prompts.iter().take(SHOWN).enumerate();
    let answers = prompts.map(|(number, (_, prompt))| Answers {
        prompt: prompt.readable(),
        texts: trials.iter().map(|trial| (trial.name(), trial.text(number).to_owned())).collect(),
    });
    let answers = answers.collect();
    let rewards: Vec<Metric> = lab.experiment.rewards.shown().into_iter().map(Metric::Reward).collect();
    let candidates: Vec<Candidate<'_>> = trials.iter().map(Trial::candidate).collect();
    let advice = Advice::new(&candidates, &rewards, &lab.experiment.sweep.limits());
    let command = match advice.verdict {
        Verdict::Use(index) => Some(flags::command(lab.experiment, &trials[index].setting.settings)?),
        Verdict::DoNotGuide | Verdict::CannotTell => None,
    };
    let of_base = |reward: &Metric| (reward.name().to_owned(), mean(&trials[0].series.values(reward)));
    let plain = rewards.iter().map(of_base).collect();
    let table = table::table(&trials, &rewards);
    Ok(Tuned { spread, plain, table, answers, doubts, advice, command })
}

/// Says so if the guide is a head that separates its data without error: it has learned a form of the data, such as a
/// template, rather than a preference.
fn separable(lab: &Lab<'_>) -> Result<Vec<String>> {
    let cards = lab.registry.reward_cards(&lab.experiment.rewards.guide)?;
    let perfect = |(name, card): (String, String)| {
        pair_accuracies(&card).contains(&1.0).then(|| {
            format!(
                "the card of {name} reports a pair accuracy of 1.0: its data can be separated without error, so the head \
                 may have learned how they were made rather than which answer is better"
            )
        })
    };
    Ok(cards.into_iter().filter_map(perfect).collect())
}
