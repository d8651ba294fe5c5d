//! A finished answer.

use std::time::Duration;

/// An answer and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The answer's text, without what ended it.
    pub text: String,
    /// Its tokens, the one that ended it left out.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Its reward, if there is a reward.
    pub reward: Option<f64>,
    /// What that reward is made of, see [`Score::parts`](crate::Score::parts).
    pub parts: Vec<f64>,
    /// Mean of the base policy's log-probability per token, the ending token included.
    pub mean_log_prob: f64,
    /// Steps in which the choice was not the base policy's.
    pub steered: usize,
    /// Steps in which rewards or values were asked for (best-of-n and its siblings: answers scored).
    pub reward_calls: usize,
    /// Steps in which they were not needed.
    pub skipped: usize,
    /// KL from the base policy in nats. Guided steps: over their candidates, at the sampling temperature, summed; `None`
    /// for greedy guided answers: a greedy choice is no distribution. Best-of-n: `ln n - (n-1)/n`, which is never too small. Its siblings: of
    /// the weights of the n answers from equal ones.
    pub kl: Option<f64>,
    /// `-ln` of the base policy's mass on the candidates, summed over the guided steps, in nats. With `kl` it is
    /// the whole of the decoder's KL.
    pub tail_nll: f64,
    /// Time spent on prompt and answer; of a forward that several texts share, its share. Scoring the
    /// finished answer for the record is not counted, except by best-of-n and its siblings, which choose by it.
    pub elapsed: Duration,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, or a stop text did.
    Stop,
    /// It reached its greatest length.
    Length,
}

impl Finish {
    /// Its name, as in output files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}
