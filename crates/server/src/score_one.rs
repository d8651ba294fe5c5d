//! The reward of one text. A head or a reward model reads it in chunks between the steps of the engine, so that answers go on
//! meanwhile.

use std::sync::Arc;

use stackelberg_data::Prompt;
use stackelberg_decoding::Policy;
use stackelberg_engine::reward::Exchange;
use stackelberg_engine::{Error as EngineError, Prefix, Reward};

use crate::app::{App, blocking};
use crate::engine::Places;
use crate::error::ApiError;

/// Tokens that are read between two steps.
const CHUNK: usize = 64;

/// A text as a reward reads it.
pub(crate) enum Ready {
    /// By a reward that reads text: an answer to a prompt.
    Pair(Arc<Prompt>, String),
    /// By a reward that reads text: a text alone.
    Alone(String),
    /// By a reward that reads the policy's tokens.
    Tokens(Vec<u32>),
    /// By the parts of a combination.
    Parts(Vec<Ready>),
}

/// A reward of a text, which is no combination: of a server where nothing else waits for it, others between the steps of the
/// engine.
pub(crate) async fn one(
    app: &Arc<App>,
    place: &Places,
    reward: &Reward,
    ready: Ready,
) -> Result<f64, ApiError> {
    let failed = |error: EngineError| ApiError::engine(&error);
    let tokens = match (reward, ready) {
        (Reward::Head(_) | Reward::Model(_), Ready::Tokens(tokens)) => tokens,
        (Reward::Text(reads), ready) => {
            let (reads, remote) = (reads.clone(), reads.is_remote());
            let score = move || match &ready {
                Ready::Pair(prompt, answer) => reads.score(&[Exchange { prompt, answer }]),
                Ready::Alone(text) => reads.score_texts(&[text]),
                Ready::Tokens(_) | Ready::Parts(_) => Err(mixed_up()),
            };
            let found = match remote {
                true => blocking(move || Ok(score())).await?,
                false => app.engine.run(place, move |_| score()).await?,
            };
            return Ok(found.map_err(failed)?.first().copied().unwrap_or(f64::NAN));
        }
        _ => return Err(failed(mixed_up())),
    };
    let mut prefix = None;
    let mut chunks = tokens.chunks(CHUNK).peekable();
    while let Some(chunk) = chunks.next() {
        let (reward, chunk, last) = (reward.clone(), chunk.to_vec(), chunks.peek().is_none());
        let read = app.engine.run(place, move |policy| read(policy, &reward, prefix, &chunk, last));
        let (grown, score) = read.await?.map_err(failed)?;
        prefix = Some(grown);
        if let Some(score) = score {
            return Ok(score);
        }
    }
    Err(failed(EngineError::NoTokens))
}

fn mixed_up() -> EngineError {
    EngineError::Scorer("a text was prepared for another reward".to_owned())
}

/// Reads tokens behind a prefix by the model that a head or a reward model reads with. Gives the reward behind the last ones.
fn read(
    policy: &Policy,
    reward: &Reward,
    prefix: Option<Prefix>,
    tokens: &[u32],
    last: bool,
) -> stackelberg_engine::Result<(Prefix, Option<f64>)> {
    let model = match reward {
        Reward::Model(model) => model.model(),
        _ => &policy.local().ok_or(EngineError::NoHiddenStates)?.model,
    };
    let mut prefix = prefix.unwrap_or_else(|| model.empty());
    let hidden = model.extend(&mut prefix, tokens)?; // [tokens, d]
    if !last {
        return Ok((prefix, None));
    }
    let hidden = hidden.narrow(0, tokens.len() - 1, 1)?;
    let scores = match reward {
        Reward::Head(head) => head.score(&hidden)?,
        Reward::Model(model) => model.score(&hidden)?,
        Reward::Text(_) | Reward::Combined(_) => return Err(mixed_up()),
    };
    Ok((prefix, scores.first().copied()))
}
