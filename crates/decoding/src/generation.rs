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
    /// The stop text or stop token that ended it, if one did.
    pub stopped_by: Option<StoppedBy>,
    /// Its reward, if there is a reward.
    pub reward: Option<f64>,
    /// What that reward is made of, see [`Score::parts`](crate::Score::parts).
    pub parts: Vec<f64>,
    /// Mean of the base policy's log-probability per token, the ending token included.
    pub mean_log_prob: f64,
    /// Steps in which the choice was not the base policy's.
    pub steered: usize,
    /// Steps in which rewards or values were asked for; of methods that choose among samples, the texts that were scored.
    pub reward_calls: usize,
    /// Steps in which they were not needed.
    pub skipped: usize,
    /// KL from the base policy in nats. Guided steps: over their candidates, at the sampling temperature, summed; `None`
    /// for greedy guided answers: a greedy choice is no distribution. Methods that choose among samples: an upper bound, at
    /// the sampling temperature. Best-of-n: `ln n - (n-1)/n`; where drawing may stop early, `ln n - 1 + N/n` with the `N` samples
    /// that were drawn, whose mean is at least `ln E[N]`; where samples are dropped, `ln n`. Its siblings: the KL of the weights of the n answers from equal
    /// ones. [`Method::Blockwise`]: the same, summed over the blocks. [`Method::Particles`]: `ln` of the number of particles
    /// times the chosen one's weight, summed over the resamplings of its line and the last choice, at least 0; the mean over
    /// answers is the bound.
    ///
    /// [`Method::Blockwise`]: crate::Method::Blockwise
    /// [`Method::Particles`]: crate::Method::Particles
    pub kl: Option<f64>,
    /// `-ln` of the base policy's mass on the candidates, summed over the guided steps, in nats. With `kl` it is
    /// the whole of the decoder's KL. `None` if it is not known: a server tells log-probabilities at temperature 1 only.
    pub tail_nll: Option<f64>,
    /// Tokens that were run through the policy for this answer: candidates and what was not chosen count, the prompt does not.
    pub tokens_run: usize,
    /// Tokens that the reward or the value head read in order to guide or to choose. Scoring the finished answer for the
    /// record is not counted.
    pub tokens_scored: usize,
    /// Tokens that stopping early saved ([`Settings::token_price`](crate::Settings::token_price)): the samples that were not
    /// drawn times the mean length of those that were. Of samples that were dropped ([`Settings::reject`](crate::Settings::reject)):
    /// the mean length of the finished ones less the length at which each was dropped, at least 0, summed.
    pub tokens_saved: usize,
    /// What the samples that were not drawn would be expected to gain, in reward units; of blocks in units of their scores,
    /// summed over the blocks. Of samples that were dropped: the gain of as many further samples like the finished ones. This is
    /// more than is lost, since dropped samples had lower rewards than the others.
    pub reward_lost: f64,
    /// Time spent on prompt and answer; of a forward that several texts share, its share. If a server runs the policy: the time from
    /// the request's arrival. Scoring the
    /// finished answer for the record is not counted, except by best-of-n and its siblings, which choose by it.
    pub elapsed: Duration,
}

impl Generation {
    /// Upper bound on the KL from the base policy in nats, the restriction to candidates included: `kl + tail_nll`. Its mean
    /// over answers is the bound.
    pub fn kl_bound(&self) -> Option<f64> {
        Some(self.kl? + self.tail_nll?)
    }
}

/// What ended an answer, beside the model's own end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoppedBy {
    /// One of [`Settings::stop`](crate::Settings::stop).
    Text(String),
    /// One of [`Settings::stop_tokens`](crate::Settings::stop_tokens).
    Token(u32),
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
