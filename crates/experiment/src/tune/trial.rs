//! One setting of a tuning, with its runs.

use stackelberg_evaluation::findings::Series;

use super::advice::Candidate;
use crate::error::{Error, Result};
use crate::lab::{Done, Lab};
use crate::plan::Setting;
use crate::results::tokens_run;
use crate::sweep::{measured, runs};

/// A setting with its finished runs.
pub(super) struct Trial {
    pub(super) setting: Setting,
    pub(super) runs: Vec<Done>,
    pub(super) series: Series,
    /// Tokens run through the policy, per prompt.
    pub(super) tokens_run: Option<f64>,
}

impl Trial {
    /// All settings of the experiment; the first one is the base policy.
    pub(super) fn all(lab: &Lab<'_>) -> Result<Vec<Self>> {
        let settings = lab.experiment.first_stages().into_iter().flat_map(|(_, settings)| settings);
        settings.map(|setting| Self::of(lab, setting)).collect()
    }

    fn of(lab: &Lab<'_>, setting: Setting) -> Result<Self> {
        let missing = || {
            Error::Invalid(format!("{setting}: its runs are missing although the experiment has ended"))
        };
        let runs = runs(lab, &setting)?.ok_or_else(missing)?;
        let series = measured(&setting, &runs);
        Ok(Self { tokens_run: tokens_run(&runs), setting, runs, series })
    }

    /// The name in tables.
    pub(super) fn name(&self) -> String {
        self.setting.to_string()
    }

    /// What advice chooses among.
    pub(super) fn candidate(&self) -> Candidate<'_> {
        Candidate { name: self.name(), series: &self.series, tokens_run: self.tokens_run }
    }

    /// The answer to a prompt, with the first seed.
    pub(super) fn text(&self, prompt: usize) -> &str {
        let responses = &self.runs[0].responses;
        responses.get(prompt).map_or("", |response| &response.text)
    }
}
