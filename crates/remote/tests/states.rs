//! Servers of hidden states: what is found out about them, and that no state is wrong however they behave.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use stackelberg_decoding::policy::{End, StateServer};
use stackelberg_remote::{Key, StatesClient};

use crate::engine::{Engine, Looks, Reply, States, engine, packed, state, text};

fn connect(addresses: &str) -> Result<StatesClient, String> {
    let folder = tempfile::tempdir().unwrap();
    let key = Some(Key::new("s3cret"));
    StatesClient::connect(addresses, key, &text(folder.path())).map_err(|error| error.to_string())
}

fn well(states: States) -> Engine {
    engine(Looks { states, ..Looks::default() }, |_, _| Reply::Right(Duration::ZERO))
}

/// Texts, each different from all others, and the states of their last tokens.
fn ends(n: usize, rows: usize, width: usize) -> (Vec<End>, Vec<Vec<f32>>) {
    let end = |i: usize| End { tokens: vec![(i % 89) as u32, (i / 89) as u32, 5, 7, 11], rows };
    let ends: Vec<End> = (0..n).map(end).collect();
    let states = |End { tokens, rows }: &End| {
        (tokens.len() - rows + 1..=tokens.len()).flat_map(|end| state(&tokens[..end], width)).collect()
    };
    let states = ends.iter().map(states).collect();
    (ends, states)
}

#[test]
fn states_of_all_and_of_last_tokens() {
    let (all, last) = (well(States::All(6)), well(States::Last(6)));
    let client = connect(&all.address).unwrap();
    assert_eq!((client.width(), client.gives_all(), client.context()), (6, true, 4096));
    assert_eq!(client.identity(), "mock on vllm 1.2.3, width 6");
    let (asked, expected) = ends(200, 3, 6);
    assert_eq!(client.states(&asked), Ok(expected));
    assert_eq!(client.states(&[]), Ok(Vec::new()));
    let heads = all.heads.lock().unwrap();
    assert!(
        heads
            .iter()
            .filter(|head| head.starts_with("POST /pooling"))
            .all(|head| head.contains("s3cret"))
    );
    let client = connect(&format!("{}#mock", last.address)).unwrap();
    assert_eq!((client.width(), client.gives_all()), (6, false));
    let (asked, expected) = ends(20, 1, 6);
    assert_eq!(client.states(&asked), Ok(expected));
}

/// A width at which a response of the longest text would be too long.
#[test]
fn the_context_is_what_a_response_holds() {
    let engine = well(States::All(8192));
    let client = connect(&engine.address).unwrap();
    assert!((1000..2000).contains(&client.context()), "{}", client.context());
    assert_eq!(connect(&well(States::Last(8192)).address).unwrap().context(), 4096);
}

#[test]
fn what_fails_for_a_while_is_asked_again() {
    let replies = |number: usize, _: &Value| match number % 6 {
        0 => Reply::Status(503, "", "{}".to_owned()),
        1 => Reply::Cut,
        2 => Reply::Status(429, "retry-after: 0\r\n", "{}".to_owned()),
        // Once for each of the two servers: the third try ends.
        3 if number == 9 => Reply::Changed(|_| json!({"data": [{"data": packed(&[f32::NAN; 20])}]})),
        _ => Reply::Right(Duration::ZERO),
    };
    let all: Vec<Engine> =
        (0..2).map(|_| engine(Looks { states: States::All(4), ..Looks::default() }, replies)).collect();
    let addresses: Vec<&str> = all.iter().map(|engine| engine.address.as_str()).collect();
    let client = connect(&addresses.join(",")).unwrap();
    all.iter().for_each(Engine::misbehave);
    let (asked, expected) = ends(300, 4, 4);
    assert_eq!(client.states(&asked), Ok(expected));
    let calls: usize = all.iter().map(|engine| engine.calls.load(Ordering::SeqCst)).sum();
    assert!(calls > 400, "{calls}");
}

#[test]
fn what_stays_wrong_is_one_sentence() {
    type Change = fn(Value) -> Value;
    let cases: [(Change, &str); 4] = [
        (|_| json!({"data": [{"data": packed(&[f32::NAN; 20])}]}), "NaN in a hidden state"),
        (
            |_| json!({"data": [{"data": packed(&[1.0; 16])}]}),
            "64 bytes where the hidden states of width 4 of 5 tokens",
        ),
        (|_| json!({"data": [{"data": packed(&[1.0; 15])}]}), "60 bytes where the hidden states"),
        (|_| json!({"data": [{"data": [[1.0]]}]}), "no hidden states as base64"),
    ];
    for (change, problem) in cases {
        let looks = Looks { states: States::All(4), ..Looks::default() };
        let engine = engine(looks, move |_, _| Reply::Changed(change));
        let client = connect(&engine.address).unwrap();
        engine.misbehave();
        let said = client.states(&ends(1, 2, 4).0).unwrap_err();
        assert!(said.contains(problem) && said.contains(", after 3 tries"), "{said} lacks {problem}");
        assert!(said.starts_with(&engine.address) && said.lines().count() == 1, "{said}");
    }
    let looks = Looks { states: States::All(4), ..Looks::default() };
    let refusal = || Reply::Status(400, "", json!({"error": {"message": "too long"}}).to_string());
    let engine = engine(looks, move |_, _| refusal());
    let client = connect(&engine.address).unwrap();
    engine.misbehave();
    let said = client.states(&ends(3, 2, 4).0).unwrap_err();
    assert!(said.ends_with("too long"), "{said}");
}

#[test]
fn servers_that_do_not_fit_are_refused() {
    for (states, problem) in [
        (States::None, "does not give hidden states: start vLLM with --runner pooling"),
        (States::Bidirectional, "depend on what follows"),
        (States::Normalised, "normalises hidden states"),
        (States::First, "must be that of the last token"),
    ] {
        let said = connect(&well(states).address).err().unwrap();
        assert!(said.contains(problem) && said.lines().count() == 1, "{said} lacks {problem}");
    }
    let shifted = Looks { states: States::All(4), shift: 1, ..Looks::default() };
    let shifted = engine(shifted, |_, _| Reply::Right(Duration::ZERO));
    let said = connect(&shifted.address).err().unwrap();
    assert!(said.contains("its tokenizer is not the one that is given here"), "{said}");
    let (one, other) = (well(States::All(4)), well(States::All(5)));
    let said = connect(&format!("{},{}", one.address, other.address)).err().unwrap();
    assert!(said.contains("servers of one model must be alike"), "{said}");
    let said = connect(&format!("{}#other", one.address)).err().unwrap();
    assert!(said.contains("has no model 'other': it has mock"), "{said}");
}
