//! Progress events of an experiment.

use stackelberg_learning::rollouts::{self, Dataset};
use stackelberg_learning::value;

use crate::plan::Setting;

/// Receives the progress events of an experiment. By default, events are ignored.
pub trait Observer {
    /// A stage, which is a group of runs, begins.
    fn stage(&mut self, _name: &str) {}

    /// A message for the user, for example which strength is kept.
    fn message(&mut self, _text: &str) {}

    /// A warning for the user.
    fn warning(&mut self, _text: &str) {}

    /// The run of a setting with one seed begins.
    fn run(&mut self, _setting: &Setting, _seed: u64) {}

    /// More answers are finished: their number, and their tokens (0 for answers of an earlier call).
    fn answered(&mut self, _answers: usize, _tokens: usize) {}

    /// A run has been finished and measured in this call.
    fn measured(&mut self, _setting: &Setting, _seed: u64) {}

    /// Rollouts begin to fill a dataset. The returned object receives their progress and can stop them, see
    /// [`rollouts::Progress::stop`].
    fn rollouts<'d>(&'d mut self, dataset: &'d Dataset) -> Box<dyn rollouts::Progress + 'd>;

    /// The training of a value head begins. The returned object receives its progress and can stop it, see
    /// [`value::Watch::stop`].
    fn training(&mut self, settings: &value::Settings) -> Box<dyn value::Watch + '_>;
}
