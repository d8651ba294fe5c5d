//! One sample of a dataset.

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Id of the prompt.
    pub prompt_id: String,
    /// Index of the sample among those of the prompt, from 0.
    pub sample: u32,
    /// The formatted prompt that the model read.
    pub prompt: String,
    /// The response, without EOS or stop text.
    pub response: String,
    /// Tokens of the response.
    pub tokens: Vec<u32>,
    /// Reward of the response, if the dataset has rewards.
    pub reward: Option<f64>,
    /// `stop` or `length`.
    pub finish_reason: String,
    /// Seed of the sampling.
    pub seed: u64,
}
