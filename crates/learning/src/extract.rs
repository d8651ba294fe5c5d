//! Features of texts: hidden states of a frozen policy at the last token, or embeddings.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use stackelberg_data::Conversation;
use stackelberg_engine::reward::{EmbeddedHead, TextFormat, TextReward};
use stackelberg_engine::{Checkpoint, Embedder, Prompt, Tensor};

use crate::error::Error;

/// Largest number of tokens of a text. Longer raw texts keep their last tokens; longer chats drop their oldest turns.
pub const MOST_TOKENS: usize = 256;

/// Tokens of a judged text, formatted as the policy reads it during guided decoding.
///
/// # Errors
/// The chat template or the tokenizer fails.
pub fn tokens(policy: &Checkpoint, text: &Conversation, format: TextFormat) -> Result<Vec<u32>, Error> {
    if format == TextFormat::Raw {
        let tokens = policy.tokens(&text.raw, format)?;
        return Ok(tokens[tokens.len().saturating_sub(MOST_TOKENS)..].to_vec());
    }
    let Some((response, before)) = text.messages.split_last() else { return Ok(Vec::new()) };
    let turns = before;
    // Turns are dropped in pairs of a question and its answer.
    let mut from = 0;
    loop {
        let prompt = Prompt::Messages(turns[from..].to_vec());
        let laid_out = policy.lay_out(&prompt, None, format)?;
        let tokens = policy.read(&policy.answered(&laid_out, &response.content))?;
        if tokens.len() <= MOST_TOKENS || from + 2 >= turns.len() {
            return Ok(tokens);
        }
        from += 2;
    }
}

/// Hidden states after the final norm at the last token of each text, `[texts, d]` row-major. The common prefix of the
/// texts of one set is computed once. `progress` receives `(done, total)` sets.
///
/// # Errors
/// A text has no tokens, or is longer than the policy's context.
pub fn features(
    policy: &Checkpoint,
    sets: &[Vec<Vec<u32>>],
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<f32>, Error> {
    let done = AtomicUsize::new(0);
    let rows = sets.par_iter().map(|set| {
        let rows = of_set(policy, set);
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, sets.len());
        rows
    });
    let rows: Vec<Vec<f32>> = rows.collect::<Result<_, Error>>()?;
    Ok(rows.concat())
}

/// Features of the texts of one set.
fn of_set(policy: &Checkpoint, set: &[Vec<u32>]) -> Result<Vec<f32>, Error> {
    let shortest = set.iter().map(Vec::len).min().unwrap_or(0);
    let first = set.first().map_or(&[][..], Vec::as_slice);
    let same = |i: &usize| set.iter().all(|text| text[*i] == first[*i]);
    // At least one token of each text must follow the prefix.
    let common = (0..shortest.saturating_sub(1)).take_while(same).count();
    let mut rows = Vec::new();
    if set.len() == 1 || common == 0 {
        for text in set {
            rows.extend(last(&policy.model.prefill(text)?.1)?);
        }
        return Ok(rows);
    }
    let (prefix, _) = policy.model.prefill(&first[..common])?;
    for text in set {
        let mut prefix = prefix.clone();
        rows.extend(last(&policy.model.extend(&mut prefix, &text[common..])?)?);
    }
    Ok(rows)
}

/// Embeddings of judged texts, as an [`EmbeddedHead`] computes them, `[texts, d]` row-major. A conversation is
/// formatted in the HH-RLHF layout; a text without a prompt is used unchanged. `progress` receives `(done, total)`
/// texts.
///
/// # Errors
/// The tokenizer or the embedder fails.
pub fn embeddings(
    embedder: &Embedder,
    texts: &[&Conversation],
    progress: &dyn Fn(usize, usize),
) -> Result<Vec<f32>, Error> {
    let laid_out: Vec<String> = texts.iter().map(|text| finished(text)).collect();
    let laid_out: Vec<&str> = laid_out.iter().map(String::as_str).collect();
    let mut rows = Vec::with_capacity(texts.len() * embedder.width());
    for (i, texts) in laid_out.chunks(TEXTS).enumerate() {
        rows.extend(EmbeddedHead::features(embedder, texts)?.into_iter().flatten());
        progress(i * TEXTS + texts.len(), laid_out.len());
    }
    Ok(rows)
}

/// Number of texts that are embedded between two calls of `progress`.
const TEXTS: usize = 128;

/// The text as an embedder reads it.
fn finished(text: &Conversation) -> String {
    match text.messages.split_last() {
        Some((response, before)) if !before.is_empty() => {
            TextReward::lay_out(&text.prompt(), &response.content)
        }
        _ => text.raw.clone(),
    }
}

/// The last row of hidden states.
fn last(hidden: &Tensor) -> Result<Vec<f32>, stackelberg_engine::Error> {
    let (rows, width) = hidden.dims2()?;
    Ok(hidden.narrow(0, rows - 1, 1)?.reshape(width)?.to_vec1()?)
}
