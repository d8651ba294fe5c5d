//! What a caller may be told while an experiment runs.

use stackelberg_learning::rollouts::{self, Dataset};
use stackelberg_learning::value;

use crate::plan::Setting;

/// Is told what happens. Every method may be left out.
pub trait Observer {
    /// A group of runs begins.
    fn stage(&mut self, _name: &str) {}

    /// Something that the user should know and that is no problem.
    fn message(&mut self, _text: &str) {}

    /// Something that the user should look at.
    fn warning(&mut self, _text: &str) {}

    /// A run begins.
    fn run(&mut self, _setting: &Setting, _seed: u64) {}

    /// Answers are there: how many more, and their tokens (0 where they were there before).
    fn answered(&mut self, _answers: usize, _tokens: usize) {}

    /// A run is finished and measured; it was not before.
    fn measured(&mut self, _setting: &Setting, _seed: u64) {}

    /// Is told of rollouts that fill a dataset. They can be cancelled, see [`rollouts::Progress::stop`].
    fn rollouts<'d>(&'d mut self, dataset: &'d Dataset) -> Box<dyn rollouts::Progress + 'd>;

    /// Is told of the training of a value head. It can be cancelled, see [`value::Watch::stop`].
    fn training(&mut self, settings: &value::Settings) -> Box<dyn value::Watch + '_>;
}
