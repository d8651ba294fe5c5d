//! Log-probabilities of the tokens of prompts. A prompt is read in chunks between the steps of the engine, so that answers go
//! on meanwhile.

use stackelberg_engine::{Checkpoint, Error as EngineError, Prefix, kernel};

use crate::app::App;
use crate::engine::Places;
use crate::error::ApiError;

/// Tokens that are read between two steps.
const CHUNK: usize = 64;

/// A token of a prompt, by the base policy at temperature 1.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// In nats.
    pub(crate) log_prob: f64,
    /// Its place among all tokens, from 1.
    pub(crate) rank: usize,
    /// The likeliest tokens and their log-probabilities.
    pub(crate) top: Vec<(u32, f64)>,
}

/// The tokens of a prompt but the first, each with the `top` likeliest tokens at its place.
///
/// # Errors
/// The model fails, or the server is about to end.
pub(crate) async fn rows(
    app: &App,
    place: &Places,
    tokens: &[u32],
    top: usize,
) -> Result<Vec<Row>, ApiError> {
    let Some(model) = app.models.policy.local() else {
        let message = "log-probabilities of prompts are not available: the policy runs on a server";
        return Err(ApiError::invalid("prompt_logprobs", message));
    };
    let mut prefix = model.model.empty();
    let mut rows = Vec::with_capacity(tokens.len().saturating_sub(1));
    // Nothing follows the last token.
    let read = tokens.len().saturating_sub(1);
    for start in (0..read).step_by(CHUNK) {
        let end = read.min(start + CHUNK);
        let (chunk, next) = (tokens[start..end].to_vec(), tokens[start + 1..end + 1].to_vec());
        let found = app.engine.run(place, move |policy| {
            let model = policy.local().ok_or(EngineError::NoHiddenStates)?;
            let found = chunk_rows(model, &mut prefix, &chunk, &next, top);
            found.map(|found| (prefix, found))
        });
        let (grown, mut found) = found.await?.map_err(|error| ApiError::engine(&error))?;
        prefix = grown;
        rows.append(&mut found);
    }
    Ok(rows)
}

/// Reads `chunk`; gives the rows of the tokens that follow each of its tokens, `next`.
fn chunk_rows(
    policy: &Checkpoint,
    prefix: &mut Prefix,
    chunk: &[u32],
    next: &[u32],
    top: usize,
) -> stackelberg_engine::Result<Vec<Row>> {
    let hidden = policy.model.extend(prefix, chunk)?; // [chunk, d]
    let logits = policy.model.logits(&hidden)?.to_vec2::<f32>()?; // [chunk, vocabulary]
    Ok(logits.iter().zip(next).map(|(logits, &token)| row(logits, token, top)).collect())
}

fn row(logits: &[f32], token: u32, top: usize) -> Row {
    let log_z = kernel::log_sum_exp(logits);
    let own = logits[token as usize];
    let rank = 1 + logits.iter().filter(|logit| **logit > own).count();
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let mut order: Vec<u32> = if top > 0 { (0..logits.len() as u32).collect() } else { Vec::new() };
    if top < order.len() {
        order.select_nth_unstable_by(top, by_logit);
        order.truncate(top);
    }
    order.sort_unstable_by(by_logit);
    let log_prob = |token: u32| f64::from(logits[token as usize]) - log_z;
    let top = order.into_iter().map(|token| (token, log_prob(token))).collect();
    Row { log_prob: log_prob(token), rank, top }
}

#[cfg(test)]
mod tests {
    use super::row;

    #[test]
    fn ranks_and_the_likeliest_are_found() {
        let logits = [0.5, 2.0, -1.0, 2.0, 1.0];
        let z = logits.iter().map(|logit: &f32| f64::from(*logit).exp()).sum::<f64>().ln();
        let found = row(&logits, 4, 3);
        assert_eq!(
            (found.rank, found.top.iter().map(|(id, _)| *id).collect::<Vec<_>>()),
            (3, vec![1, 3, 4])
        );
        assert!((found.log_prob - (1.0 - z)).abs() < 1e-6 && (found.top[0].1 - (2.0 - z)).abs() < 1e-6);
        assert_eq!(row(&logits, 3, 0).rank, 1);
        assert_eq!(row(&logits, 2, 9).top.len(), 5);
    }
}
