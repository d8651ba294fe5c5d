//! Beam search under controlled decoding: the best `beams` texts are kept at every step.
//!
//! A text's score is `sum of log p + strength * V(h)`, with `h` its last token's hidden state; one beam is
//! greedy decoding. A finished text keeps its place among the beams, and of all finished ones the best by
//! `Σ log p / length^length_penalty + strength V` is the answer. Beams share the memory of what they have in common, and
//! each step is one forward over the candidates of all.

use stackelberg_engine::Model;

use crate::error::{Error, Result};
use crate::generation::Finish;
use crate::settings::Settings;
use crate::step::Step;
use crate::text::Text;
use crate::turn::{expect, keep, look_ahead};

/// What was written behind the prompt, step by step, with what each step adds to the text for certain.
pub(crate) type Steps = Vec<(Step, String)>;

#[derive(Clone, Default)]
struct Path {
    /// Sum of log p, in nats.
    log_p: f64,
    steps: Steps,
}

/// A beam's continuation by one candidate.
struct Continuation {
    score: f64,
    fused: f64,
    beam: usize,
    candidate: usize,
}

/// Goes on with a text that has a guide, until the answer is found or `stop` says so.
pub(crate) fn search<'a>(
    model: &Model,
    text: Text<'a>,
    settings: &Settings,
    stop: &dyn Fn() -> bool,
) -> Result<(Text<'a>, Steps)> {
    let (mut texts, mut paths) = (vec![text], vec![Path::default()]);
    let mut best: Option<(f64, Text<'a>, Steps)> = None;
    let mut room = settings.beams;
    while !texts.is_empty() {
        if stop() {
            return Err(Error::Stopped);
        }
        let mut turns = expect(model, texts.iter(), settings)?;
        look_ahead(model, &mut texts, &mut turns, settings.perturbation)?;
        let mut steps = Vec::with_capacity(texts.len());
        for (text, turn) in texts.iter().zip(&mut turns) {
            steps.push(turn.fused(text.steps, settings)?.ok_or(Error::NoValueHead)?);
        }
        let (mut next_texts, mut next_paths) = (Vec::new(), Vec::new());
        for Continuation { beam, candidate, .. } in ranking(&steps, &paths).into_iter().take(room) {
            let (mut text, mut path) = (texts[beam].clone(), paths[beam].clone());
            let step = turns[beam].chosen(steps[beam].clone(), candidate, 0);
            let new = text.take(&step, None)?;
            let value = step.fused[candidate] - step.logits[candidate];
            path.log_p += step.logits[candidate];
            path.steps.push((step, new));
            if let (None | Some(Finish::Length), Some(ahead)) = (text.answer.finish, &turns[beam].ahead)
            {
                keep(&mut text, ahead, candidate)?;
            }
            if text.answer.finish.is_none() {
                next_texts.push(text);
                next_paths.push(path);
                continue;
            }
            room -= 1;
            // A value is of the whole text already: only what was summed is divided.
            let score = path.log_p / (path.steps.len() as f64).powf(settings.length_penalty) + value;
            if best.as_ref().is_none_or(|(most, ..)| score > *most) {
                best = Some((score, text, path.steps));
            }
        }
        (texts, paths) = (next_texts, next_paths);
    }
    best.map(|(_, text, steps)| (text, steps)).ok_or(Error::Stopped)
}

/// All continuations, best first. Where scores are rounded to the same number, the fused score decides, as
/// it does in greedy decoding.
fn ranking(steps: &[Step], paths: &[Path]) -> Vec<Continuation> {
    let mut ranking: Vec<Continuation> = Vec::new();
    for (beam, (step, path)) in steps.iter().zip(paths).enumerate() {
        let continuation = |(candidate, &fused): (usize, &f64)| {
            let score = path.log_p + fused;
            Continuation { score, fused, beam, candidate }
        };
        ranking.extend(step.fused.iter().enumerate().map(continuation));
    }
    ranking.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.fused.total_cmp(&a.fused)));
    ranking
}
