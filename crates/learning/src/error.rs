//! What can be wrong with training data, features, settings and files, said once and precisely.

/// Why a head could not be trained or written. Every variant names the thing at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The policy failed on a text.
    #[error(transparent)]
    Engine(#[from] stackelberg_engine::Error),

    /// A file cannot be read or written, or a line of it is malformed.
    #[error(transparent)]
    File(#[from] stackelberg_data::Error),

    /// Decoding failed.
    #[error(transparent)]
    Decoding(#[from] stackelberg_decoding::Error),

    /// Computing with tensors failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),

    /// Training went astray.
    #[error("the loss is no number after epoch {epoch}: try a learning rate below {rate}")]
    Diverged {
        /// From 1.
        epoch: usize,
        /// The learning rate.
        rate: f64,
    },

    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,

    /// A dataset of rollouts that is not what it should be.
    #[error("{file}: {problem}")]
    Dataset {
        /// The folder or a file in it.
        file: String,
        /// What is wrong and what to do.
        problem: String,
    },

    /// A shard of a dataset of rollouts that is not whole, or not of this dataset.
    #[error("{file}: {problem}: delete the file and run the same rollout again, which writes it anew")]
    Shard {
        /// The shard's file.
        file: String,
        /// What is wrong.
        problem: String,
    },

    /// A dataset of rollouts that was begun with other settings.
    #[error(
        "{folder}: begun with {field} {was}, this run has {is}: use the same settings or another folder"
    )]
    OtherSettings {
        /// The dataset's folder.
        folder: String,
        /// The first setting that differs.
        field: String,
        /// Its value in the manifest.
        was: String,
        /// Its value now.
        is: String,
    },

    /// A dataset of rollouts of which shards are missing.
    #[error(
        "{folder}: {missing} of {shards} shards are not there yet, the first is number {first}: run the same rollout again"
    )]
    Unfinished {
        /// The dataset's folder.
        folder: String,
        /// How many are missing.
        missing: usize,
        /// How many there are in all.
        shards: usize,
        /// The first that is missing, from 0.
        first: usize,
    },

    /// Settings of a shaping outside their range.
    #[error(transparent)]
    ShapingSettings {
        /// What is wrong.
        source: stackelberg_shaping::Error,
    },

    /// A KL budget for a rule whose strength it would solve for.
    #[error(
        "{rule} has no bound to solve for: a KL budget would give every prompt its own strength, which shaped rewards do not hold; use a rule with a bound"
    )]
    NoBound {
        /// The rule.
        rule: stackelberg_shaping::Rule,
    },

    /// Rewards of a prompt that cannot be shaped.
    #[error("{file}: prompt '{prompt}': {source}")]
    Shaping {
        /// The folder of the rollouts.
        file: String,
        /// The prompt's name.
        prompt: String,
        /// What is wrong.
        source: stackelberg_shaping::Error,
    },

    /// A follower that does better than a theorem allows: an error of this program, not of its input.
    #[error(
        "prompt '{prompt}': {rule} at strength {strength} delivers {utility}, which {theorem} limits to {limit}: \
         this is a bug, please report it with the rewards {rewards:?}"
    )]
    Theorem {
        /// The prompt's name.
        prompt: String,
        /// The shaping rule.
        rule: stackelberg_shaping::Rule,
        /// Its strength.
        strength: f64,
        /// The follower's utility.
        utility: f64,
        /// The theorem.
        theorem: &'static str,
        /// The most that it allows.
        limit: f64,
        /// The prompt's rewards.
        rewards: Vec<f64>,
    },

    /// A head whose name would not be recognised.
    #[error("cannot write {file}: a head's name ends in .safetensors")]
    Extension {
        /// The path given.
        file: String,
    },

    /// Metadata that would overwrite the head's own.
    #[error("metadata key '{key}' is the head's own: choose another name")]
    ReservedKey {
        /// The key.
        key: String,
    },

    /// A head's number that is NaN or infinite.
    #[error("{what} is {value}: a head holds finite numbers only")]
    HeadNumber {
        /// `score.weight[3]`, `score.bias`, `reward_mean` or `reward_std`.
        what: String,
        /// The value found there.
        value: f64,
    },

    /// A feature, target, score or setting that is NaN or infinite.
    #[error("{what}[{index}] is {value}: it must be a finite number")]
    NotFinite {
        /// `targets`, `predictions`, `scores of chosen`, ...
        what: &'static str,
        /// Position, from 0.
        index: usize,
        /// The value found there.
        value: f64,
    },

    /// A feature that is NaN or infinite.
    #[error("feature {column} of row {row} is {value}: features must be finite numbers")]
    Feature {
        /// Row, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
        /// The value found there.
        value: f32,
    },

    /// A flat matrix whose length is no multiple of its width, or of width 0.
    #[error("{values} features do not make rows of {width}")]
    Shape {
        /// The number of values.
        values: usize,
        /// The width claimed.
        width: usize,
    },

    /// Two things that describe the same rows differ in length or width.
    #[error("{what} has {found} {unit} but {beside} has {expected}")]
    Length {
        /// What is wrong.
        what: &'static str,
        /// Its length.
        found: usize,
        /// `rows` or `columns`.
        unit: &'static str,
        /// What it belongs to.
        beside: &'static str,
        /// The length of that.
        expected: usize,
    },

    /// Metrics of no rows at all.
    #[error("there are no rows to measure")]
    NothingToMeasure,

    /// Fewer groups than folds.
    #[error("{groups} groups of rows cannot be split into {folds} folds: give more data or fewer folds")]
    TooFew {
        /// Distinct groups (rows, where no groups are given).
        groups: usize,
        /// Folds asked for.
        folds: usize,
    },

    /// Something that must vary does not, so there is nothing to learn from or measure.
    #[error("{what} are all the same: there is nothing to learn from them")]
    Constant {
        /// `targets`, `predictions`, `features`, `features of chosen and rejected`.
        what: &'static str,
    },

    /// A setting outside its range.
    #[error("{name} is {value}: it must be {must}")]
    Setting {
        /// The setting's name.
        name: &'static str,
        /// The value given.
        value: f64,
        /// The values allowed.
        must: &'static str,
    },

    /// The solver gave up, which takes features of wildly different sizes or hardly any regularisation.
    #[error("no solution found at regularisation {regularisation}: try larger values only")]
    NotConverged {
        /// The value of `lambda`.
        regularisation: f64,
    },
}

/// The first value that is NaN or infinite, as an error.
pub(crate) fn require_finite(what: &'static str, values: &[f64]) -> Result<(), Error> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(index) => Err(Error::NotFinite { what, index, value: values[index] }),
    }
}

/// Checks that `what` has as many rows, or columns, as `beside`.
pub(crate) fn require_same(
    unit: &'static str,
    what: &'static str,
    found: usize,
    beside: &'static str,
    expected: usize,
) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Length { what, found, unit, beside, expected })
}
