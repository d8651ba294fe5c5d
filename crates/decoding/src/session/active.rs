//! A request under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stackelberg_engine::reward::{PromptInput, RewardState};
use stackelberg_engine::{Error as EngineError, Prefix, Reward, Tensor};

use crate::blocks::Blocks;
use crate::error::{Error, Result};
use crate::line::{Line, Pending};
use crate::method::Method;
use crate::on_server;
use crate::policy::Policy;
use crate::randomness::Randomness;
use crate::request::{Request, Ticket, Want};
use crate::scorer::Scorer;
use crate::sequence::{Said, Sequence};
use crate::work::{Finished, Work};

/// A request under way.
pub(super) struct Active {
    pub(super) request: Arc<Request>,
    pub(super) max_tokens: usize,
    pub(super) prompt: Prefilling,
    /// Samples that are finished.
    pub(super) ended: usize,
    /// The next sample to begin.
    pub(super) next_sample: usize,
    /// Samples that may begin. Where drawing may stop early, they grow to [`Request::most_samples`].
    pub(super) samples: usize,
    pub(super) finished: Vec<Finished>,
    /// The steps of each sample, where one is chosen at the end and its steps are wanted.
    pub(super) steps: BTreeMap<usize, Vec<Said>>,
    /// Steps that were told.
    pub(super) told: usize,
    /// Whether a chunk of the prompt was part of the last forward pass.
    pub(super) prefilled: bool,
    /// Time spent on the prompt. It counts for the first sample.
    pub(super) prefill: Duration,
    /// Time spent on scoring the finished answers.
    pub(super) scoring: Duration,
    pub(super) arrived: Instant,
}

/// A prompt, as far as it is prefilled.
pub(super) struct Prefilling {
    /// Whether the cache was asked for its beginning.
    pub(super) begun: bool,
    pub(super) prefix: Prefix,
    /// Hidden state of its last token, `[1, d]`, once all of it is prefilled.
    pub(super) hidden: Option<Tensor>,
}

impl Prefilling {
    /// Of a prompt that is not prefilled. A server prefills for itself: nothing is left to do then.
    pub(super) fn new(policy: &Policy) -> Result<Self> {
        Ok(match policy {
            Policy::Local(policy) => Self { begun: false, prefix: policy.model.empty(), hidden: None },
            Policy::Remote(_) => {
                let (prefix, hidden) = Prefix::without_model()?;
                Self { begun: true, prefix, hidden: Some(hidden) }
            }
        })
    }

    /// Whether it has begun and is not complete.
    pub(super) fn prefills(&self) -> bool {
        self.begun && self.hidden.is_none()
    }
}

impl Active {
    /// Samples that begin next, where so many begin together.
    pub(super) fn begins(&self, together: usize) -> usize {
        (self.samples - self.next_sample).min(together)
    }

    /// Begins the next sample.
    pub(super) fn begin(&mut self, policy: &Arc<Policy>, ticket: Ticket) -> Result<Work> {
        let request = &self.request;
        let (sample, settings) = (self.next_sample, &request.settings);
        self.next_sample += 1;
        let input = PromptInput { tokens: &request.prompt, prompt: request.asked.as_deref() };
        let state = match (request.want, settings.method, &request.reward) {
            (Want::Samples { .. }, ..) => None,
            (_, Method::Args, Some(reward)) => Some(reward.state(policy, input)?),
            (_, Method::Cd, _) => request.value.clone().map(RewardState::Value),
            (_, _, Some(reward)) if settings.decodes_blocks() => match request.block_value() {
                Some(value) => Some(RewardState::Value(value.clone())),
                None => {
                    let mut state = reward.state(policy, input)?;
                    // All continuations share the prompt.
                    state.prefill()?;
                    Some(state)
                }
            },
            _ => None,
        };
        let (seed, number) = (settings.seed, sample as u64);
        let streams = (
            Randomness::new(seed, &request.id, number),
            Randomness::of_perturbation(seed, &request.id, number),
        );
        let blocks = request.want == Want::Answer && settings.decodes_blocks();
        // The tokens of a block are the base policy's own.
        let guide = state.as_ref().filter(|_| !blocks).map(RewardState::span);
        let sequence = Sequence::new(policy, settings.clone(), guide, streams, self.max_tokens);
        let (prefix, hidden) = (self.prompt.prefix.clone(), self.prompt.hidden.clone());
        let hidden = hidden.ok_or(EngineError::NoTokens)?;
        let line = Line { sequence, prefix, hidden, state, ahead: None, pending: Pending::Logits };
        let keep_hidden = request.want == Want::Samples { hidden: true };
        // A head reads the hidden state that the last token leaves.
        let guided = request.want == Want::Answer && settings.method == Method::Args;
        let unseen = !guided || settings.perturbation != crate::Perturbation::None;
        let reads = request.reward.as_ref().is_some_and(Reward::reads_policy);
        let mut work = match blocks {
            true => {
                let reads = reads || request.block_value().is_some();
                let scorer = Scorer { policy: policy.clone(), request: request.clone() };
                let number = u64::MAX - 1;
                let streams = (
                    Randomness::new(seed, &request.id, number),
                    Randomness::of_perturbation(seed, &request.id, number),
                );
                Work::of_blocks(ticket, request.prompt.len(), Blocks::new(line, scorer, streams), reads)
            }
            false => {
                let (prompt, read_last) = (request.prompt.len(), keep_hidden || unseen && reads);
                Work::new((ticket, sample), prompt, line, read_last, keep_hidden)
            }
        };
        work.elapsed = std::mem::take(&mut self.prefill);
        Ok(work)
    }
}

/// Checks a request; gives the maximum number of new tokens.
pub(crate) fn check(policy: &Policy, request: &Request) -> Result<usize> {
    let settings = &request.settings;
    settings.check(policy.vocabulary())?;
    match (request.want, settings.method, &request.reward, &request.value) {
        (Want::Answer, Method::Cd, _, None) => return Err(Error::NoValueHead),
        (Want::Samples { .. }, ..) | (_, Method::Base | Method::Cd, ..) | (.., Some(_), _) => {}
        (_, method, None, _) => return Err(Error::NoReward(method.name())),
    }
    if let Policy::Remote(policy) = policy {
        on_server::check(policy, request)?;
    }
    let prompt = request.prompt.len();
    let (tokens, context) = (prompt + 1, policy.context());
    if prompt == 0 {
        return Err(EngineError::NoTokens.into());
    }
    if tokens > context {
        return Err(EngineError::Context { tokens, context }.into());
    }
    let context = match request.reward.as_ref().and_then(Reward::limit) {
        Some((path, context)) if tokens > context => {
            return Err(EngineError::RewardContext { path: path.to_owned(), tokens, context }.into());
        }
        Some((_, limit)) => limit.min(context),
        None => context,
    };
    Ok(settings.max_new_tokens.min(context - prompt))
}
