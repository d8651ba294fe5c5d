//! One sample of a dataset.

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The prompt's name.
    pub prompt_id: String,
    /// Which of the prompt's samples it is, from 0.
    pub sample: u32,
    /// The prompt as the model read it, laid out.
    pub prompt: String,
    /// The answer, without what ended it.
    pub response: String,
    /// The answer's tokens.
    pub tokens: Vec<u32>,
    /// Its reward, if there is a reward.
    pub reward: Option<f64>,
    /// `stop` or `length`.
    pub finish_reason: String,
    /// The seed that it was drawn with.
    pub seed: u64,
}
