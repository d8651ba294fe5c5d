//! Single steps, and how long they take.

use std::time::Instant;

use anyhow::Result;
use stackelberg_engine::model::Segment;
use stackelberg_engine::{Branches, Model, Prefix, Tensor};

/// Reads a text: its prefix, and the logits behind it.
pub(super) fn prefill(model: &Model, text: &[u32]) -> Result<(Prefix, Tensor)> {
    let (prefix, hidden) = model.prefill(text)?;
    let logits = model.logits(&hidden.narrow(0, text.len() - 1, 1)?)?;
    Ok((prefix, logits))
}

/// A step of decoding: candidates behind the prefix, and the logits behind one of them.
pub(super) fn look_ahead(
    model: &Model,
    prefix: &Prefix,
    candidates: &[u32],
) -> Result<(Branches, Tensor)> {
    let branches = model.branch(prefix, candidates)?;
    let logits = model.logits(&branches.hidden.narrow(0, 0, 1)?)?;
    Ok((branches, logits))
}

/// A step of several texts in one forward: each reads a token; logits `[n, vocabulary]`. Always the same
/// tokens: which ones makes no difference to the time.
pub(super) fn read_together(model: &Model, texts: &mut [Prefix], tokens: &[u32]) -> Result<Tensor> {
    let segment = |(prefix, tokens)| Segment::Read(prefix, tokens);
    let mut segments: Vec<Segment<'_>> = texts.iter_mut().zip(tokens.chunks(1)).map(segment).collect();
    let read = model.forward(&mut segments)?;
    let hidden: Vec<&Tensor> = read.iter().map(|read| &read.hidden).collect();
    Ok(model.logits(&Tensor::cat(&hidden, 0)?)?)
}

/// What `f` gives, and the milliseconds that it takes.
pub(super) fn timed<T>(f: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let began = Instant::now();
    let result = f()?;
    Ok((result, began.elapsed().as_secs_f64() * 1e3))
}
