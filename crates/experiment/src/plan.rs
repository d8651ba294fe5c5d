//! The runs of an experiment, derived from its file.

use std::fmt;

use stackelberg_decoding::{Keep, Method, Options, Perturbation, Settings};
use stackelberg_engine::Prompt;
use stackelberg_evaluation::findings::Knob;
use stackelberg_shaping::{Budget, Rule, Shaping};

use crate::error::{Context, Result, invalid};
use crate::file::{Experiment, Methods, group};

/// Everything that determines a run's answers except the seed: a point of a curve, a row of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The method.
    pub method: Method,
    /// The method and the settings that its entry has of its own.
    pub entry: String,
    /// The shaping rule: of the rewards of candidates or answers or, for cd, of the value head's training targets.
    pub rule: Option<Rule>,
    /// Whether the bound budget of the paper's public code is used.
    pub reference: bool,
    /// The strength or KL budget; `None` for methods that do not guide.
    pub knob: Option<Knob>,
    /// The shaping of the training targets of the value head that scores blocks; `None`: rewards score them.
    pub head: Option<Rule>,
    /// The perturbation of rewards before they are shaped.
    pub perturbation: Perturbation,
    /// The decoding settings, without the seed.
    pub settings: Settings,
}

impl Setting {
    /// The heading of the setting's row in the report.
    pub fn group(&self) -> String {
        group(&self.entry, self.knob)
    }

    /// The name without the strength: the name of a curve.
    pub fn curve(&self) -> String {
        let rule = self.rule.map_or_else(String::new, |rule| format!(" {rule}"));
        let reference = if self.reference { " (reference)" } else { "" };
        format!("{}{rule}{reference}", self.entry)
    }

    /// The value head of the setting: for cd, and for methods of blocks whose entry names one.
    pub fn value(&self) -> Option<ValueHead> {
        match self.method {
            Method::Cd => Some(ValueHead { rule: self.rule?, reference: self.reference }),
            _ => Some(ValueHead { rule: self.head?, reference: false }),
        }
    }

    /// A folder name: letters, digits, points and hyphens only.
    pub fn slug(&self) -> String {
        let said = self.to_string().to_lowercase().replace("λ ", "");
        let plain = said.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' });
        let words: String = plain.collect();
        words.split('-').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.curve())?;
        if let Some(knob) = self.knob {
            write!(f, " {knob}")?;
        }
        if self.perturbation != Perturbation::None {
            write!(f, " {}", self.perturbation)?;
        }
        Ok(())
    }
}

/// A value head, identified by the shaping of its training targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ValueHead {
    /// The shaping rule.
    pub rule: Rule,
    /// Whether the bound budget of the paper's public code is used.
    pub reference: bool,
}

impl ValueHead {
    /// The file name.
    pub fn file(self) -> String {
        format!("{}{}.safetensors", self.rule, if self.reference { "-reference" } else { "" })
    }
}

impl Experiment {
    /// Settings without a sweep: the base policy, and methods that choose among its samples.
    pub fn unguided(&self) -> Vec<Setting> {
        let base = std::iter::once(self.setting(Method::Base, None, None, false, None));
        base.chain(self.choosing().flat_map(|methods| self.samples_of(methods))).collect()
    }

    /// The methods without a sweep, besides the base policy.
    fn choosing(&self) -> impl Iterator<Item = &Methods> {
        self.methods.iter().filter(|methods| !methods.is_guided() && methods.method != Method::Base)
    }

    /// The settings of a method without a sweep.
    fn samples_of(&self, methods: &Methods) -> Vec<Setting> {
        let knob = methods.knobs().first().copied();
        match methods.method {
            _ if self.draws(methods) => self.shapings(methods, knob),
            method => vec![self.setting(method, Some(methods), None, false, knob)],
        }
    }

    /// The decoding options of an entry: its own, and those of `[decoding]`.
    fn options_of(&self, methods: Option<&Methods>) -> Options {
        let own = methods.map(|methods| methods.own.clone()).unwrap_or_default();
        own.or(self.decoding.options().clone())
    }

    /// Whether a method draws one of several samples by their shaped rewards.
    pub(crate) fn draws(&self, methods: &Methods) -> bool {
        match methods.method {
            Method::Follower | Method::Particles => true,
            Method::Blockwise => self.options_of(Some(methods)).keep == Some(Keep::Draw),
            _ => false,
        }
    }

    /// Whether KL budgets can take the place of a method's strengths.
    pub(crate) fn takes_budgets(&self, methods: &Methods) -> bool {
        let mut settings = Settings::new(methods.method);
        self.options_of(Some(methods)).apply(&mut settings);
        settings.kl_budget = Some(1.0);
        Options::used(&settings).given().any(|field| field == "kl_budget")
    }

    /// An own setting of an entry that has no effect.
    pub(crate) fn unused_of(&self, methods: &Methods) -> Option<&'static str> {
        methods.own.given().find(|name| !self.uses(methods.method, Some(methods), name))
    }

    /// A setting of `[decoding]` that neither the base policy nor an entry uses.
    pub(crate) fn unused(&self) -> Option<&'static str> {
        let of_entry = |name| self.methods.iter().any(|m| self.uses(m.method, Some(m), name));
        let used = |name| self.uses(Method::Base, None, name) || of_entry(name);
        self.decoding.given().iter().copied().find(|name| !used(name))
    }

    /// Whether a method uses the setting of this name, beside the other settings of its entry.
    fn uses(&self, method: Method, methods: Option<&Methods>, name: &str) -> bool {
        let mut settings = Settings::new(method);
        self.options_of(methods).apply(&mut settings);
        Options::used(&settings).given().any(|field| field == name)
    }

    /// The methods that guide each step (args and cd).
    pub fn guided(&self) -> impl Iterator<Item = &Methods> {
        self.methods.iter().filter(|methods| methods.is_guided())
    }

    /// A method's sweep: the vanilla shaping at every strength (or budget).
    pub fn sweep_of(&self, methods: &Methods) -> Vec<Setting> {
        let vanilla = Some(self.sweep.shaping);
        let at = |knob| self.setting(methods.method, Some(methods), vanilla, false, Some(knob));
        methods.knobs().into_iter().map(at).collect()
    }

    /// All shapings of a method at one strength; those with the reference budget come last.
    pub fn shapings(&self, methods: &Methods, knob: Option<Knob>) -> Vec<Setting> {
        let of = |rules: &[Rule], reference| -> Vec<Setting> {
            let setting =
                |&rule| self.setting(methods.method, Some(methods), Some(rule), reference, knob);
            rules.iter().map(setting).collect()
        };
        [of(&methods.shapings, false), of(&methods.reference, true)].concat()
    }

    /// All shapings of a method at the strengths other than the kept one, for curves.
    pub fn curves(&self, methods: &Methods, kept: Knob) -> Vec<Setting> {
        let others = methods.knobs().into_iter().filter(|&knob| methods.curves && knob != kept);
        others.flat_map(|knob| self.shapings(methods, Some(knob))).collect()
    }

    /// Settings with perturbed rewards of a method without a sweep.
    fn perturbed_samples(&self, methods: &Methods) -> Vec<Setting> {
        self.with_perturbed(methods, &self.samples_of(methods))
    }

    /// Settings with perturbed rewards, at the kept strength.
    pub fn perturbed(&self, methods: &Methods, kept: Knob) -> Vec<Setting> {
        self.with_perturbed(methods, &self.shapings(methods, Some(kept)))
    }

    /// The settings that `[[perturbed]]` names, with perturbed rewards, in the order of its shapings. Those with the
    /// reference budget are left out.
    fn with_perturbed(&self, methods: &Methods, settings: &[Setting]) -> Vec<Setting> {
        let mut found = Vec::new();
        for perturbed in self.perturbed.iter().filter(|perturbed| perturbed.method == methods.method) {
            let place = |setting: &&Setting| match setting.rule {
                Some(rule) => perturbed.shapings.iter().position(|&shaping| shaping == rule),
                None => Some(0),
            };
            let wanted =
                settings.iter().filter(|setting| !setting.reference && place(setting).is_some());
            let mut wanted: Vec<&Setting> = wanted.collect();
            wanted.sort_by_key(place);
            for &perturbation in &perturbed.with {
                found.extend(wanted.iter().map(|&setting| {
                    let mut setting = setting.clone();
                    (setting.perturbation, setting.settings.perturbation) = (perturbation, perturbation);
                    setting
                }));
            }
        }
        found
    }

    /// The seeds of a setting's runs: all seeds, or the first one if decoding is greedy.
    pub fn seeds_of(&self, setting: &Setting) -> &[u64] {
        let greedy = setting.settings.sampling.temperature == 0.0;
        if greedy { &self.seeds[..1] } else { &self.seeds }
    }

    /// The stages before a strength is kept: the name and the settings of each.
    pub fn first_stages(&self) -> Vec<(String, Vec<Setting>)> {
        let sweep =
            |methods: &Methods| (format!("{}: the sweep", methods.group()), self.sweep_of(methods));
        std::iter::once(("without a sweep".to_owned(), self.unguided()))
            .chain(self.guided().map(sweep))
            .collect()
    }

    /// The stages after the sweep. `kept` returns the kept strength of a method, if there is one.
    pub fn later_stages(&self, kept: &dyn Fn(&Methods) -> Option<Knob>) -> Vec<(String, Vec<Setting>)> {
        let of = |what: &str,
                  stage: &dyn Fn(&Methods, Knob) -> Vec<Setting>|
         -> Vec<(String, Vec<Setting>)> {
            let guided = self.guided().filter_map(|methods| Some((methods, kept(methods)?)));
            guided.map(|(m, knob)| (format!("{}: {what}", m.group()), stage(m, knob))).collect()
        };
        let mut stages =
            of("all shapings at the kept strength", &|m, kept| self.shapings(m, Some(kept)));
        stages.extend(of("perturbed rewards", &|m, kept| self.perturbed(m, kept)));
        let samples =
            |m: &Methods| (format!("{}: perturbed rewards", m.group()), self.perturbed_samples(m));
        stages.extend(self.choosing().map(samples));
        stages.extend(of("curves", &|m, kept| self.curves(m, kept)));
        // A setting appears in one stage only.
        let mut seen: Vec<Setting> =
            self.first_stages().into_iter().flat_map(|(_, settings)| settings).collect();
        for (_, settings) in &mut stages {
            settings.retain(|setting| !seen.contains(setting));
            seen.extend(settings.iter().cloned());
        }
        stages.retain(|(_, settings)| !settings.is_empty());
        stages
    }

    /// Checks the ranges of all settings that can be run, for a vocabulary of this size.
    ///
    /// # Errors
    /// A setting is out of range; the error names the setting's run.
    pub fn check_settings(&self, vocabulary: usize) -> Result<()> {
        for setting in self.all_settings() {
            setting.settings.check(vocabulary).with_context(|| setting.to_string())?;
        }
        Ok(())
    }

    /// All settings that can be run, for any kept strengths.
    pub fn all_settings(&self) -> Vec<Setting> {
        let mut settings = self.unguided();
        settings.extend(self.choosing().flat_map(|methods| self.perturbed_samples(methods)));
        for methods in self.guided() {
            for knob in methods.knobs() {
                settings.extend(self.shapings(methods, Some(knob)));
                settings.extend(self.perturbed(methods, knob));
            }
        }
        settings
    }

    /// Checks that no prompt is also a training prompt of the value heads.
    ///
    /// # Errors
    /// A prompt is in both sets; the error names it.
    pub fn check_leakage(
        &self,
        prompts: &[(String, Prompt)],
        taught: &[(String, Prompt)],
    ) -> Result<()> {
        let common = prompts.iter().find(|(_, prompt)| taught.iter().any(|(_, other)| other == prompt));
        match common {
            Some((id, _)) => invalid(format!(
                "values.prompts: prompt '{id}' is also in [[prompts]]: value heads must not be trained on the prompts of the experiment"
            )),
            None => Ok(()),
        }
    }

    fn setting(
        &self,
        method: Method,
        methods: Option<&Methods>,
        rule: Option<Rule>,
        reference: bool,
        knob: Option<Knob>,
    ) -> Setting {
        let default = method.default_shaping();
        let (strength, kl_budget) = match knob {
            Some(Knob::Strength(strength)) => (Some(strength), None),
            Some(Knob::KlBudget(nats)) => (None, Some(nats)),
            None => (None, None),
        };
        let budget = match (reference, method) {
            (false, _) | (true, Method::Cd) => Budget::Paper,
            (true, method) if method.chooses() => Budget::ReferenceOffline,
            (true, _) => Budget::ReferenceStep,
        };
        let given = |of: fn(&Methods) -> Option<f64>, default| methods.and_then(of).unwrap_or(default);
        let shaping = Shaping {
            // The outputs of a value head are not shaped.
            rule: rule.filter(|_| method != Method::Cd).unwrap_or(default.rule),
            strength: strength.unwrap_or(default.strength),
            bound: given(|m| m.bound, default.bound),
            alpha: given(|m| m.alpha, default.alpha),
            cap: given(|m| m.cap, default.cap),
            budget,
            ..default
        };
        let keep = Settings::new(method).keep;
        let mut settings = Settings { method, shaping, kl_budget, keep, ..Settings::default() };
        self.options_of(methods).apply(&mut settings);
        Setting {
            method,
            entry: methods.map_or_else(|| method.to_string(), Methods::entry),
            rule,
            reference,
            knob,
            head: methods.and_then(|methods| methods.value),
            perturbation: Perturbation::None,
            settings,
        }
    }
}
