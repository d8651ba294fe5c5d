//! Errors about training data, features, settings and files.

/// Why a head could not be trained or written, or a dataset could not be read or written. Each variant names the cause.
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

    /// Training diverged.
    #[error("the loss is not a number after epoch {epoch}: try a learning rate below {rate}")]
    Diverged {
        /// The epoch, from 1.
        epoch: usize,
        /// The learning rate.
        rate: f64,
    },

    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,

    /// A dataset of rollouts is invalid.
    #[error("{file}: {problem}")]
    Dataset {
        /// The folder or a file in it.
        file: String,
        /// What is wrong and how to fix it.
        problem: String,
    },

    /// A server runs the policy, whose hidden states are wanted.
    #[error(
        "{model}: a server gives no hidden states: add --no-hidden, or name one that gives those of all tokens with --states"
    )]
    ServerHidden {
        /// The policy's name.
        model: String,
    },

    /// The file of a head cannot be written there.
    #[error("{file}: {problem}")]
    Out {
        /// The path given.
        file: String,
        /// What is wrong.
        problem: String,
    },

    /// A stopped training left its checkpoint, or there is none to continue.
    #[error("{problem}")]
    Resume {
        /// The checkpoint, and what to do.
        problem: String,
    },

    /// No judgements were given to train a reward head on.
    #[error(
        "give the data to train on: preference pairs with --pairs FILE, or rated texts with --rated FILE"
    )]
    NoJudgements,

    /// A file of judgements cannot be used.
    #[error("{file}")]
    Judged {
        /// The name of the file.
        file: String,
        /// What is wrong.
        source: Box<Error>,
    },

    /// Something named cannot be fetched or loaded.
    #[error(transparent)]
    Registry(#[from] stackelberg_registry::Error),

    /// A shard is corrupt, or belongs to another dataset.
    #[error("{file}: {problem}: delete the file and run the same rollout again to recreate it")]
    Shard {
        /// The shard's file.
        file: String,
        /// What is wrong.
        problem: String,
    },

    /// A dataset or checkpoint was begun with other settings.
    #[error(
        "{folder}: begun with {field} {was}, this run has {is}: use the same settings or another folder"
    )]
    OtherSettings {
        /// The dataset's folder, or the checkpoint's file.
        folder: String,
        /// The first setting that differs.
        field: String,
        /// Its previous value.
        was: String,
        /// Its present value.
        is: String,
    },

    /// Shards of a dataset are missing.
    #[error(
        "{folder}: {missing} of {shards} shards are not there yet, the first is number {first}: run the same rollout again"
    )]
    Unfinished {
        /// The dataset's folder.
        folder: String,
        /// Number of missing shards.
        missing: usize,
        /// Number of all shards.
        shards: usize,
        /// The first missing shard, from 0.
        first: usize,
    },

    /// A setting of the shaping is outside its range.
    #[error(transparent)]
    ShapingSettings {
        /// What is wrong.
        source: stackelberg_shaping::Error,
    },

    /// A KL budget was given for a rule without a bound.
    #[error(
        "{rule} has no bound to solve for: a KL budget would determine a strength per prompt, which shaped rewards do not record; use a rule with a bound"
    )]
    NoBound {
        /// The rule.
        rule: stackelberg_shaping::Rule,
    },

    /// The rewards of a prompt cannot be shaped.
    #[error("{file}: prompt '{prompt}': {source}")]
    Shaping {
        /// The folder of the rollouts.
        file: String,
        /// The prompt's name.
        prompt: String,
        /// What is wrong.
        source: stackelberg_shaping::Error,
    },

    /// A follower exceeds the limit of a theorem, which is a bug of this program.
    #[error(
        "prompt '{prompt}': {rule} at strength {strength} has utility {utility}, above the limit {limit} of {theorem}: \
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
        /// The limit.
        limit: f64,
        /// The prompt's rewards.
        rewards: Vec<f64>,
    },

    /// A head's file must have the extension `.safetensors`.
    #[error("cannot write {file}: the name of a head must end in .safetensors")]
    Extension {
        /// The path given.
        file: String,
    },

    /// Additional metadata has a reserved key.
    #[error("metadata key '{key}' is reserved: choose another name")]
    ReservedKey {
        /// The key.
        key: String,
    },

    /// A number of a head is NaN or infinite.
    #[error("{what} is {value}: it must be a finite number")]
    HeadNumber {
        /// `score.weight[3]`, `score.bias`, `reward_mean` or `reward_std`.
        what: String,
        /// The value found there.
        value: f64,
    },

    /// A target, prediction or score is NaN or infinite.
    #[error("{what}[{index}] is {value}: it must be a finite number")]
    NotFinite {
        /// `targets`, `predictions`, `scores of chosen`, ...
        what: &'static str,
        /// Position, from 0.
        index: usize,
        /// The value found there.
        value: f64,
    },

    /// A feature is NaN or infinite.
    #[error("feature {column} of row {row} is {value}: features must be finite numbers")]
    Feature {
        /// Row, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
        /// The value found there.
        value: f32,
    },

    /// The length of a flat matrix is not a multiple of its width, or the width is 0.
    #[error("{values} features do not make rows of {width}")]
    Shape {
        /// The number of values.
        values: usize,
        /// The width.
        width: usize,
    },

    /// Two arrays that describe the same rows differ in length or width.
    #[error("{what} has {found} {unit} but {beside} has {expected}")]
    Length {
        /// Name of the array.
        what: &'static str,
        /// Its length.
        found: usize,
        /// `rows` or `columns`.
        unit: &'static str,
        /// Name of the array to which it is compared.
        beside: &'static str,
        /// The length of that array.
        expected: usize,
    },

    /// Metrics were requested of no rows.
    #[error("there are no rows to measure")]
    NothingToMeasure,

    /// There are fewer groups than folds.
    #[error("{} of rows cannot be split into {folds} folds: give more data, or fewer folds with --folds",
        stackelberg_data::words::count(.groups, "group")
    )]
    TooFew {
        /// Number of distinct groups (of rows, if no groups are given).
        groups: usize,
        /// Number of folds.
        folds: usize,
    },

    /// All values are equal, so that there is nothing to learn or measure.
    #[error("{what} are all the same: there is nothing to learn from them")]
    Constant {
        /// `targets`, `predictions`, `features`, `features of chosen and rejected`.
        what: &'static str,
    },

    /// A setting is outside its range.
    #[error("{name} is {value}: it must be {must}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// The value given.
        value: f64,
        /// The values allowed.
        must: &'static str,
    },

    /// The solver did not converge. This needs features of very different scales or almost no regularisation.
    #[error("no solution found at regularisation {regularisation}: try larger values only")]
    NotConverged {
        /// The value of `lambda`.
        regularisation: f64,
    },
}

/// Returns an error for the first value that is NaN or infinite.
pub(crate) fn require_finite(what: &'static str, values: &[f64]) -> Result<(), Error> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(index) => Err(Error::NotFinite { what, index, value: values[index] }),
    }
}

/// Checks that `what` has as many `unit` (rows or columns) as `beside`.
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
