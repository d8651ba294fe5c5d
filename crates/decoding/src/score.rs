//! What a finished text is worth.

/// A text's reward and, where it is made of several, each of these.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Score {
    /// The reward.
    pub reward: f64,
    /// The rewards that it is made of, in the order of [`Reward::parts`](stackelberg_engine::Reward::parts); empty where
    /// there is but one.
    pub parts: Vec<f64>,
}

impl From<f64> for Score {
    fn from(reward: f64) -> Self {
        Self { reward, parts: Vec::new() }
    }
}
