//! One sequence of a request in a session, with whatever its method keeps beside it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use stackelberg_engine::{Error as EngineError, Tensor};

use crate::beam::Beams;
use crate::blocks::{Blocks, Finalist};
use crate::choice::Unscored;
use crate::error::Result;
use crate::input::{Answers, Asked, Input};
use crate::line::{Line, Pending};
use crate::next::Distribution;
use crate::policy::InFlight;
use crate::request::Ticket;
use crate::score::Score;
use crate::sequence::{Chosen, Need, Said, Sequence};
use crate::stopping::Saved;

/// A sequence of a request.
pub(crate) struct Work {
    pub(crate) ticket: Ticket,
    /// Its number among the samples of the request.
    pub(crate) sample: usize,
    /// Length of the prompt, in tokens.
    prompt: usize,
    pub(crate) kind: Kind,
    /// Whether the last token of the answer is run through the policy, too.
    read_last: bool,
    /// Hidden states of the answer's tokens so far, `[tokens, d]`, where they are kept.
    kept: Option<Vec<f32>>,
    pub(crate) elapsed: Duration,
    /// Tokens that were run through the policy.
    pub(crate) tokens_run: usize,
    /// Tokens that the reward or the value head read.
    tokens_scored: usize,
    /// Calls to the policy's server, by line. Lines may share a call; it is cancelled when none waits for it any more.
    pub(crate) in_flight: BTreeMap<usize, Arc<InFlight>>,
}

/// What is under way.
pub(crate) enum Kind {
    /// One sequence, and the continuations of its candidates while they are decoded.
    One { line: Box<Line>, paths: Vec<Line> },
    /// Several sequences of which one will be the answer.
    Beams(Box<Beams>),
    /// Several sequences, of which one or more will be the last that are chosen among.
    Blocks(Box<Blocks>),
}

/// A sequence that is finished.
pub(crate) struct Finished {
    pub(crate) sequence: Sequence,
    pub(crate) sample: usize,
    pub(crate) unscored: Unscored,
    pub(crate) hidden: Vec<f32>,
    /// Steps that were not told.
    pub(crate) said: Vec<Said>,
    /// Of a particle: `ln` of its weight without what its reward contributes.
    pub(crate) log_weight: f64,
    /// Bound on the KL of the choices that led to it, in nats.
    pub(crate) kl: f64,
    pub(crate) cost: Cost,
}

/// What an answer cost.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) elapsed: Duration,
    pub(crate) tokens_run: usize,
    pub(crate) tokens_scored: usize,
    /// Texts that were scored in order to choose among them.
    pub(crate) texts: usize,
    /// What stopping early saved and lost.
    pub(crate) saved: Saved,
}

impl Work {
    pub(crate) fn new(
        (ticket, sample): (Ticket, usize),
        prompt: usize,
        line: Line,
        read_last: bool,
        keep_hidden: bool,
    ) -> Self {
        let kind = match line.sequence.settings.beams {
            1 => Kind::One { line: Box::new(line), paths: Vec::new() },
            _ => Kind::Beams(Box::new(Beams::new(line))),
        };
        Self::of((ticket, sample), prompt, kind, read_last, keep_hidden)
    }

    /// Several sequences that are decoded block by block.
    pub(crate) fn of_blocks(ticket: Ticket, prompt: usize, blocks: Blocks, read_last: bool) -> Self {
        Self::of((ticket, 0), prompt, Kind::Blocks(Box::new(blocks)), read_last, false)
    }

    fn of(
        (ticket, sample): (Ticket, usize),
        prompt: usize,
        kind: Kind,
        read_last: bool,
        keep_hidden: bool,
    ) -> Self {
        let (kept, elapsed) = (keep_hidden.then(Vec::new), Duration::ZERO);
        let (tokens_run, tokens_scored) = (0, 0);
        let in_flight = BTreeMap::new();
        Self {
            ticket,
            sample,
            prompt,
            kind,
            read_last,
            kept,
            elapsed,
            tokens_run,
            tokens_scored,
            in_flight,
        }
    }

    /// Its lines that may wait for the policy.
    pub(crate) fn lines(&mut self) -> Vec<&mut Line> {
        match &mut self.kind {
            Kind::One { line, paths } if paths.is_empty() => vec![line],
            Kind::One { paths, .. } => paths.iter_mut().collect(),
            Kind::Beams(beams) => beams.beams.iter_mut().map(|beam| &mut beam.line).collect(),
            Kind::Blocks(blocks) => blocks.lines().collect(),
        }
    }

    /// Takes in the distributions of the lines that wait for them, `rows` in order. Returns the steps that were decided.
    pub(crate) fn expect(&mut self, rows: &mut dyn Iterator<Item = Distribution>) -> Result<Vec<Said>> {
        let read_last = self.read_last;
        match &mut self.kind {
            Kind::One { line, paths } if paths.is_empty() => {
                if line.pending != Pending::Logits {
                    return Ok(Vec::new());
                }
                let Some(row) = rows.next() else { return Ok(Vec::new()) };
                let Some((Chosen { token, .. }, said)) = line.sequence.expect(row)? else {
                    line.pending = match line.sequence.need() {
                        Need::Continue => Pending::Paths,
                        _ => Pending::Rewards,
                    };
                    if line.pending == Pending::Paths {
                        *paths = begin_paths(line);
                    }
                    return Ok(Vec::new());
                };
                if let Some(state) = &mut line.state {
                    state.read(token)?;
                }
                line.read_next(token, read_last);
                Ok(vec![said])
            }
            Kind::One { paths, .. } => {
                for path in paths.iter_mut().filter(|path| path.pending == Pending::Logits) {
                    let Some(row) = rows.next() else { break };
                    path.sequence.expect(row)?;
                    path.pending = on_path(&path.sequence);
                }
                Ok(Vec::new())
            }
            Kind::Beams(beams) => {
                for beam in &mut beams.beams {
                    let Some(row) = rows.next() else { break };
                    beam.line.sequence.expect(row)?;
                    beam.line.pending = Pending::Rewards;
                }
                Ok(Vec::new())
            }
            Kind::Blocks(blocks) => {
                blocks.expect(rows, read_last)?;
                Ok(Vec::new())
            }
        }
    }

    /// When all continuations are segments, they are handed to the sequence, which then waits for their rewards.
    pub(crate) fn finish_paths(&mut self) {
        let Kind::One { line, paths } = &mut self.kind else { return };
        if line.pending != Pending::Paths || paths.iter().any(|path| !path.sequence.is_segment()) {
            return;
        }
        let needs_policy = line.state.as_ref().is_some_and(|state| state.needs_policy());
        for path in paths.iter_mut() {
            path.pending = match path.sequence.last_token().filter(|_| needs_policy) {
                Some(token) => Pending::End(token),
                None => Pending::Nothing,
            };
        }
        line.sequence.continued(paths.iter().map(|path| path.sequence.clone()).collect());
        line.pending = Pending::Rewards;
    }

    /// Keeps the hidden state of a token that was run, if it is one of the answer.
    pub(crate) fn keep_hidden(&mut self) -> Result<()> {
        let (Some(kept), Kind::One { line, .. }) = (&mut self.kept, &self.kind) else { return Ok(()) };
        let row = line.hidden_row()?;
        if line.prefix.len() > self.prompt + kept.len() / row.len() {
            kept.extend(row);
        }
        Ok(())
    }

    /// Whether it waits for rewards, and all that they need is there.
    pub(crate) fn asks(&mut self) -> bool {
        let waits = match &self.kind {
            Kind::One { line, .. } => line.pending == Pending::Rewards,
            Kind::Beams(beams) => beams.beams.iter().any(|beam| beam.line.pending == Pending::Rewards),
            Kind::Blocks(blocks) => blocks.asks(),
        };
        waits && self.lines().into_iter().all(|line| line.segment().is_none())
    }

    /// What is to be scored.
    pub(crate) fn asked(&mut self) -> Result<Asked> {
        let asked = match &mut self.kind {
            Kind::Blocks(blocks) => blocks.asked(),
            _ => Asked { inputs: self.inputs()?, texts: None },
        };
        self.tokens_scored += asked.tokens();
        Ok(asked)
    }

    /// The candidates of all lines.
    fn inputs(&mut self) -> Result<Vec<Input>> {
        let lines: Vec<(&mut Line, &[Line])> = match &mut self.kind {
            Kind::Blocks(_) => return Ok(Vec::new()),
            Kind::One { line, paths } => vec![(line, paths)],
            Kind::Beams(beams) => beams.beams.iter_mut().map(|beam| (&mut beam.line, &[][..])).collect(),
        };
        let mut inputs = Vec::with_capacity(lines.len());
        for (line, paths) in lines {
            let Need::Score { candidates, further } = line.sequence.need() else { continue };
            let candidates = candidates.to_vec();
            let ahead = match paths {
                [] => line.states_ahead(&candidates)?,
                paths => ends(paths, line.is_guided_by_value())?,
            };
            let Some(state) = line.state.take() else { continue };
            inputs.push(Input { state, candidates, further, ahead });
        }
        Ok(inputs)
    }

    /// Takes in rewards, in the order of [`Work::asked`]. Returns the steps that were decided.
    pub(crate) fn score(&mut self, answers: Answers) -> Result<Vec<Said>> {
        match &mut self.kind {
            Kind::One { line, paths } => {
                let Some((input, rewards)) = answers.inputs.into_iter().next() else {
                    return Ok(Vec::new());
                };
                let parts = input.state.parts().to_vec();
                line.state = Some(input.state);
                let (chosen, said) = line.sequence.score(rewards, parts)?;
                commit(line, std::mem::take(paths), chosen, self.read_last)?;
                Ok(said)
            }
            Kind::Beams(beams) => {
                let mut values = Vec::with_capacity(answers.inputs.len());
                for (beam, (input, found)) in beams.beams.iter_mut().zip(answers.inputs) {
                    beam.line.state = Some(input.state);
                    values.push(found);
                }
                beams.score(values)?;
                Ok(Vec::new())
            }
            Kind::Blocks(blocks) => blocks.score(answers),
        }
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_finished(&self) -> bool {
        match &self.kind {
            Kind::One { line, .. } => line.pending == Pending::Nothing,
            Kind::Beams(beams) => beams.beams.is_empty(),
            Kind::Blocks(blocks) => blocks.is_finished(),
        }
    }

    /// The finished sequence; of blocks all those that the last choice is among.
    pub(crate) fn finish(self) -> Result<Vec<Finished>> {
        let Self { sample, prompt, kept, elapsed, tokens_run, tokens_scored, kind, .. } = self;
        let mut cost = Cost { elapsed, tokens_run, tokens_scored, ..Cost::default() };
        let finalists = match kind {
            Kind::One { line, .. } => vec![known(*line, Vec::new())],
            Kind::Beams(mut beams) => {
                let (line, said) = beams.finished().ok_or(crate::error::Error::Stopped)?;
                vec![known(line, said)]
            }
            Kind::Blocks(mut blocks) => {
                cost.texts = blocks.calls;
                cost.saved = blocks.saved;
                blocks.finalists()
            }
        };
        let mut hidden = kept.unwrap_or_default();
        let mut finished = Vec::with_capacity(finalists.len());
        for Finalist { line, said, known, log_weight, kl } in finalists {
            let tokens = line.sequence.answer.tokens.clone();
            let width = line.hidden.elem_count();
            let last = match line.prefix.len() == prompt + tokens.len() {
                // A copy: a view would keep the rows of all sequences that were run together.
                true => Some(line.hidden.copy().map_err(EngineError::from)?),
                false => {
                    let row = tokens.len().checked_sub(1);
                    let row = row.and_then(|last| hidden.get(last * width..tokens.len() * width));
                    let row = row.map(|row| Tensor::from_slice(row, (1, width), line.hidden.device()));
                    row.transpose().map_err(EngineError::from)?
                }
            };
            // What ended the answer may have been run, and is not part of it.
            hidden.truncate(tokens.len() * width);
            let (hidden, cost) = (std::mem::take(&mut hidden), std::mem::take(&mut cost));
            let unscored = Unscored { tokens, known, last };
            let sequence = line.sequence;
            finished.push(Finished { sequence, sample, unscored, hidden, said, log_weight, kl, cost });
        }
        Ok(finished)
    }
}

/// The only answer, with its reward if a step has computed it.
fn known(line: Line, said: Vec<Said>) -> Finalist {
    let values = matches!(line.state, Some(stackelberg_engine::reward::RewardState::Value(_)));
    let known: Option<Score> = line.sequence.known_reward().filter(|_| !values);
    Finalist { line, said, known, log_weight: 0.0, kl: 0.0 }
}

/// The continuations of a line's candidates begin.
fn begin_paths(line: &mut Line) -> Vec<Line> {
    let continuations = line.sequence.continuations();
    let path = |sequence: Sequence| {
        let pending = on_path(&sequence);
        let (prefix, hidden) = (line.prefix.clone(), line.hidden.clone());
        Line { sequence, prefix, hidden, state: None, ahead: None, pending }
    };
    continuations.into_iter().map(path).collect()
}

/// What a continuation waits for after a token.
pub(crate) fn on_path(sequence: &Sequence) -> Pending {
    match sequence.last_token().filter(|_| !sequence.is_segment()) {
        Some(token) => Pending::Token(token),
        None => Pending::Nothing,
    }
}

/// Makes the chosen candidate, or its whole segment, part of the line.
fn commit(line: &mut Line, paths: Vec<Line>, chosen: Chosen, read_last: bool) -> Result<()> {
    let Some(index) = chosen.index else { return Ok(()) };
    if let Some(state) = &mut line.state {
        state.commit(index)?;
    }
    let mut candidate = index;
    if let Some(path) = paths.into_iter().nth(index) {
        (line.prefix, line.hidden, line.ahead) = (path.prefix, path.hidden, path.ahead);
        candidate = 0;
    }
    line.pending = match line.goes_on(read_last) {
        false => {
            line.ahead = None;
            Pending::Nothing
        }
        true if !line.commit(candidate)? => Pending::Token(chosen.token),
        true if line.sequence.answer.finish.is_some() => Pending::Nothing,
        true => Pending::Logits,
    };
    Ok(())
}

/// The policy's hidden states at the ends of continuations, `[k, d]`, where they were looked at.
fn ends(paths: &[Line], by_value: bool) -> Result<Option<Tensor>> {
    let ends = paths.iter().map(|path| path.state_at_end(by_value));
    let ends: Option<Vec<&Tensor>> = ends.collect();
    Ok(ends.map(|ends| Tensor::cat(&ends, 0)).transpose().map_err(EngineError::from)?)
}
