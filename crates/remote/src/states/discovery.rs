//! What a server of hidden states can do, found out once.

use std::fmt;

use stackelberg_engine::TextProcessor;

use super::pooling::{Task, body, read};
use crate::served::{PROBE, Served, compare, tokenized};
use crate::servers::{Failure, LONGEST_ANSWER, Server};

/// What is known of the servers; all of them are alike.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Facts {
    /// The server's name and version.
    pub(super) version: String,
    pub(super) model: String,
    /// The longest text in tokens.
    pub(super) context: usize,
    pub(super) task: Task,
    /// Width of a state.
    pub(super) width: usize,
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, model, width, .. } = self;
        write!(f, "{model} on {version}, width {width}")
    }
}

/// Tokens of a text that is asked about at the start, and how many of them another one begins with.
const TOKENS: usize = 12;
const SHARED: usize = 6;
/// States differ at most so much, relative to their length, where only rounding differs.
const ROUNDING: f64 = 0.1;
/// How to start a server.
const START: &str = "start vLLM with --runner pooling --convert embed --pooler-config.task token_embed";

/// What is known of a server, and the state that it gives of the last token of a text.
pub(super) type Found = (Facts, Vec<f32>);

/// How a server differs from the first one.
pub(super) fn difference((own, last): &Found, (first, of_first): &Found) -> Option<String> {
    match own == first {
        false => Some(format!("{own} here, {first} there")),
        true => {
            (distance(last, of_first) > ROUNDING).then(|| "the same text has other states".to_owned())
        }
    }
}

/// Asks a server. `model` is the model's name, or empty for the only one.
///
/// # Errors
/// A sentence that names the server.
pub(super) async fn discover(
    server: &Server,
    model: &str,
    text: &TextProcessor,
) -> Result<Found, String> {
    let Served { model, version, context, .. } = Served::find(server, model).await?;
    let named = |problem: String| server.named(problem);
    let question = serde_json::json!({"model": model, "prompt": PROBE, "add_special_tokens": false});
    if let Some(theirs) = tokenized(server, &question).await {
        compare(text, &theirs).map_err(named)?;
    }
    let [one, other] = probes(text.tokenizer.vocabulary());
    let task = task_of(server, &model, &one).await?;
    let (one, other) =
        tokio::try_join!(states(server, &model, task, &one), states(server, &model, task, &other))?;
    let width = if task == Task::All { one.len() / TOKENS } else { one.len() };
    if one.len() != other.len() {
        return Err(named("gives hidden states of different widths".to_owned()));
    }
    check(task, width, &one, &other).map_err(named)?;
    let context = context.min(task.longest(width, LONGEST_ANSWER));
    let last = one[one.len() - width..].to_vec();
    Ok((Facts { version, model, context, task, width }, last))
}

/// The states that a server gives of a text, of any width.
async fn states(server: &Server, model: &str, task: Task, tokens: &[u32]) -> Result<Vec<f32>, String> {
    let response = server.post("../pooling", &body(model, task, tokens)).await;
    let response = response.map_err(Failure::problem)?;
    read(&response, task, tokens.len(), None).map_err(|problem| server.named(problem))
}

/// The task that the server was started for.
async fn task_of(server: &Server, model: &str, tokens: &[u32]) -> Result<Task, String> {
    let mut said = String::new();
    for task in [Task::All, Task::Last] {
        match server.post("../pooling", &body(model, task, tokens)).await {
            Ok(_) => return Ok(task),
            Err(Failure::Final { problem, refused: Some(_) }) if said.is_empty() => said = problem,
            Err(Failure::Final { refused: Some(_), .. }) => {}
            Err(failure) => return Err(failure.problem()),
        }
    }
    // The sentence names the server.
    Err(format!("{said}: this server does not give hidden states: {START}"))
}

/// Two texts that begin alike.
fn probes(vocabulary: usize) -> [Vec<u32>; 2] {
    let token = |number: usize| (number * 7919 % vocabulary.max(1)) as u32;
    let text = |rest: usize| (0..SHARED).chain(rest..rest + TOKENS - SHARED).map(token).collect();
    [text(SHARED + 1), text(2 * TOKENS)]
}

/// Checks the states of the two texts.
fn check(task: Task, width: usize, one: &[f32], other: &[f32]) -> Result<(), String> {
    let last = |states: &[f32]| states[states.len() - width..].to_vec();
    let (of_one, of_other) = (last(one), last(other));
    if [&of_one, &of_other].iter().all(|state| (length(state) - 1.0).abs() < 1e-3) {
        return Err(
            "normalises hidden states although use_activation is false: it cannot give them".to_owned()
        );
    }
    if of_one == of_other {
        return Err(
            "gives the same state behind different texts: it must be that of the last token (--pooler-config.pooling_type LAST)"
                .to_owned(),
        );
    }
    let shared = SHARED * width;
    if task == Task::All && distance(&one[..shared], &other[..shared]) > ROUNDING {
        return Err(
            "gives states that depend on what follows: a value head needs those of a causal model"
                .to_owned(),
        );
    }
    Ok(())
}

fn length(state: &[f32]) -> f64 {
    state.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

/// The length of the difference, relative to the length of the first.
fn distance(one: &[f32], other: &[f32]) -> f64 {
    let difference: Vec<f32> = one.iter().zip(other).map(|(a, b)| a - b).collect();
    length(&difference) / length(one).max(f64::MIN_POSITIVE)
}
