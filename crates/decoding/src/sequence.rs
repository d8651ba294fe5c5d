//! One sequence: a state machine without I/O. It says what it needs next and is given it; it knows no model.
//!
//! ```text
//!            Expect ──logits──► candidates ──┬── not guided here ──────────────────► token ─► Expect
//!                                            ├── Score ──rewards──► shaped, fused ──► token ─► Expect
//!                                            └── Continue ──continuations──► Score ──► tokens ─► Expect
//! ```

use std::sync::Arc;

use stackelberg_engine::TextProcessor;

use crate::answer::Answer;
use crate::error::Result;
use crate::generation::{Finish, Generation};
use crate::next::Distribution;
use crate::policy::Drawn;
use crate::randomness::Randomness;
use crate::score::Score;
use crate::settings::Settings;
use crate::step::Step;
use crate::turn::Turn;

/// What a sequence needs to go on.
pub(crate) enum Need<'s> {
    /// The distribution of the next token.
    Expect,
    /// Rewards, or values, of these candidates for the next token, each with its continuation where there are any.
    Score { candidates: &'s [u32], further: Vec<Vec<u32>> },
    /// The candidates, each continued by the base policy to a segment: see [`Sequence::continuations`].
    Continue,
    /// Nothing: the answer is finished.
    Nothing,
}

/// A step that was decided, with the text that it adds for certain.
pub(crate) type Said = (Step, String);

/// What a choice means for whoever holds the keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// The candidate among those that were scored; `None` where nothing was scored.
    pub(crate) index: Option<usize>,
    /// The last token that the choice appended.
    pub(crate) token: u32,
}

/// A sequence under way: tokens, text, randomness and statistics of one answer.
#[derive(Clone)]
pub(crate) struct Sequence {
    pub(crate) settings: Arc<Settings>,
    /// Whether a reward or a value head guides it, and the largest difference between two of its rewards.
    guide: Option<Option<f64>>,
    /// Tokens that follow without guidance: what is left of a segment that the base policy decides.
    free: usize,
    randomness: Randomness,
    perturbation: Randomness,
    pub(crate) answer: Answer,
    phase: Phase,
    statistics: Statistics,
    /// After each step: the reward of the text so far, if the step computed it.
    rewards: Vec<Option<Score>>,
    /// The steps of a continuation; `None` for other sequences.
    path: Option<Vec<Step>>,
}

#[derive(Clone)]
enum Phase {
    Expect,
    /// With the continuations of the candidates, where segments are scored.
    Score(Box<Turn>, Vec<Sequence>),
    Continue(Box<Turn>, Vec<Sequence>),
}

#[derive(Clone)]
struct Statistics {
    log_probs: f64,
    steered: usize,
    reward_calls: usize,
    skipped: usize,
    /// Summed over the guided steps.
    kl: f64,
    /// `None` once it is not known of a step.
    tail_nll: Option<f64>,
    steps: usize,
}

impl Sequence {
    /// A sequence that begins. `guide` is the span of what guides, if something does; `streams` are its random numbers
    /// for tokens and for reward perturbations.
    pub(crate) fn new(
        policy: &TextProcessor,
        settings: Arc<Settings>,
        guide: Option<Option<f64>>,
        (randomness, perturbation): (Randomness, Randomness),
        max_tokens: usize,
    ) -> Self {
        let answer = Answer::new(policy, settings.clone(), max_tokens);
        let statistics = Statistics {
            log_probs: 0.0,
            steered: 0,
            reward_calls: 0,
            skipped: 0,
            kl: 0.0,
            tail_nll: Some(0.0),
            steps: 0,
        };
        let (free, phase) = (0, Phase::Expect);
        Self {
            settings,
            guide,
            free,
            randomness,
            perturbation,
            answer,
            phase,
            statistics,
            rewards: Vec::new(),
            path: None,
        }
    }

    /// What it needs next.
    pub(crate) fn need(&self) -> Need<'_> {
        match &self.phase {
            _ if self.answer.finish.is_some() => Need::Nothing,
            Phase::Expect => Need::Expect,
            Phase::Continue(..) => Need::Continue,
            Phase::Score(turn, _) => {
                Need::Score { candidates: &turn.candidates, further: turn.continuations.clone() }
            }
        }
    }

    /// Supplies the distribution of the next token. If no reward is needed, the token is chosen.
    ///
    /// # Errors
    /// The logits hold NaN, or the tokenizer fails.
    pub(crate) fn expect(&mut self, next: Distribution) -> Result<Option<(Chosen, Said)>> {
        let guide = if self.free > 0 { None } else { self.guide };
        let (written, banned) = (&self.answer.tokens[..], self.answer.banned());
        let turn = Turn::new(next, (written, &banned), &self.settings, guide, self.statistics.steps)?;
        if turn.asks {
            self.phase = match self.settings.score_every {
                1 => Phase::Score(Box::new(turn), Vec::new()),
                _ => self.begin_continuations(turn)?,
            };
            return Ok(None);
        }
        let segment = self.guide.is_some() && self.settings.score_every > 1;
        self.free = match self.free {
            0 if segment => self.settings.score_every - 1,
            free => free.saturating_sub(1),
        };
        let step = turn.unguided(&self.settings, &mut self.randomness);
        let text = self.take(&step, None)?;
        Ok(Some((Chosen { index: None, token: step.chosen }, (step, text))))
    }

    /// Whether the next token is chosen here, among candidates: the others are the base policy's own.
    pub(crate) fn is_guided(&self) -> bool {
        self.guide.is_some() && self.free == 0
    }

    /// The most tokens that the base policy may add now.
    pub(crate) fn room(&self) -> usize {
        let room = self.answer.room();
        if self.guide.is_some() { room.min(self.free) } else { room }
    }

    /// Appends a token that a server drew from the base policy. Returns the step and the text that it adds for certain.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub(crate) fn draw(&mut self, drawn: Drawn) -> Result<Said> {
        self.free = self.free.saturating_sub(1);
        let step = Step::drawn(drawn, &self.settings);
        let text = self.take(&step, None)?;
        Ok((step, text))
    }

    /// Each candidate begins a continuation of its own, which the base policy decides.
    fn begin_continuations(&mut self, turn: Turn) -> Result<Phase> {
        let mut continuations = Vec::with_capacity(turn.candidates.len());
        for &candidate in &turn.candidates {
            let randomness = self.randomness.fork();
            let mut continuation =
                Self { guide: None, randomness, path: Some(Vec::new()), ..self.clone() };
            continuation.take(&turn.step(candidate), None)?;
            continuations.push(continuation);
        }
        Ok(Phase::Continue(Box::new(turn), continuations))
    }

    /// Takes out the continuations that [`Need::Continue`] is about. Each has its first token, and is to be decoded until
    /// it is a segment: [`Sequence::is_segment`].
    pub(crate) fn continuations(&mut self) -> Vec<Sequence> {
        match &mut self.phase {
            Phase::Continue(_, continuations) => std::mem::take(continuations),
            _ => Vec::new(),
        }
    }

    /// Whether a continuation is as long as a segment, or its answer is finished.
    pub(crate) fn is_segment(&self) -> bool {
        self.answer.finish.is_some() || self.path().len() >= self.settings.score_every
    }

    /// Tokens that a continuation needs to be a segment.
    pub(crate) fn segment_left(&self) -> usize {
        self.settings.score_every.saturating_sub(self.path().len())
    }

    /// The steps of a continuation, that of the candidate first.
    fn path(&self) -> &[Step] {
        self.path.as_deref().unwrap_or_default()
    }

    /// The last token of a continuation.
    pub(crate) fn last_token(&self) -> Option<u32> {
        self.path().last().map(|step| step.chosen)
    }

    /// Supplies the continuations, which are segments now.
    pub(crate) fn continued(&mut self, continuations: Vec<Sequence>) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Expect) {
            Phase::Continue(mut turn, _) => {
                let rest = |path: &Sequence| path.path()[1..].iter().map(|step| step.chosen).collect();
                turn.continuations = continuations.iter().map(rest).collect();
                Phase::Score(turn, continuations)
            }
            phase => phase,
        };
    }

    /// The turn whose rewards are needed, for methods that choose among several sequences.
    pub(crate) fn turn(&self) -> Option<&Turn> {
        match &self.phase {
            Phase::Score(turn, _) => Some(turn),
            _ => None,
        }
    }

    /// Supplies the rewards of the candidates, and of a combination what each of its parts said. A token, or the chosen
    /// candidate's whole segment, is appended.
    ///
    /// # Errors
    /// A reward is not finite or cannot be shaped, or the tokenizer fails.
    pub(crate) fn score(
        &mut self,
        mut rewards: Vec<f64>,
        parts: Vec<Vec<f64>>,
    ) -> Result<(Chosen, Vec<Said>)> {
        let Phase::Score(turn, paths) = std::mem::replace(&mut self.phase, Phase::Expect) else {
            return Ok((Chosen { index: None, token: 0 }, Vec::new()));
        };
        self.perturb(&mut rewards);
        let (step, index) = turn.guided(rewards, parts, &self.settings, &mut self.randomness)?;
        let score = step.score(Some(index), self.settings.perturbation);
        let Some(path) = paths.into_iter().nth(index) else {
            let text = self.take(&step, score)?;
            return Ok((Chosen { index: Some(index), token: step.chosen }, vec![(step, text)]));
        };
        // What is drawn from now on follows from what was drawn on the chosen path.
        self.randomness = path.randomness;
        let mut steps = path.path.unwrap_or_default();
        steps[0] = step;
        let last = steps.len() - 1;
        let mut said = Vec::with_capacity(steps.len());
        for (number, step) in steps.into_iter().enumerate() {
            // The reward is that of the text at the segment's end.
            let text = self.take(&step, score.clone().filter(|_| number == last))?;
            said.push((step, text));
        }
        let token = said[last].0.chosen;
        Ok((Chosen { index: Some(index), token }, said))
    }

    /// A seed for draws on a server.
    pub(crate) fn seed(&mut self) -> u64 {
        self.randomness.seed()
    }

    /// What is drawn from now on follows from these random numbers.
    pub(crate) fn reseed(&mut self, randomness: Randomness) {
        self.randomness = randomness;
    }

    /// Perturbs rewards as the settings say.
    pub(crate) fn perturb(&mut self, rewards: &mut [f64]) {
        self.settings.perturbation.perturb(rewards, &mut self.perturbation);
    }

    /// Appends the choice of a step. Returns the text that it adds for certain.
    pub(crate) fn take(&mut self, step: &Step, reward: Option<Score>) -> Result<String> {
        let statistics = &mut self.statistics;
        statistics.log_probs += step.log_prob;
        statistics.steered += usize::from(step.chosen != step.base_choice);
        statistics.reward_calls += usize::from(step.rewards.is_some());
        statistics.skipped += usize::from(step.skipped);
        statistics.kl += step.kl.unwrap_or(0.0);
        if step.rewards.is_some() {
            statistics.tail_nll = statistics.tail_nll.zip(step.tail_nll).map(|(sum, more)| sum + more);
        }
        statistics.steps += 1;
        if let Some(path) = &mut self.path {
            path.push(step.clone());
        }
        self.rewards.push(reward);
        self.phase = Phase::Expect;
        self.answer.push(step.chosen)
    }

    /// Whether the last token that was chosen is part of the answer: end-of-text tokens and stop texts are not.
    pub(crate) fn kept_last(&self) -> bool {
        self.answer.tokens.len() == self.statistics.steps
    }

    /// The reward of the answer, if its last step computed it.
    pub(crate) fn known_reward(&self) -> Option<Score> {
        let last = self.answer.tokens.len().checked_sub(1)?;
        self.rewards.get(last).cloned().flatten()
    }

    /// The finished answer, with its reward.
    pub(crate) fn finish(self, score: Option<Score>) -> Generation {
        let (reward, parts) = score.map(|Score { reward, parts }| (reward, parts)).unzip();
        let statistics = self.statistics;
        let (guided, greedy) = (self.guide.is_some(), self.settings.sampling.temperature == 0.0);
        Generation {
            text: self.answer.text,
            tokens: self.answer.tokens,
            finish: self.answer.finish.unwrap_or(Finish::Length),
            stopped_by: self.answer.stopped_by,
            reward,
            parts: parts.unwrap_or_default(),
            mean_log_prob: statistics.log_probs / statistics.steps.max(1) as f64,
            steered: statistics.steered,
            reward_calls: statistics.reward_calls,
            skipped: statistics.skipped,
            kl: Some(statistics.kl).filter(|_| !(guided && greedy)),
            tail_nll: statistics.tail_nll,
            tokens_run: 0,
            tokens_scored: 0,
            tokens_saved: 0,
            reward_lost: 0.0,
            elapsed: std::time::Duration::ZERO,
        }
    }
}
