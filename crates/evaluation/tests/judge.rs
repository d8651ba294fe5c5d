//! The judge against a server that misbehaves: which requests are sent, and which verdicts are stored.

use std::fs;
use std::time::Duration;

use stackelberg_evaluation::judge::{
    Asking, Client, Endpoint, Error, Identity, Key, Kind, Order, Outcome, Store, Verdict, Watch, ask,
    calls,
};

use crate::judge_server::{Act, Request, Server, say};
use crate::judging::{BOTH, Judging, client, endpoint, fair, identity, one_at_a_time, some_pairs};

#[test]
fn a_call_is_asked_as_it_should_be() {
    let server = Server::start(fair);
    let judging = Judging::new(some_pairs(1));
    let settings = Endpoint { key: Some(Key::new("sk-secret\n")), max_tokens: 77, ..endpoint(&server) };
    assert!(!format!("{settings:?}").contains("secret"));
    let client = Client::new(settings, Identity { seed: Some(3), ..identity() }).unwrap();
    let path = judging.folder.path().join("seeded.jsonl");
    let mut store = Store::open(&path, client.identity()).unwrap();
    ask(&calls(&judging.pairs, &BOTH), &client, &mut store, &one_at_a_time(), &()).unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    let seen: Vec<_> = requests.iter().map(|r| (r.first(), r.second())).collect();
    assert_eq!(seen, [("good 0", "bad 0"), ("bad 0", "good 0")]);
    for request in &requests {
        assert!(request.head.starts_with("post /v1/chat/completions http/1.1"), "{}", request.head);
        assert!(request.head.contains("authorization: bearer sk-secret\r\n"), "{}", request.head);
        assert_eq!(request.between("request"), "Question 0?");
        let body = &request.body;
        assert_eq!(body["model"], "judge");
        assert_eq!(
            (&body["temperature"], &body["max_tokens"], &body["seed"]),
            (&0.0.into(), &77.into(), &3.into())
        );
    }
    let text = fs::read_to_string(path).unwrap();
    assert!(!text.contains("secret"));
    let verdict: Verdict = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(
        (verdict.scores, verdict.order, verdict.id.as_str()),
        (Some([8.0, 6.0]), Order::Ab, "p0")
    );
    assert_eq!((verdict.tokens_in, verdict.tokens_out), (Some(100), Some(10)));
    assert_eq!((verdict.served.as_deref(), verdict.requests), (Some("judge-2026"), 1));
}

#[test]
fn more_fields_can_be_sent_but_not_ours() {
    let server = Server::start(fair);
    let extra = |text: &str| Identity { extra: serde_json::from_str(text).unwrap(), ..identity() };
    let low = extra("{\"reasoning_effort\": \"low\"}");
    let judging = Judging::new(some_pairs(1));
    let path = judging.folder.path().join("low.jsonl");
    let client = Client::new(endpoint(&server), low.clone()).unwrap();
    let mut store = Store::open(&path, &low).unwrap();
    ask(&calls(&judging.pairs, &BOTH), &client, &mut store, &one_at_a_time(), &()).unwrap();
    drop(store);
    assert!(server.requests().iter().all(|request| request.body["reasoning_effort"] == "low"));
    assert!(Store::open(&path, &low).is_ok());
    let error = Store::open(&path, &identity()).unwrap_err().to_string();
    assert!(error.contains("written with more of the request"), "{error}");
    let error = Client::new(endpoint(&server), extra("{\"messages\": []}")).unwrap_err().to_string();
    assert!(error.contains("'messages' is not for it to set"), "{error}");
}

#[test]
fn a_refusal_is_met_once_however_many_calls_are_waiting() {
    let server = Server::start(|_| Act::Status(401, "X: 0", "{}".to_owned()));
    Judging::new(some_pairs(20)).go(&server, &Asking::default()).unwrap_err();
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn what_fails_for_a_passing_reason_is_asked_again() {
    // Ten calls; the first request of each fails in another way, the second is answered.
    let server = Server::start(|request| {
        let number: usize =
            request.between("request").trim_matches(|c: char| !c.is_numeric()).parse().unwrap();
        if request.before > 0 {
            return fair(request);
        }
        match number % 10 {
            0 => Act::Status(500, "X: 0", "{\"error\": {\"message\": \"oops\"}}".to_owned()),
            1 => Act::Status(503, "X: 0", "<html>busy</html>".to_owned()),
            2 => Act::Status(200, "X: 0", "{\"choices\": [{\"mess".to_owned()),
            3 => Act::Status(200, "X: 0", "no JSON".to_owned()),
            4 => Act::CutBody,
            5 => Act::Close,
            6 => Act::Slow(Duration::from_millis(900), "1 10".to_owned()),
            7 => Act::Status(
                200,
                "X: 0",
                "{\"error\": {\"code\": 502, \"message\": \"upstream\"}}".to_owned(),
            ),
            8 => Act::Status(200, "X: 0", "{\"choices\": []}".to_owned()),
            _ => Act::Status(408, "X: 0", String::new()),
        }
    });
    let judging = Judging::new(some_pairs(10));
    let outcome = judging.go(&server, &Asking::default()).unwrap();
    assert_eq!(outcome, Outcome { asked: 20, stopped: false });
    assert_eq!(server.requests().len(), 40);
    assert!(judging.lines().iter().all(|v| v.requests == 2 && v.replies == 1 && v.scores.is_some()));
    let summary = judging.summary();
    assert_eq!((summary.win, summary.tie, summary.lose, summary.unjudged), (10, 0, 0, 0));
    assert_eq!(summary.calls.spent.tokens_in, 2000);
}

#[test]
fn a_server_that_asks_to_wait_is_waited_for() {
    let server = Server::start(|request| match request.before {
        0 => {
            Act::Status(429, "Retry-After: 0.4", "{\"error\": {\"message\": \"slow down\"}}".to_owned())
        }
        _ => fair(request),
    });
    let judging = Judging::new(some_pairs(1));
    judging.go(&server, &one_at_a_time()).unwrap();
    let at: Vec<_> = server.requests().iter().map(|r| r.at).collect();
    assert_eq!(at.len(), 4);
    assert!(at[1] - at[0] >= Duration::from_millis(400));
    assert!(at[3] - at[2] >= Duration::from_millis(400));

    let hours = Server::start(|_| Act::Status(429, "Retry-After: 7200", String::new()));
    let error = Judging::new(some_pairs(1)).go(&hours, &one_at_a_time()).unwrap_err().to_string();
    assert!(error.contains("429") && error.contains("more than ten minutes"), "{error}");
    assert_eq!(hours.requests().len(), 1);

    // A limit that does not go away ends the run; what was asked is not called a failure.
    let limited = Server::start(|_| Act::Status(429, "X: 0", String::new()));
    let judging = Judging::new(some_pairs(3));
    let error = judging.go(&limited, &one_at_a_time()).unwrap_err().to_string();
    assert!(error.contains("429"), "{error}");
    assert_eq!((limited.requests().len(), judging.store().len()), (3, 0));

    let poor = Server::start(|_| {
        Act::Status(429, "X: 0", "{\"error\": {\"code\": \"insufficient_quota\"}}".to_owned())
    });
    let error = Judging::new(some_pairs(3)).go(&poor, &one_at_a_time()).unwrap_err().to_string();
    assert!(error.contains("quota is used up"), "{error}");
    assert_eq!(poor.requests().len(), 1);
}

#[test]
fn a_broken_server_is_given_up() {
    let server = Server::start(|_| Act::Status(500, "X: 0", String::new()));
    let judging = Judging::new(some_pairs(10));
    let error = judging.go(&server, &one_at_a_time()).unwrap_err();
    assert!(matches!(error, Error::GaveUp { count: 5, .. }), "{error}");
    // Five calls of three requests; all five are kept as failures.
    assert_eq!(server.requests().len(), 15);
    assert!(judging.lines().iter().all(|v| v.failure.as_ref().unwrap().kind == Kind::Server));
    assert_eq!(judging.lines().len(), 5);

    let slow = Server::start(|_| Act::Slow(Duration::from_secs(2), "8 7".to_owned()));
    let judging = Judging::new(some_pairs(1));
    judging.go(&slow, &Asking::default()).unwrap();
    assert_eq!(slow.requests().len(), 6);
    assert!(judging.lines().iter().all(|v| v.failure.as_ref().unwrap().kind == Kind::TimeOut));
    assert_eq!(judging.summary().unjudged, 1);
}

#[test]
fn nobody_there() {
    let server = Server::start(fair);
    let address = server.url.clone();
    drop(server);
    let settings = Endpoint { base_url: address, ..Endpoint::default() };
    let client = Client::new(settings, identity()).unwrap();
    let judging = Judging::new(some_pairs(1));
    let error =
        ask(&calls(&judging.pairs, &BOTH), &client, &mut judging.store(), &Asking::default(), &());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("is the server running"), "{error}");
    // Nothing was judged, nothing is left behind.
    assert!(!judging.folder.path().join("v.jsonl").exists());
}

#[test]
fn a_refusal_ends_the_run_and_what_was_kept_stays() {
    for (status, said, hint) in [
        (401, "bad key sk-secret", "is the key right"),
        (403, "no", "is the key right"),
        (404, "no such model", "model right"),
        (400, "Unsupported parameter: use 'max_completion_tokens'", "--max-tokens-field"),
        (400, "Unsupported value: 'temperature'", "--no-temperature"),
        (307, "", "give that address"),
    ] {
        let server = Server::start(move |request| match request.between("request") {
            "Question 2?" => Act::Status(
                status,
                "Location: http://else",
                format!("{{\"error\": {{\"message\": \"{said}\"}}}}"),
            ),
            _ => fair(request),
        });
        let judging = Judging::new(some_pairs(5));
        let settings = Endpoint { key: Some(Key::new("sk-secret")), ..endpoint(&server) };
        let client = Client::new(settings, identity()).unwrap();
        let all = calls(&judging.pairs, &BOTH);
        let error =
            ask(&all, &client, &mut judging.store(), &one_at_a_time(), &()).unwrap_err().to_string();
        assert!(error.contains(&status.to_string()) && error.contains(hint), "{error}");
        assert!(!error.contains("secret"), "{error}");
        // Two prompts in both orders, then the refusal.
        assert_eq!((server.requests().len(), judging.lines().len()), (5, 4));
    }
}

#[test]
fn texts_that_the_server_refuses_are_failures_of_their_own() {
    let server = Server::start(|request| match request.between("request") {
        "Question 1?" => {
            Act::Status(400, "X: 0", "{\"error\": {\"code\": \"context_length_exceeded\"}}".to_owned())
        }
        _ => fair(request),
    });
    let judging = Judging::new(some_pairs(3));
    judging.go(&server, &one_at_a_time()).unwrap();
    let summary = judging.summary();
    assert_eq!((summary.judged, summary.unjudged, server.requests().len()), (2, 1, 6));
    assert_eq!(summary.calls.failures.get(&Kind::Refused), Some(&2));
}

#[test]
fn failures_are_no_ties_and_are_asked_again_on_request_only() {
    // Prompt 0: a tie. 1: no scores in either order. 2: no scores when A is first. Others: A wins.
    let act = |request: &Request| match (request.between("request"), request.first()) {
        ("Question 0?", _) => say(7, 7),
        ("Question 1?", _) | ("Question 2?", "good 2") => Act::Say("I would rather not.".to_owned()),
        _ => fair(request),
    };
    let server = Server::start(act);
    let judging = Judging::new(some_pairs(5));
    judging.go(&server, &Asking::default()).unwrap();
    // Three calls without scores are asked once more.
    assert_eq!(server.requests().len(), 13);
    let summary = judging.summary();
    assert_eq!((summary.win, summary.tie, summary.lose), (3, 1, 0));
    assert_eq!((summary.prompts, summary.judged, summary.unjudged, summary.one_sided), (5, 4, 1, 1));
    assert_eq!(summary.win_tie_rate.unwrap().mean, 1.0);
    assert_eq!(summary.win_rate.unwrap().mean, 0.75);
    assert_eq!((summary.calls.needed, summary.calls.verdicts, summary.calls.failed()), (10, 7, 3));
    assert_eq!(summary.calls.spent.tokens_out, 130);
    assert_eq!(summary.position.unwrap().pairs, 3);

    let again = judging.go(&server, &Asking::default()).unwrap();
    assert_eq!((again.asked, server.requests().len()), (0, 13));
    let kinder = Server::start(fair);
    let retry = Asking { retry_failed: true, ..Asking::default() };
    assert_eq!(judging.go(&kinder, &retry).unwrap().asked, 3);
    assert_eq!(kinder.requests().len(), 3);
    let summary = judging.summary();
    assert_eq!((summary.win, summary.tie, summary.unjudged, summary.calls.failed()), (4, 1, 0, 0));
    // What the failures took is not forgotten.
    assert_eq!(summary.calls.spent.tokens_out, 160);
}

#[test]
fn no_more_calls_at_once_than_allowed() {
    let server = Server::start(|request| {
        std::thread::sleep(Duration::from_millis(30));
        fair(request)
    });
    let judging = Judging::new(some_pairs(15));
    judging.go(&server, &Asking { concurrency: 3, ..Asking::default() }).unwrap();
    assert_eq!((server.requests().len(), server.most()), (30, 3));
}

/// Stops after some verdicts.
struct After(usize, std::sync::atomic::AtomicUsize);

impl Watch for After {
    fn done(&self, _: &Verdict) {
        self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }

    fn stop(&self) -> bool {
        self.1.load(std::sync::atomic::Ordering::SeqCst) >= self.0
    }
}

#[test]
fn a_stopped_run_goes_on_and_pays_for_nothing_twice() {
    let server = Server::start(fair);
    let judging = Judging::new(some_pairs(12));
    let all = calls(&judging.pairs, &BOTH);
    let outcome =
        ask(&all, &client(&server), &mut judging.store(), &Asking::default(), &After(7, 0.into()))
            .unwrap();
    assert!(outcome.stopped && (7..15).contains(&outcome.asked), "{outcome:?}");
    assert_eq!(server.requests().len(), outcome.asked);
    // A run that was killed left half a line.
    let path = judging.folder.path().join("v.jsonl");
    let whole = judging.text();
    fs::write(&path, format!("{whole}{{\"id\":\"p11\",\"order\":\"ba\",\"sco")).unwrap();
    assert_eq!(judging.go(&server, &Asking::default()).unwrap().asked, 24 - outcome.asked);
    assert_eq!(server.paid(), [1; 24]);
    assert_eq!(judging.lines().len(), 24);
    assert!(judging.text().starts_with(&whole));

    // An answer that changed is judged anew, the others are not.
    let mut changed = Judging { folder: judging.folder, pairs: judging.pairs };
    changed.pairs[3].a = "good, but different".to_owned();
    assert_eq!(changed.go(&server, &Asking::default()).unwrap().asked, 2);
    // The answers the other way round are the same calls.
    changed.pairs.iter_mut().for_each(|pair| std::mem::swap(&mut pair.a, &mut pair.b));
    assert_eq!(changed.go(&server, &Asking::default()).unwrap().asked, 0);
    assert_eq!(changed.summary().lose, 12);
}

#[test]
fn files_that_are_not_this_judges_are_left_alone() {
    let server = Server::start(fair);
    let judging = Judging::new(some_pairs(1));
    judging.go(&server, &Asking::default()).unwrap();
    let path = judging.folder.path().join("v.jsonl");
    let written = judging.text();
    let refused = |identity: &Identity| Store::open(&path, identity).unwrap_err().to_string();
    let error = refused(&Identity { model: "other".to_owned(), ..identity() });
    assert!(
        error.ends_with("v.jsonl:1: written with model judge, this run has other: name another file"),
        "{error}"
    );
    let error = refused(&Identity { form: "0".to_owned(), ..identity() });
    assert!(error.contains("written with form"), "{error}");
    assert!(
        refused(&Identity { temperature: None, ..identity() }).contains("written with temperature 0")
    );
    assert!(
        refused(&Identity { seed: Some(1), ..identity() })
            .contains("written with seed none, this run has 1")
    );
    let store = judging.store();
    assert!(matches!(Store::open(&path, &identity()), Err(Error::Locked { .. })));
    drop(store);
    assert_eq!(judging.text(), written);

    for text in [
        "{\"id\": \"a\", \"prompt\": \"p\", \"response\": \"r\"}\n",
        "{\"id\":\"a\",\"prompt\":\"p\",\"response\":\"r\"}",
        "my notes",
        "{\n  \"pretty\": 1\n}\n",
    ] {
        fs::write(&path, text).unwrap();
        let error = refused(&identity());
        assert!(error.contains("v.jsonl:1: not a verdict of `judge`"), "{error}");
        assert_eq!(judging.text(), text);
    }
    // A last line that is whole, only not ended, is kept.
    fs::write(&path, written.trim_end()).unwrap();
    assert_eq!(judging.go(&server, &Asking::default()).unwrap().asked, 0);
    assert_eq!(judging.text(), written);
}
