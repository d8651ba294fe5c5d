//! The chat client.

use std::time::Duration;

use serde_json::json;
use stackelberg_engine::Message;
use stackelberg_remote::Key;
use stackelberg_remote::chat::{Client, Endpoint, Error, Failure, Hint, Kind, Settings};

use crate::server::server;

fn client(address: &str) -> Client {
    let endpoint = Endpoint {
        base_url: format!("{address}/v1/"),
        key: Some(Key::new("sk-secret")),
        retries: 2,
        first_wait: Duration::from_millis(2),
        ..Endpoint::default()
    };
    let settings = Settings { model: "m".to_owned(), seed: Some(3), ..Settings::default() };
    Client::new(endpoint, settings).unwrap()
}

#[test]
fn a_conversation_is_sent_and_the_reply_is_read() {
    let (address, seen) = server(|number, _| match number {
        0 => (503, String::new()),
        _ => (
            200,
            json!({
                "model": "m-2026",
                "choices": [{"message": {"content": "Rayleigh."}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 4},
            })
            .to_string(),
        ),
    });
    let messages = [Message::new("system", "Be brief."), Message::new("user", "Why?")];
    let mut requests = 0;
    let completion = client(&address).complete(&messages, &mut requests, &|| false).unwrap();
    assert_eq!((completion.text.as_str(), requests), ("Rayleigh.", 2));
    assert_eq!(
        (completion.served.as_deref(), completion.finish.as_deref()),
        (Some("m-2026"), Some("stop"))
    );
    assert_eq!((completion.tokens_in, completion.tokens_out), (Some(9), Some(4)));
    let seen = seen.lock().unwrap();
    assert!(seen[1].head.starts_with("POST /v1/chat/completions HTTP/1.1"), "{}", seen[1].head);
    assert!(seen[1].head.contains("authorization: Bearer sk-secret\r\n"));
    let expected = json!({
        "model": "m", "seed": 3, "max_tokens": 256,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
    });
    assert_eq!((&seen[0].body, &seen[1].body), (&expected, &expected));
}

#[test]
fn failures_say_whether_others_may_succeed() {
    let ask = |status: u16, body: &'static str| {
        let (address, seen) = server(move |_, _| (status, body.to_owned()));
        let mut requests = 0;
        let failure =
            client(&address).complete(&[Message::new("user", "Why?")], &mut requests, &|| false);
        assert_eq!(seen.lock().unwrap().len() as u64, requests);
        (failure.unwrap_err(), requests)
    };
    let (failure, requests) = ask(500, "oops");
    let problem = "status 500: oops".to_owned();
    assert_eq!((failure, requests), (Failure::Request { kind: Kind::Server, problem }, 3));
    let (failure, requests) = ask(400, "context_length_exceeded");
    assert!(matches!(failure, Failure::Request { kind: Kind::Refused, .. }) && requests == 1);
    let (failure, requests) = ask(401, "{\"error\": {\"message\": \"not sk-secret\"}}");
    let Failure::Fatal(Error::Refused { status, said, hint, .. }) = failure else { panic!("{failure}") };
    assert_eq!((status, said.as_str(), hint, requests), (401, "not [key]", Some(Hint::Key), 1));
}

#[test]
fn a_stopped_request_is_no_failure() {
    let (address, seen) = server(|_, _| (500, String::new()));
    let stop = || !seen.lock().unwrap().is_empty();
    let failure = client(&address).complete(&[Message::new("user", "Why?")], &mut 0, &stop);
    assert_eq!(failure, Err(Failure::Stopped));
}

#[test]
fn addresses_with_secrets_are_refused() {
    let new = |base_url: &str| {
        let endpoint = Endpoint { base_url: base_url.to_owned(), ..Endpoint::default() };
        Client::new(endpoint, Settings::default()).unwrap_err().to_string()
    };
    for secret in ["http://me:secret@host/v1", "http://secret@host/v1", "http://host/v1?key=secret"] {
        let error = new(secret);
        assert!(error.starts_with("base-url: it may hold a secret") && !error.contains("=s"), "{error}");
        assert!(!error.contains("secret@"), "{error}");
    }
    assert!(new("host:80/v1").contains("begins with http:// or https://"));
}
