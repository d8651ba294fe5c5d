//! `stackelberg shape`: the mathematics on rewards made elsewhere.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use stackelberg_shaping::{Budget, Confidence, Error, Report, Rule, Samples, Shaping, argmax, fuse};

use crate::output::Output;
use crate::rows::{Rows, stdin};
use crate::summary::Summary;

/// Shape rewards made elsewhere: one line of rewards in, one line of shaped rewards out.
///
/// Each input line is a JSON object with the rewards of one prompt's responses:
///
///   {"id": "a", "rewards": [0.1, 2.3, -0.4]}
///
/// "weights" may give the base policy's weight on each response, or "logits" the scores of a decoding
/// step's candidates; without either the responses count as samples of the base policy. Other fields are
/// ignored. The output line has the threshold m* with its certificate and interval, the shaped rewards,
/// and what the follower makes of them.
#[derive(Args)]
pub(crate) struct Shape {
    /// JSON lines; - is standard input.
    #[arg(default_value_os_t = stdin())]
    file: PathBuf,

    /// Level of the interval for m*, between 0.5 and 0.99.
    #[arg(long, default_value_t = 0.9, value_name = "P", allow_negative_numbers = true)]
    level: f64,

    /// Write here instead of to standard output; the file appears when all is written.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Print a summary for people instead of JSON lines.
    #[arg(long)]
    summary: bool,

    #[command(flatten)]
    settings: Settings,
}

/// The shaping rule and its settings. Settings that a rule does not use are ignored.
#[derive(Args)]
#[command(next_help_heading = "Shaping")]
struct Settings {
    /// The rule: raw, hard, srs, mean-soft, minmax, meanstd, srs-std, cap, log-sigmoid or par.
    #[arg(long, default_value_t = Rule::Srs, value_name = "RULE")]
    shaping: Rule,

    /// lambda = 1/beta, how hard the model follows the reward; 0 is not at all. [default: 0.5]
    #[arg(long, value_name = "LAMBDA", allow_negative_numbers = true, conflicts_with = "beta")]
    strength: Option<f64>,

    /// The KL coefficient beta instead of the strength.
    #[arg(long, allow_negative_numbers = true)]
    beta: Option<f64>,

    /// B, the most a shaped reward can be. [default: 12]
    #[arg(long, value_name = "B", allow_negative_numbers = true, conflicts_with = "kl_budget")]
    bound: Option<f64>,

    /// Instead of a bound: the most KL from the base policy, in nats. Rules without a bound get their
    /// strength solved for.
    #[arg(long, value_name = "NATS", allow_negative_numbers = true)]
    kl_budget: Option<f64>,

    /// Steepness of srs, mean-soft (1/reward units) and srs-std (no unit).
    #[arg(long, default_value_t = Shaping::default().alpha, allow_negative_numbers = true)]
    alpha: f64,

    /// Ceiling of the rule cap, in reward units.
    #[arg(long, default_value_t = Shaping::default().cap, allow_negative_numbers = true)]
    cap: f64,

    /// The rule minmax stretches rewards by at most this factor.
    #[arg(long, default_value_t = Shaping::default().stretch, allow_negative_numbers = true)]
    stretch: f64,

    /// Cap of the exponent B/beta in the budget reference-offline, in nats.
    #[arg(long, value_name = "NATS", default_value_t = Shaping::default().exponent_cap,
          allow_negative_numbers = true)]
    exponent_cap: f64,

    /// The quantile of the rewards that par and log-sigmoid refer to.
    #[arg(long, value_name = "Q", default_value_t = Shaping::default().ref_quantile,
          allow_negative_numbers = true)]
    ref_quantile: f64,

    /// Which bound takes effect: paper (as given), reference-step or reference-offline (capped as the
    /// paper's public code does).
    #[arg(long, default_value_t = Budget::Paper)]
    budget: Budget,
}

impl Settings {
    fn shaping(&self) -> Result<Shaping, Error> {
        if let Some(beta) = self.beta.filter(|beta| !(*beta > 0.0 && beta.is_finite())) {
            return Err(Error::Setting { name: "beta", value: beta, must: "above zero, and finite" });
        }
        let default = Shaping::default();
        let shaping = Shaping {
            rule: self.shaping,
            strength: self.beta.map_or(self.strength.unwrap_or(default.strength), f64::recip),
            bound: self.bound.unwrap_or(default.bound),
            alpha: self.alpha,
            cap: self.cap,
            stretch: self.stretch,
            ref_quantile: self.ref_quantile,
            budget: self.budget,
            exponent_cap: self.exponent_cap,
        };
        shaping.check().map(|()| shaping)
    }
}

/// One prompt's rewards.
#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    id: serde_json::Value,
    rewards: Vec<f64>,
    weights: Option<Vec<f64>>,
    logits: Option<Vec<f64>>,
}

impl Row {
    fn samples(&self) -> Result<Samples<'_>> {
        if self.id.is_array() || self.id.is_object() {
            bail!("id: must be a string or a number");
        }
        Ok(match (&self.weights, &self.logits) {
            (None, None) => Samples::new(&self.rewards)?,
            (Some(weights), None) => Samples::weighted(&self.rewards, weights)?,
            (None, Some(logits)) => Samples::from_logits(&self.rewards, logits)?,
            (Some(_), Some(_)) => bail!("weights and logits exclude each other: give one"),
        })
    }
}

/// One line of output.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a serde_json::Value,
    threshold: Option<f64>,
    residual: Option<f64>,
    lowest_rewarded: Option<f64>,
    highest_unrewarded: Option<f64>,
    interval: Option<Range>,
    bound: Option<f64>,
    strength: f64,
    shaped: &'a [f64],
    #[serde(skip_serializing_if = "Option::is_none")]
    fused: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chosen: Option<usize>,
    utility: Utility,
    kl: Kl,
    ess: f64,
    above: Option<usize>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Range {
    level: f64,
    low: f64,
    high: Option<f64>,
}

#[derive(Serialize)]
struct Utility {
    base: f64,
    raw: f64,
    shaped: f64,
}

#[derive(Serialize)]
struct Kl {
    raw: f64,
    shaped: f64,
}

impl<'a> Line<'a> {
    fn new(row: &'a Row, report: &'a Report) -> Self {
        let threshold = report.shaped.threshold;
        let values = &report.shaped.values;
        let fused = row.logits.as_ref().map(|logits| fuse(logits, values, report.shaping.strength));
        Self {
            id: &row.id,
            threshold: threshold.map(|t| t.value),
            residual: threshold.map(|t| t.residual),
            lowest_rewarded: threshold.map(|t| t.lowest_rewarded),
            highest_unrewarded: threshold.and_then(|t| t.highest_unrewarded),
            interval: report.interval.map(|i| Range { level: i.level, low: i.low, high: i.high }),
            bound: report.shaped.bound,
            strength: report.shaping.strength,
            shaped: values,
            chosen: fused.as_deref().and_then(argmax),
            fused,
            utility: Utility {
                base: report.base_utility,
                raw: report.raw.utility,
                shaped: report.follower.utility,
            },
            kl: Kl { raw: report.raw.kl, shaped: report.follower.kl },
            ess: report.follower.ess,
            above: threshold.map(|t| t.above),
            warnings: report.warnings.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Shape {
    pub(crate) fn run(&self) -> Result<()> {
        let shaping = self.settings.shaping()?;
        let confidence = Confidence::new(self.level)?;
        let mut rows = Rows::open(&self.file)?;
        let mut out = Output::open(self.out.as_deref())?;
        if self.summary {
            let mut summary = Summary::new(shaping, self.settings.kl_budget);
            while let Some(row) = rows.next::<Row>()? {
                let added = row.samples().and_then(|samples| Ok(summary.add(&samples)?));
                added.map_err(|e| rows.wrong(&e))?;
            }
            if summary.is_empty() {
                bail!("{} has no lines: nothing to summarise", rows.name());
            }
            write!(out, "{summary}").context("cannot write the summary")?;
        } else {
            while let Some(row) = rows.next::<Row>()? {
                let samples = row.samples().map_err(|e| rows.wrong(&e))?;
                let report = Report::new(&shaping, &samples, self.settings.kl_budget, Some(&confidence))
                    .map_err(|e| rows.wrong(&e))?;
                serde_json::to_writer(&mut out, &Line::new(&row, &report))
                    .map_err(std::io::Error::from)?;
                out.write_all(b"\n").context("cannot write the output")?;
            }
        }
        out.finish()
    }
}
