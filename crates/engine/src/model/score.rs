//! The score head of a sequence classifier.

/// The score head of a sequence classifier, applied to the last hidden state of a text.
#[derive(Debug, Clone)]
pub struct ScoreHead {
    /// Names of the labels.
    pub names: Vec<String>,
    /// Weights `[labels][d]`, f32 whatever the dtype of the model.
    pub rows: Vec<Vec<f32>>,
}
