//! `stackelberg threshold`: shapes the rewards of a dataset of rollouts, and predicts the effect of each rule.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use indicatif::ProgressBar;
use stackelberg_learning::plot::{self, Curve};
use stackelberg_learning::rollouts::{self, Dataset, Frontiers, Shaper};
use stackelberg_learning::summary::{Summary, frontiers_table};
use stackelberg_shaping::{Budget, Rule, Samples};

use crate::output::{note, say};
use crate::progress::style;
use crate::shaping::ShapingArgs;

/// Shape the rewards of a dataset of rollouts: adds columns with thresholds and shaped rewards.
///
/// Writes columns shaped_RULE, threshold_RULE, threshold_RULE_low and threshold_RULE_high (the last three
/// for rules with a threshold; with _ for - in the rule's name) to the dataset's Parquet files, prints a summary,
/// and plots utility-by-bound.svg and utility-by-kl.svg. Another rule adds columns; the same rule with other
/// settings replaces its columns. Run the command again after a merge or a resumed rollout to shape the new
/// shards.
///
/// Both theorems are checked on every prompt: no rule beats hard at a given bound, and no rule beats raw at a
/// given KL.
#[derive(Args)]
pub(crate) struct Threshold {
    /// The folder of the dataset, as `stackelberg rollout` writes it.
    #[arg(value_name = "DIR")]
    dataset: PathBuf,

    /// Level of the confidence intervals for m*, between 0.5 and 0.99.
    #[arg(long, default_value_t = 0.9, value_name = "P", allow_negative_numbers = true)]
    level: f64,

    #[command(flatten)]
    settings: ShapingArgs,
}

impl Threshold {
    pub(crate) fn run(&self) -> Result<()> {
        let shaping = self.settings.shaping(Some(Budget::ReferenceOffline))?;
        let kl_budget = self.settings.kl_budget;
        let shaper = Shaper::new(shaping, kl_budget, Some(self.level))?;
        let dataset = Dataset::open(&self.dataset)?;

        // Everything is read, shaped and checked before anything is written.
        let bar = bar(&dataset, "reading")?;
        let prompts = shaper.read(&dataset, &mut || bar.inc(1));
        bar.finish_and_clear();
        let prompts = prompts?;
        let frontiers = Frontiers::new(&prompts, &shaping)?;
        let mut summary = Summary::new(shaping, kl_budget);
        for (_, rewards) in &prompts {
            summary.add(&Samples::new(rewards)?)?;
        }

        let bar = self::bar(&dataset, "writing")?;
        let written = shaper.write(&dataset, &mut || bar.inc(1));
        bar.finish_and_clear();
        written?;
        self.draw(&frontiers)?;
        let folder = self.dataset.display();
        say!(
            "{summary}\n{}\ncolumns written: {} in {folder}",
            frontiers_table(&frontiers),
            columns(shaping.rule)
        )?;
        say!("plots written: {folder}/utility-by-bound.svg, {folder}/utility-by-kl.svg")?;
        if summary.nothing_to_shape() {
            note!(
                "warning: no prompt has two samples with different rewards: there is nothing to shape"
            );
        }
        Ok(())
    }

    fn draw(&self, frontiers: &Frontiers) -> Result<()> {
        let curves = |of: fn(&rollouts::Curve) -> &[(f64, f64)], most: f64| -> Vec<Curve> {
            let curve = |curve: &rollouts::Curve| Curve {
                name: curve.rule.name().to_owned(),
                points: of(curve).iter().copied().filter(|p| p.0 <= most).collect(),
                thick: [Rule::Raw, Rule::Hard].contains(&curve.rule),
            };
            frontiers.curves.iter().map(curve).collect()
        };
        let utility = "utility of the follower, mean over prompts";
        plot::draw(
            &self.dataset.join("utility-by-bound.svg"),
            "At a given bound, nothing beats hard (Theorem 1)",
            "bound B/β of every prompt, nats",
            utility,
            &curves(|c| &c.by_bound, enough(frontiers)),
        )?;
        plot::draw(
            &self.dataset.join("utility-by-kl.svg"),
            "At a given KL, nothing beats raw (Gibbs)",
            "KL from the base policy, mean over prompts, nats",
            utility,
            &curves(|c| &c.by_kl, f64::INFINITY),
        )?;
        Ok(())
    }
}

fn bar(dataset: &Dataset, doing: &'static str) -> Result<ProgressBar> {
    let style = style("{msg} {bar:40} {pos}/{len} shards {eta} left");
    let shards = dataset.manifest().shards() as u64;
    Ok(ProgressBar::new(shards).with_style(style).with_message(doing))
}

fn columns(rule: Rule) -> String {
    rollouts::ShapedColumns::names(rule).collect::<Vec<_>>().join(", ")
}

/// The bound at which hard reaches 99 percent of the largest gain.
fn enough(frontiers: &Frontiers) -> f64 {
    let hard = frontiers.curves.iter().find(|curve| curve.rule == Rule::Hard);
    let points = hard.map_or(&[][..], |curve| &curve.by_bound);
    let most = points.iter().map(|p| p.1).fold(frontiers.base, f64::max);
    let short = points.iter().find(|p| most - p.1 <= 0.01 * (most - frontiers.base));
    short.map_or(8.0, |p| p.0).max(4.0)
}
