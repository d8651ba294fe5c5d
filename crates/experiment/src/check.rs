//! Validates an experiment's file: every field is checked before anything runs.

use std::collections::BTreeSet;
use std::path::Path;

use stackelberg_decoding::{Method, most};
use stackelberg_registry::names::shown;
use stackelberg_shaping::{Rule, Shaping};

use crate::error::{Context, Result, invalid};
use crate::file::{Experiment, Methods, Perturbed, Values};

/// The largest number of seeds.
const SEEDS: usize = 10_000;
/// The largest number of prompts of a set, and of traces.
const PROMPTS: usize = 10_000_000;
/// The largest number of epochs.
const EPOCHS: usize = 65_536;

/// Refuses a count that is not between `least` and `most`.
fn within(field: &str, count: usize, least: usize, most: usize) -> Result<()> {
    match (least..=most).contains(&count) {
        true => Ok(()),
        false => invalid(format!("{field}: {count} is not between {least} and {most}")),
    }
}

impl Experiment {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// A field is missing, unknown or out of range: with file, line and field.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| stackelberg_data::Error::read(path, e))?;
        Self::from_text(&text, path)
    }

    /// Reads and checks the text of a file. Prompts are looked up in the folder of `path`, which errors name.
    ///
    /// # Errors
    /// As [`Experiment::read`].
    pub fn from_text(text: &str, path: &Path) -> Result<Self> {
        let mut experiment = Self::parse(text, path)?;
        let checked = experiment.check().and_then(|()| experiment.check_settings(usize::MAX));
        checked.with_context(|| path.display().to_string())?;
        experiment.find_sets(path.parent().unwrap_or(Path::new("")))?;
        Ok(experiment)
    }

    /// Checks all fields except the settings of single runs.
    fn check(&self) -> Result<()> {
        let require = |holds: bool, what: &str| if holds { Ok(()) } else { invalid(what) };
        require(!self.name.trim().is_empty(), "name: it must not be empty")?;
        require(!self.seeds.is_empty(), "seeds: give at least one")?;
        let distinct: BTreeSet<u64> = self.seeds.iter().copied().collect();
        require(distinct.len() == self.seeds.len(), "seeds: one is given twice")?;
        require(!self.prompts.is_empty(), "prompts: give at least one [[prompts]]")?;
        let empty = self.prompts.iter().any(|set| set.limit == Some(0));
        require(!empty, "prompts: limit is 0: remove the set instead")?;
        require(!self.methods.is_empty(), "methods: give at least one [[methods]]")?;
        within("seeds: their number", self.seeds.len(), 1, SEEDS)?;
        within("traces", self.traces, 0, PROMPTS)?;
        let sets = self.values.iter().flat_map(|values| &values.prompts).chain(&self.prompts);
        for limit in sets.filter_map(|set| set.limit) {
            within("prompts: limit", limit, 1, PROMPTS)?;
        }
        within("decoding.batch_size", self.decoding.batch_size, 1, most::BATCH_SIZE)?;
        if let Some(field) = self.unused() {
            return invalid(format!("decoding.{field}: none of the [[methods]] uses it: leave it out"));
        }
        let held_out = &self.rewards.held_out;
        require(
            !held_out.contains(&self.rewards.guide),
            "rewards.held_out: the guide cannot be a held-out reward",
        )?;
        let repeated = held_out.iter().enumerate().find(|(i, name)| held_out[..*i].contains(name));
        if let Some((_, name)) = repeated {
            return invalid(format!("rewards.held_out: '{}' is given twice", shown(name)));
        }
        if let Some(values) = &self.values {
            values.check().context("values")?;
        }
        for (field, fraction) in
            [("diversity", self.sweep.diversity), ("coherence", self.sweep.coherence)]
        {
            let holds = (0.0..=1.0).contains(&fraction);
            require(holds, &format!("sweep.{field}: {fraction} is not between 0 and 1"))?;
        }
        for (number, methods) in self.methods.iter().enumerate() {
            if methods.method.chooses() && self.decoding.temperature() == 0.0 {
                return invalid(format!(
                    "methods[{number}]: at temperature 0 all samples that {} chooses from would be identical",
                    methods.method
                ));
            }
            self.check_own(number, methods)?;
            methods.check(self).with_context(|| format!("methods[{number}]"))?;
        }
        let groups: Vec<String> = self.methods.iter().map(Methods::group).collect();
        for (number, group) in groups.iter().enumerate() {
            let what = format!("methods[{number}].method: {group} already has an entry");
            require(!groups[..number].contains(group), &what)?;
        }
        if self.methods.iter().any(|m| m.method == Method::Cd) && self.values.is_none() {
            return invalid("values: cd needs a [values] table with the prompts of the rollouts");
        }
        for (number, perturbed) in self.perturbed.iter().enumerate() {
            self.check_perturbed(number, perturbed)?;
        }
        Ok(())
    }

    /// Checks the decoding settings that an entry has of its own, and its value head.
    fn check_own(&self, number: usize, methods: &Methods) -> Result<()> {
        let method = methods.method;
        if let Some(field) = self.unused_of(methods) {
            return invalid(format!(
                "methods[{number}].{field}: {method} does not use it: leave it out"
            ));
        }
        match methods.value {
            Some(_) if !method.decodes_blocks() => invalid(format!(
                "methods[{number}].value: only blockwise and particles have blocks for a value head to score, not {method}"
            )),
            Some(_) if self.values.is_none() => invalid(format!(
                "methods[{number}].value: it needs a [values] table with the prompts of the rollouts"
            )),
            _ => Ok(()),
        }
    }

    /// Checks that a method and shapings with perturbed rewards are among the methods.
    fn check_perturbed(&self, number: usize, perturbed: &Perturbed) -> Result<()> {
        let method = perturbed.method;
        let methods = || self.methods.iter().filter(|methods| methods.method == method);
        if method == Method::Base || methods().next().is_none() {
            return invalid(format!(
                "perturbed[{number}].method: {method} is not among the [[methods]] that use rewards"
            ));
        }
        let unknown = |rule: &&Rule| !methods().any(|methods| methods.shapings.contains(rule));
        if let Some(rule) = perturbed.shapings.iter().find(unknown) {
            return invalid(format!(
                "perturbed[{number}].shapings: {rule} is not among the shapings of {method}"
            ));
        }
        let shapes = methods().all(|methods| methods.is_guided() || self.draws(methods));
        if shapes && perturbed.shapings.is_empty() {
            return invalid(format!("perturbed[{number}].shapings: give {method} at least one"));
        }
        Ok(())
    }
}

impl Methods {
    fn check(&self, experiment: &Experiment) -> Result<()> {
        let (sweep, draws) = (&experiment.sweep, experiment.draws(self));
        if let Some(strength) = self.strengths.iter().find(|s| !(**s >= 0.0 && s.is_finite())) {
            return invalid(format!(
                "strengths: {strength}: a strength must be zero or more, and finite"
            ));
        }
        if let Some(nats) = self.kl_budgets.iter().find(|nats| !(**nats > 0.0 && nats.is_finite())) {
            return invalid(format!("kl_budgets: {nats}: a KL budget must be above zero, and finite"));
        }
        if let Some((number, knob)) =
            self.knobs().iter().enumerate().find(|(number, knob)| self.knobs()[..*number].contains(knob))
        {
            return invalid(format!(
                "{knob} is given twice (the second time at position {})",
                number + 1
            ));
        }
        for rules in [&self.shapings, &self.reference] {
            if let Some((_, rule)) =
                rules.iter().enumerate().find(|(i, rule)| rules[..*i].contains(rule))
            {
                return invalid(format!("shapings: {rule} is given twice"));
            }
        }
        if !self.kl_budgets.is_empty() && !experiment.takes_budgets(self) {
            return invalid(format!("kl_budgets: {} takes none", self.entry()));
        }
        if !self.kl_budgets.is_empty() && !self.strengths.is_empty() {
            return invalid(
                "kl_budgets: they take the place of strengths: give one of the two (a method may have two entries)",
            );
        }
        if !self.is_guided() {
            let shapings = self.shapings.len() + self.reference.len();
            return match self.method {
                _ if draws && shapings == 0 => {
                    return invalid(format!("shapings: give {} at least one", self.method));
                }
                method if (draws || method == Method::SoftBestOfN) && self.knobs().len() != 1 => {
                    let or = if experiment.takes_budgets(self) { " (or one KL budget)" } else { "" };
                    return invalid(format!("strengths: give {} exactly one{or}", self.method));
                }
                _ if draws => Ok(()),
                _ if shapings > 0 => {
                    return invalid(format!("shapings: {} does not shape rewards", self.method));
                }
                Method::Base | Method::BestOfN | Method::Blockwise if !self.strengths.is_empty() => {
                    return invalid(format!("strengths: {} takes none", self.method));
                }
                _ if self.curves => return invalid(format!("curves: {} has no curves", self.method)),
                _ => Ok(()),
            };
        }
        if self.knobs().is_empty() {
            return invalid("strengths: give at least one (or kl_budgets)");
        }
        if !self.shapings.contains(&sweep.shaping) {
            return invalid(format!("shapings: {} is missing; the sweep needs it", sweep.shaping));
        }
        Ok(())
    }
}

impl Values {
    fn check(&self) -> Result<()> {
        let shaping = Shaping {
            strength: self.strength,
            bound: self.bound,
            alpha: self.alpha,
            cap: self.cap,
            ..Shaping::default()
        };
        shaping.check()?;
        for (field, holds, must) in [
            ("prompts", !self.prompts.is_empty(), "at least one set"),
            ("validation", self.validation > 0.0 && self.validation < 1.0, "between 0 and 1"),
        ] {
            if !holds {
                return invalid(format!("{field}: it must be {must}"));
            }
        }
        within("samples", self.samples, 2, most::SAMPLES)?;
        within("max_new_tokens", self.max_new_tokens, 1, most::NEW_TOKENS)?;
        within("epochs", self.epochs, 1, EPOCHS)
    }
}
