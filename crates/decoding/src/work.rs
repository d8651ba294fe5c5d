//! One sequence of a request in a session, with whatever its method keeps beside it.

use std::time::Duration;

use stackelberg_engine::reward::Question;
use stackelberg_engine::{Error as EngineError, Tensor};

use crate::beam::Beams;
use crate::choice::Unscored;
use crate::error::Result;
use crate::line::{Line, Pending};
use crate::request::Ticket;
use crate::sequence::{Chosen, Need, Said, Sequence};

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
}

/// What is under way.
pub(crate) enum Kind {
    /// One sequence, and the continuations of its candidates while they are decoded.
    One { line: Box<Line>, paths: Vec<Line> },
    /// Several sequences of which one will be the answer.
    Beams(Box<Beams>),
}

/// A sequence that is finished.
pub(crate) struct Finished {
    pub(crate) sequence: Sequence,
    pub(crate) sample: usize,
    pub(crate) unscored: Unscored,
    pub(crate) hidden: Vec<f32>,
    pub(crate) elapsed: Duration,
}

impl Work {
    pub(crate) fn new(
        (ticket, sample): (Ticket, usize),
        line: Line,
        read_last: bool,
        keep_hidden: bool,
    ) -> Self {
        let prompt = line.prefix.len();
        let kind = match line.sequence.settings.beams {
            1 => Kind::One { line: Box::new(line), paths: Vec::new() },
            _ => Kind::Beams(Box::new(Beams::new(line))),
        };
        let kept = keep_hidden.then(Vec::new);
        Self { ticket, sample, prompt, kind, read_last, kept, elapsed: Duration::ZERO }
    }

    /// Its lines that may wait for the policy.
    pub(crate) fn lines(&mut self) -> Vec<&mut Line> {
        match &mut self.kind {
            Kind::One { line, paths } if paths.is_empty() => vec![line],
            Kind::One { paths, .. } => paths.iter_mut().collect(),
            Kind::Beams(beams) => beams.beams.iter_mut().map(|beam| &mut beam.line).collect(),
        }
    }

    /// Takes in the logits of the lines that wait for them, `rows` in order. Returns the steps that were decided.
    pub(crate) fn expect(&mut self, rows: &mut dyn Iterator<Item = Vec<f32>>) -> Result<Vec<Said>> {
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
                line.pending = next(line, token, read_last);
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
        };
        waits && self.lines().into_iter().all(|line| line.segment().is_none())
    }

    /// The states of what guides, in the order of [`Work::ask`].
    pub(crate) fn inputs(&mut self) -> Result<Vec<Input>> {
        let lines: Vec<(&mut Line, &[Line])> = match &mut self.kind {
            Kind::One { line, paths } => vec![(line, paths)],
            Kind::Beams(beams) => beams.beams.iter_mut().map(|beam| (&mut beam.line, &[][..])).collect(),
        };
        let mut inputs = Vec::with_capacity(lines.len());
        for (line, paths) in lines {
            let Need::Score { candidates, further } = line.sequence.need() else { continue };
            let candidates = candidates.to_vec();
            let ahead = match paths {
                [] => line.ahead.as_ref().map(|branches| branches.hidden.clone()),
                paths => ends(paths)?,
            };
            let Some(state) = line.state.take() else { continue };
            inputs.push(Input { state, candidates, further, ahead });
        }
        Ok(inputs)
    }

    /// Takes in rewards, in the order of [`Work::inputs`]. Returns the steps that were decided.
    pub(crate) fn score(&mut self, answers: Vec<(Input, Vec<f64>)>) -> Result<Vec<Said>> {
        match &mut self.kind {
            Kind::One { line, paths } => {
                let Some((input, rewards)) = answers.into_iter().next() else { return Ok(Vec::new()) };
                let parts = input.state.parts().to_vec();
                line.state = Some(input.state);
                let (chosen, said) = line.sequence.score(rewards, parts)?;
                commit(line, std::mem::take(paths), chosen, self.read_last)?;
                Ok(said)
            }
            Kind::Beams(beams) => {
                let mut values = Vec::with_capacity(answers.len());
                for (beam, (input, found)) in beams.beams.iter_mut().zip(answers) {
                    beam.line.state = Some(input.state);
                    values.push(found);
                }
                beams.score(values)?;
                Ok(Vec::new())
            }
        }
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_finished(&self) -> bool {
        match &self.kind {
            Kind::One { line, .. } => line.pending == Pending::Nothing,
            Kind::Beams(beams) => beams.beams.is_empty(),
        }
    }

    /// The finished sequence, and of beams its steps.
    pub(crate) fn finish(self) -> Result<(Finished, Vec<Said>)> {
        let (line, said) = match self.kind {
            Kind::One { line, .. } => (*line, Vec::new()),
            Kind::Beams(mut beams) => beams.finished().ok_or(crate::error::Error::Stopped)?,
        };
        let tokens = line.sequence.answer.tokens.clone();
        let mut hidden = self.kept.unwrap_or_default();
        let width = line.hidden.elem_count();
        let last = match line.prefix.len() == self.prompt + tokens.len() {
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
        let values = matches!(line.state, Some(stackelberg_engine::reward::RewardState::Value(_)));
        let known = line.sequence.known_reward().filter(|_| !values);
        let unscored = Unscored { tokens, known, last };
        let (sequence, sample, elapsed) = (line.sequence, self.sample, self.elapsed);
        Ok((Finished { sequence, sample, unscored, hidden, elapsed }, said))
    }
}

/// What a reward is asked, with its state: everything is owned, so that it can be asked elsewhere.
pub(crate) struct Input {
    pub(crate) state: stackelberg_engine::reward::RewardState,
    candidates: Vec<u32>,
    further: Vec<Vec<u32>>,
    ahead: Option<Tensor>,
}

impl Input {
    pub(crate) fn question(&mut self) -> Question<'_> {
        let Self { state, candidates, further, ahead } = self;
        Question { state, candidates, further, ahead: ahead.as_ref() }
    }
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
fn on_path(sequence: &Sequence) -> Pending {
    match sequence.last_token().filter(|_| !sequence.is_segment()) {
        Some(token) => Pending::Token(token),
        None => Pending::Nothing,
    }
}

/// What a line waits for after a token that has not been run.
fn next(line: &Line, token: u32, read_last: bool) -> Pending {
    match goes_on(&line.sequence, read_last) {
        true => Pending::Token(token),
        false => Pending::Nothing,
    }
}

/// Whether the last token is to be run. A token that ended the answer without being part of it never is.
fn goes_on(sequence: &Sequence, read_last: bool) -> bool {
    sequence.answer.finish.is_none() || read_last && sequence.kept_last()
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
    line.pending = match goes_on(&line.sequence, read_last) {
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
fn ends(paths: &[Line]) -> Result<Option<Tensor>> {
    let ends = paths.iter().map(|path| Some(&path.ahead.as_ref()?.hidden));
    let ends: Option<Vec<&Tensor>> = ends.collect();
    Ok(ends.map(|ends| Tensor::cat(&ends, 0)).transpose().map_err(EngineError::from)?)
}
