//! Options for the shaping rule.

use clap::Args;
use stackelberg_decoding::{Options, Settings};
use stackelberg_shaping::{Budget, Error, KlBudget, Rule, Shaping};

use crate::help::{BUDGETS, RULES, named};
use crate::sampling::flag;

/// The shaping rule and its settings. Settings that a rule does not use are ignored.
#[derive(Args)]
#[command(next_help_heading = "Shaping")]
pub(crate) struct ShapingArgs {
    /// The shaping rule: raw (rewards as they are), hard, srs, mean-soft, minmax, meanstd, srs-std, cap, log-sigmoid or par.
    /// [default: srs; `generate --score-every`: raw]
    #[arg(long, value_name = "RULE", hide_possible_values = true, value_parser = named::<Rule>(RULES))]
    shaping: Option<Rule>,

    /// Guidance strength lambda = 1/beta; 0 disables guidance. [default: 1; `generate --method cd`: 4]
    #[arg(long, value_name = "LAMBDA", allow_negative_numbers = true, conflicts_with = "beta")]
    strength: Option<f64>,

    /// The KL coefficient beta = 1/lambda, instead of the strength.
    #[arg(long, allow_negative_numbers = true)]
    beta: Option<f64>,

    /// The bound B: the largest shaped reward. [default: 2]
    #[arg(long, value_name = "B", allow_negative_numbers = true, conflicts_with = "kl_budget")]
    bound: Option<f64>,

    /// Maximum KL from the base policy, in nats. The bound is solved for; for rules without a bound, the
    /// strength is. Per step in args and cd, per block in blockwise and particles, else per prompt. [default: none; `generate` with args: 0.3, unless a
    /// strength, beta or bound is given]
    #[arg(long, value_name = "NATS", allow_negative_numbers = true)]
    pub(crate) kl_budget: Option<f64>,

    /// Steepness of srs, mean-soft (1/reward units) and srs-std (no unit). [default: 1]
    #[arg(long, allow_negative_numbers = true)]
    alpha: Option<f64>,

    /// Upper limit of the rule cap, in reward units. [default: 1]
    #[arg(long, allow_negative_numbers = true)]
    cap: Option<f64>,

    /// Maximum factor by which the rule minmax stretches rewards. [default: 1.01]
    #[arg(long, allow_negative_numbers = true)]
    stretch: Option<f64>,

    /// Upper limit of the exponent B/beta with --budget reference-offline, in nats. [default: 2]
    #[arg(long, value_name = "NATS", allow_negative_numbers = true)]
    exponent_cap: Option<f64>,

    /// The quantile of the rewards that par and log-sigmoid subtract. [default: 0.5]
    #[arg(long, value_name = "Q", allow_negative_numbers = true)]
    ref_quantile: Option<f64>,

    /// How the bound takes effect (not a KL limit; see --kl-budget): paper (as given), reference-step or reference-offline (capped as in the
    /// paper's public code; `reference` means the first in `generate`, the second in `threshold` and
    /// `train value`). [default: paper]
    #[arg(long, hide_possible_values = true, value_parser = named::<String>(BUDGETS))]
    budget: Option<String>,
}

impl ShapingArgs {
    /// The settings that are given. `reference` is the budget that the name `reference` stands for in this command, if
    /// any.
    pub(crate) fn options(&self, reference: Option<Budget>) -> Result<Options, Error> {
        let budget = match (self.budget.as_deref(), reference) {
            (Some("reference"), Some(budget)) => Some(budget),
            (name, _) => name.map(str::parse).transpose()?,
        };
        if let Some(beta) = self.beta.filter(|beta| !(*beta > 0.0 && beta.is_finite())) {
            return Err(Error::Setting { name: "beta", value: beta, must: "above zero, and finite" });
        }
        Ok(Options {
            shaping: self.shaping,
            strength: self.beta.map(f64::recip).or(self.strength),
            bound: self.bound,
            kl_budget: self.kl_budget,
            alpha: self.alpha,
            cap: self.cap,
            stretch: self.stretch,
            ref_quantile: self.ref_quantile,
            budget,
            exponent_cap: self.exponent_cap,
            ..Options::default()
        })
    }

    /// The flag of a setting of this name.
    pub(crate) fn flag(&self, field: &str) -> String {
        match field {
            "strength" if self.beta.is_some() => "--beta".to_owned(),
            _ => flag(field),
        }
    }

    /// The given settings, with the defaults for the rest. `reference` as in [`ShapingArgs::options`].
    pub(crate) fn shaping(&self, reference: Option<Budget>) -> Result<Shaping, Error> {
        let mut settings = Settings::default();
        self.options(reference)?.apply(&mut settings);
        let shaping = settings.shaping;
        shaping.check()?;
        if let Some(nats) = self.kl_budget {
            KlBudget::check(&shaping, nats)?;
        }
        Ok(shaping)
    }
}
