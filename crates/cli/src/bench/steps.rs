//! Single steps and their timing.

use std::time::Instant;

use anyhow::Result;
use stackelberg_engine::model::Segment;
use stackelberg_engine::{Branches, Model, Prefix, Tensor};

/// Prefills a text; returns the prefix and the logits of its last token.
pub(super) fn prefill(model: &Model, text: &[u32]) -> Result<(Prefix, Tensor)> {
    let (prefix, hidden) = model.prefill(text)?;
    let logits = model.logits(&hidden.narrow(0, text.len() - 1, 1)?)?;
    Ok((prefix, logits))
}

/// A decoding step: branches of the prefix, and the logits of one of them.
pub(super) fn look_ahead(
    model: &Model,
    prefix: &Prefix,
    candidates: &[u32],
) -> Result<(Branches, Tensor)> {
    let branches = model.branch(prefix, candidates)?;
    let logits = model.logits(&branches.hidden.narrow(0, 0, 1)?)?;
    Ok((branches, logits))
}

/// A step of several sequences in one forward, one token each; returns logits `[n, vocabulary]`. The tokens are
/// always the same, since their choice does not affect the time.
pub(super) fn read_together(model: &Model, texts: &mut [Prefix], tokens: &[u32]) -> Result<Tensor> {
    let segment = |(prefix, tokens)| Segment::Read(prefix, tokens);
    let mut segments: Vec<Segment<'_>> = texts.iter_mut().zip(tokens.chunks(1)).map(segment).collect();
    let read = model.forward(&mut segments)?;
    let hidden: Vec<&Tensor> = read.iter().map(|read| &read.hidden).collect();
    Ok(model.logits(&Tensor::cat(&hidden, 0)?)?)
}

/// The result of `f`, and the milliseconds that it took.
pub(super) fn timed<T>(f: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let began = Instant::now();
    let result = f()?;
    Ok((result, began.elapsed().as_secs_f64() * 1e3))
}
