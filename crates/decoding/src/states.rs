//! Hidden states behind answers: of a local model, or from a server that gives those of the policy's model.

use stackelberg_engine::{Checkpoint, Error as EngineError, Tensor, state_row};

use crate::error::{Error, Result};
use crate::policy::{End, Policy, RemotePolicy, StateServer};

/// The hidden state of the last token of each answer to a prompt, `[1, d]` each; of an empty answer that of the prompt's last
/// token.
///
/// # Errors
/// The model or the server fails, or nothing gives hidden states.
pub(crate) fn of_last(policy: &Policy, prompt: &[u32], answers: &[&[u32]]) -> Result<Vec<Tensor>> {
    match policy {
        Policy::Local(policy) => {
            answers.iter().map(|answer| of_local(policy, &[prompt, answer].concat())).collect()
        }
        Policy::Remote(policy) => {
            let states = asked(policy, prompt, answers, |_| 1)?;
            states.iter().map(|state| Ok(state_row(state)?)).collect()
        }
    }
}

/// The hidden states of all tokens of each answer, `[tokens, d]` each, row by row.
///
/// # Errors
/// As [`of_last`].
pub(crate) fn of_all(
    policy: &RemotePolicy,
    prompt: &[u32],
    answers: &[&[u32]],
) -> Result<Vec<Vec<f32>>> {
    asked(policy, prompt, answers, <[u32]>::len)
}

fn of_local(policy: &Checkpoint, text: &[u32]) -> Result<Tensor> {
    let (_, hidden) = policy.model.prefill(text)?;
    Ok(hidden.narrow(0, text.len() - 1, 1).map_err(EngineError::from)?)
}

/// The states that the server gives of the last `rows` tokens of each answer. Those of no tokens are not asked for.
fn asked(
    policy: &RemotePolicy,
    prompt: &[u32],
    answers: &[&[u32]],
    rows: impl Fn(&[u32]) -> usize,
) -> Result<Vec<Vec<f32>>> {
    let server: &dyn StateServer = &**policy.states.as_ref().ok_or(EngineError::NoHiddenStates)?;
    let end = |answer: &&[u32]| End { tokens: [prompt, answer].concat(), rows: rows(answer) };
    let ends: Vec<End> = answers.iter().map(end).filter(|end| end.rows > 0).collect();
    let mut found = server.states(&ends).map_err(Error::Server)?.into_iter();
    let of = |answer: &&[u32]| if rows(answer) > 0 { found.next() } else { Some(Vec::new()) };
    answers
        .iter()
        .map(of)
        .collect::<Option<_>>()
        .ok_or_else(|| Error::Server("a state is missing".to_owned()))
}
