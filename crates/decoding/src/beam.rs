//! Beam search under controlled decoding: the best `beams` sequences are kept at every step.
//!
//! The score of a sequence is `sum of log p + strength * V(h)`, with `h` its last token's hidden state; one beam is greedy
//! decoding. A finished sequence keeps its place among the beams. Of all finished ones the best by
//! `sum of log p / length^length_penalty + strength V` is the answer. Beams share the memory of their common tokens.

use crate::error::{Error, Result};
use crate::generation::Finish;
use crate::history::History;
use crate::line::{Line, Pending};
use crate::sequence::Said;
use crate::step::Step;

/// The sequences that are kept, and the best that is finished.
pub(crate) struct Beams {
    pub(crate) beams: Vec<Beam>,
    best: Option<(f64, Beam)>,
    /// Places that are not taken by finished sequences.
    room: usize,
}

/// A sequence that is kept.
#[derive(Clone)]
pub(crate) struct Beam {
    pub(crate) line: Line,
    /// Sum of log p, in nats.
    log_p: f64,
    history: History,
    length: usize,
}

/// A beam's continuation by one candidate.
struct Continuation {
    score: f64,
    fused: f64,
    beam: usize,
    candidate: usize,
}

impl Beams {
    pub(crate) fn new(line: Line) -> Self {
        let room = line.sequence.settings.beams;
        let beam = Beam { line, log_p: 0.0, history: History::default(), length: 0 };
        Self { beams: vec![beam], best: None, room }
    }

    /// Keeps the best continuations. `values` are those of each beam's candidates.
    ///
    /// # Errors
    /// A value is not finite, or the tokenizer fails.
    pub(crate) fn score(&mut self, values: Vec<Vec<f64>>) -> Result<()> {
        let mut steps = Vec::with_capacity(values.len());
        for (beam, mut values) in self.beams.iter_mut().zip(values) {
            beam.line.sequence.perturb(&mut values);
            let sequence = &beam.line.sequence;
            let turn = sequence.turn().ok_or(Error::NoValueHead)?;
            steps.push(turn.fused(values, Vec::new(), &sequence.settings)?);
        }
        let mut next = Vec::new();
        for Continuation { beam, candidate, .. } in self.ranking(&steps).into_iter().take(self.room) {
            let mut beam_of = self.beams[beam].clone();
            let line = &mut beam_of.line;
            let turn = line.sequence.turn().ok_or(Error::NoValueHead)?;
            let step = turn.chosen(steps[beam].clone(), candidate, 0);
            let penalty = line.sequence.settings.length_penalty;
            let text = line.sequence.take(&step, None)?;
            let log_p = step.logits[candidate];
            let value = step.fused[candidate] - log_p;
            let finish = line.sequence.answer.finish;
            if let None | Some(Finish::Length) = finish {
                line.commit(candidate)?;
            }
            line.ahead = None;
            line.pending = Pending::Logits;
            beam_of.log_p += log_p;
            beam_of.length += 1;
            beam_of.history.push((step, text));
            if finish.is_none() {
                next.push(beam_of);
                continue;
            }
            self.room -= 1;
            // A value is of the whole text already: only what was summed is divided.
            let score = beam_of.log_p / (beam_of.length as f64).powf(penalty) + value;
            if self.best.as_ref().is_none_or(|(most, _)| score > *most) {
                self.best = Some((score, beam_of));
            }
        }
        self.beams = next;
        Ok(())
    }

    /// All continuations, best first. Where scores are rounded to the same number, the fused score decides, as it does in
    /// greedy decoding.
    fn ranking(&self, steps: &[Step]) -> Vec<Continuation> {
        let mut ranking: Vec<Continuation> = Vec::new();
        for (number, (step, beam)) in steps.iter().zip(&self.beams).enumerate() {
            let continuation = |(candidate, &fused): (usize, &f64)| {
                let score = beam.log_p + fused;
                Continuation { score, fused, beam: number, candidate }
            };
            ranking.extend(step.fused.iter().enumerate().map(continuation));
        }
        ranking.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.fused.total_cmp(&a.fused)));
        ranking
    }

    /// The answer and its steps, once no beam is left.
    pub(crate) fn finished(&mut self) -> Option<(Line, Vec<Said>)> {
        if !self.beams.is_empty() {
            return None;
        }
        let (_, Beam { line, history, .. }) = self.best.take()?;
        Some((line, history.said()))
    }
}
