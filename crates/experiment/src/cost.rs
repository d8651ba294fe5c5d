//! How many tokens an experiment runs through the policy at most, before anything is run.

use stackelberg_decoding::{Method, Settings};

use crate::file::Experiment;
use crate::stages::stages;

/// The size of an experiment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Settings.
    pub settings: usize,
    /// Answers.
    pub answers: usize,
    /// The largest number of tokens that are run through the policy, without prompts and rollouts.
    pub tokens: usize,
}

impl Size {
    /// The size of an experiment with so many prompts.
    pub fn of(experiment: &Experiment, prompts: usize) -> Self {
        let mut size = Self::default();
        for setting in stages(experiment, &[]).iter().flat_map(|(_, settings)| settings) {
            let answers = experiment.seeds_of(setting).len() * prompts;
            size.settings += 1;
            size.answers += answers;
            let tokens = answers.saturating_mul(most_tokens_run(&setting.settings));
            size.tokens = size.tokens.saturating_add(tokens);
        }
        size
    }
}

/// The largest number of tokens that one answer runs through the policy, without the prompt: the greatest length of an
/// answer times the number of its texts. Methods that choose have `samples` texts. `args` and `cd` have the answer (each
/// beam of it) and its candidates, which are looked ahead at every step; segments carry every candidate on.
pub fn most_tokens_run(settings: &Settings) -> usize {
    let texts = match settings.method {
        method if method.chooses() => settings.samples,
        Method::Args | Method::Cd => settings.beams.saturating_mul(settings.candidates + 1),
        _ => 1,
    };
    texts.saturating_mul(settings.max_new_tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_tokens_are_those_of_all_texts() {
        let most = |method: Method, change: fn(&mut Settings)| {
            let mut settings = Settings { max_new_tokens: 64, samples: 8, ..Settings::new(method) };
            change(&mut settings);
            most_tokens_run(&settings)
        };
        assert_eq!(most(Method::Base, |_| ()), 64);
        assert_eq!(most(Method::BestOfN, |_| ()), 8 * 64);
        assert_eq!(most(Method::Particles, |settings| settings.samples = 4), 4 * 64);
        assert_eq!(most(Method::Blockwise, |settings| settings.block = 16), 8 * 64);
        assert_eq!(most(Method::Args, |_| ()), 11 * 64);
        assert_eq!(most(Method::Args, |settings| settings.score_every = 16), 11 * 64);
        assert_eq!(most(Method::Cd, |settings| settings.beams = 2), 2 * 11 * 64);
        assert_eq!(most(Method::Cd, |settings| settings.beams = usize::MAX), usize::MAX);
    }
}
