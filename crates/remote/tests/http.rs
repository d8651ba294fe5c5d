//! Rewards from HTTP servers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stackelberg_engine::Prompt;
use stackelberg_engine::reward::{RewardFormat, TextReward};
use stackelberg_remote::{HttpReward, Key};

use crate::exchanges;
use crate::server::{plain_text, server};

const TIMEOUT: Duration = Duration::from_secs(5);

fn http(address: &str) -> TextReward {
    TextReward::new(HttpReward::new(address, None, TIMEOUT).unwrap())
}

#[test]
fn each_protocol_is_spoken() {
    let prompt = Prompt::Text("why?".to_owned());
    let ask = |path: &str, reply: Value| {
        let (address, seen) = server(move |_, _| (200, reply.to_string()));
        let found = http(&format!("{address}{path}")).score(&exchanges(&prompt, &["a", "bb"]));
        let sent = seen.lock().unwrap()[0].body.clone();
        (found.map_err(|e| e.to_string()), sent)
    };
    let laid_out = json!(["\n\nHuman: why?\n\nAssistant: a", "\n\nHuman: why?\n\nAssistant: bb"]);
    // In any order.
    let scores = json!({"data": [{"index": 1, "score": 2.0}, {"index": 0, "score": 1.0}]});
    let (found, sent) = ask("/score?model=m", scores);
    assert_eq!(found.unwrap(), [1.0, 2.0]);
    let asked = json!({"text_1": ["why?", "why?"], "text_2": ["a", "bb"]});
    assert_eq!((&sent["model"], &sent["text_1"]), (&json!("m"), &asked["text_1"]));
    assert_eq!((&sent["text_2"], &sent["use_activation"]), (&asked["text_2"], &json!(false)));
    let (found, sent) = ask("/pooling", json!({"data": [{"data": [[0.0], [3.0]]}, {"data": [4.5]}]}));
    let raw = json!({"input": laid_out.clone(), "use_activation": false});
    assert_eq!((found.unwrap(), sent), (vec![3.0, 4.5], raw));
    let two = json!({"data": [{"label": "good", "probs": [-0.25, 0.75]}, {"label": "bad", "probs": [0.9, 0.1]}]});
    assert_eq!(ask("/classify#good", two.clone()).0.unwrap(), [0.75, 0.1]);
    assert_eq!(ask("/classify#0", two.clone()).0.unwrap(), [-0.25, 0.9]);
    assert!(
        ask("/classify", two).0.unwrap_err().contains("tells 2 labels apart: choose one by its number")
    );
    let labels = |a: f64| json!([{"label": "good", "score": a}, {"label": "bad", "score": -a}]);
    let (found, sent) = ask("/predict#bad", json!([labels(1.5), labels(-2.0)]));
    assert_eq!(found.unwrap(), [-1.5, 2.0]);
    assert_eq!(sent["inputs"], json!([[laid_out[0]], [laid_out[1]]]));
    assert_eq!((&sent["truncate"], &sent["truncation_direction"]), (&json!(true), &json!("Left")));
    let error = ask("/predict#odd", json!([labels(1.0), labels(1.0)])).0.unwrap_err();
    assert!(error.contains("knows the labels good, bad: choose one, behind a '#'"), "{error}");
    let (found, sent) = ask("/rerank", json!([{"index": 1, "score": 0.5}, {"index": 0, "score": -0.5}]));
    assert_eq!(found.unwrap(), [-0.5, 0.5]);
    assert_eq!((&sent["query"], &sent["texts"]), (&json!("why?"), &json!(["a", "bb"])));
    // Texts that are too long lose their start, not the answer at their end.
    assert_eq!(sent["truncation_direction"], "Left");
}

/// What vLLM 0.32.0 answered to these requests, shortened: without `use_activation` it gave 0.311 and 0.860.
#[test]
fn rewards_of_vllm_are_raw() {
    let texts = ["The capital of France is Paris.", "Bad answer"];
    let ask = |path: &str, row: fn(f64) -> Value| {
        let (address, seen) = server(move |_, body| {
            let raw = body["use_activation"] == json!(false);
            let logits = [-0.7951135039329529_f64, 1.813770055770874];
            let shown = logits.map(|x| if raw { x } else { 1.0 / (1.0 + (-x).exp()) });
            (200, json!({"object": "list", "data": shown.map(row)}).to_string())
        });
        let found = http(&format!("{address}{path}")).score_texts(&texts).unwrap();
        assert_eq!(seen.lock().unwrap()[0].body["input"], json!(texts));
        found
    };
    let classified = ask("/classify", |x| json!({"label": "LABEL_0", "probs": [x], "num_classes": 1}));
    assert_eq!(classified, [-0.7951135039329529, 1.813770055770874]);
    let pooled = ask("/pooling", |x| json!({"object": "pooling", "data": [x]}));
    assert_eq!(pooled, classified);
}

#[test]
fn templated_text_gets_no_second_beginning() {
    let (address, seen) = server(|_, body| {
        let rows: Vec<Value> =
            body["input"].as_array().unwrap().iter().map(|_| json!({"data": [1.0]})).collect();
        (200, json!({"data": rows}).to_string())
    });
    let templated = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi";
    let texts = ["plain", templated, "<s>[INST] Hi [/INST]", "<| no token |>"];
    assert_eq!(http(&format!("{address}/pooling")).score_texts(&texts).unwrap(), [1.0; 4]);
    let seen = seen.lock().unwrap();
    let sent: Vec<_> = seen
        .iter()
        .map(|request| (&request.body["input"], &request.body["add_special_tokens"]))
        .collect();
    let (plain, begun, odd) = (json!(["plain"]), json!(texts[1..3]), json!([texts[3]]));
    assert_eq!(sent, [(&plain, &Value::Null), (&begun, &json!(false)), (&odd, &Value::Null)]);
}

#[test]
fn unknown_labels_are_refused_by_name() {
    let prompt = Prompt::Text("Hi".to_owned());
    // "ab" is good, "abc" is bad.
    let row = |text: &Value| match text.as_str().unwrap().len() % 2 {
        0 => json!({"label": "good", "probs": [-1.0, 2.0], "num_classes": 2}),
        _ => json!({"label": "bad", "probs": [3.0, -4.0], "num_classes": 2}),
    };
    let (address, _) = server(move |_, body| {
        let rows: Vec<Value> = body["input"].as_array().unwrap().iter().map(row).collect();
        (200, json!({"data": rows}).to_string())
    });
    let ask = |label: &str, answers: &[&str]| {
        let reward = http(&format!("{address}/classify{label}")).with_format(RewardFormat::Answer);
        let found = reward.unwrap().score(&exchanges(&prompt, answers));
        found.map_err(|error| error.to_string().replace(&address, "S"))
    };
    assert_eq!(ask("#good", &["ab", "abc"]), Ok(vec![2.0, -4.0]));
    assert_eq!(ask("#bad", &["ab", "abc"]), Ok(vec![-1.0, 3.0]));
    assert_eq!(ask("#1", &["abc"]), Ok(vec![-4.0]));
    let error = ask("#god", &["ab", "abc"]).unwrap_err();
    assert_eq!(error, "S/classify: has no label 'god': it has bad (#0), good (#1)");
    // The other label's name is not known yet, so a misspelt one cannot be told from it.
    let error = ask("#bda", &["ab"]).unwrap_err();
    assert!(error.contains("has not named a label 'bda' so far, but good (#1) of 2 labels"), "{error}");
    let error = ask("#2", &["ab"]).unwrap_err();
    assert!(error.contains("has no label 2: it tells 2 labels apart"), "{error}");
    for (path, said) in
        [("/score#a", "/score has no labels"), ("/pooling#a", "/pooling names no labels")]
    {
        let error =
            HttpReward::new(&format!("http://h{path}"), None, TIMEOUT).err().unwrap().to_string();
        assert!(error.contains(said), "{error}");
    }
    let (address, _) = server(|_, _| (200, json!([[{"label": "only", "score": 1.0}]]).to_string()));
    let error = http(&format!("{address}/predict#onyl")).score(&exchanges(&prompt, &["a"])).unwrap_err();
    assert!(error.to_string().contains("knows the labels only"), "{error}");
}

#[test]
fn keys_in_queries_are_sent_and_never_shown() {
    let prompt = Prompt::Text("why?".to_owned());
    let (address, seen) = server(|number, _| match number {
        0 => (200, json!({"data": [{"score": 1.5}]}).to_string()),
        _ => (401, "{\"error\": \"the key sk/5 is bad\"}".to_owned()),
    });
    let reward = http(&format!("{address}/score?api_key=sk%2F5&model=m"));
    assert_eq!(reward.score(&exchanges(&prompt, &["a"])).unwrap(), [1.5]);
    let error = reward.score(&exchanges(&prompt, &["a"])).unwrap_err().to_string();
    let shown = format!("{address}/score?api_key=***: 401 Unauthorized: the key [key] is bad");
    assert_eq!(error, shown);
    let seen = seen.lock().unwrap();
    assert!(seen[0].head.starts_with("POST /score?api_key=sk%2F5 HTTP/1.1"), "{}", seen[0].head);
    assert_eq!(seen[0].body["model"], "m");
    // A short password may be part of a score.
    let (address, _) = server(|_, _| (200, json!({"data": [{"score": 1.5}]}).to_string()));
    let address = address.replace("http://", "http://me:5@");
    assert_eq!(http(&format!("{address}/score")).score(&exchanges(&prompt, &["a"])).unwrap(), [1.5]);
}

#[test]
fn servers_that_fail_are_asked_again_and_then_named() {
    let prompt = Prompt::Text("why?".to_owned());
    let good = || json!({"data": [{"index": 0, "score": 1.0}]}).to_string();
    let (address, seen) = server(move |number, _| match number {
        0 => (503, "busy".to_owned()),
        1 => (429, String::new()),
        _ => (200, good()),
    });
    assert_eq!(http(&format!("{address}/score")).score(&exchanges(&prompt, &["a"])).unwrap(), [1.0]);
    assert_eq!(seen.lock().unwrap().len(), 3);

    let refused = |status: u16, body: &'static str| {
        let (address, seen) = server(move |_, _| (status, body.to_owned()));
        let error = http(&format!("{address}/score")).score(&exchanges(&prompt, &["a"])).unwrap_err();
        let tries = seen.lock().unwrap().len();
        (error.to_string().replace(&address, "S"), tries)
    };
    let (error, tries) = refused(401, "no key");
    assert!(error.starts_with("S/score: 401 Unauthorized: no key") && tries == 1, "{error}");
    let (error, tries) = refused(200, "<html>");
    assert!(error == "S/score: answered '<html>' where JSON is expected" && tries == 1, "{error}");
    assert!(refused(200, "{\"data\": []}").0.contains("where a list of 1 scores is expected"));
    assert!(
        refused(200, "{\"data\": [{\"score\": null}]}").0.contains("where a finite score is expected")
    );
    assert!(refused(200, "{\"data\": [{\"index\": 7, \"score\": 1.0}]}").0.contains("an index below 1"));
    let error = HttpReward::new("http://localhost/embed", None, TIMEOUT).err().unwrap().to_string();
    assert!(error.contains("the address must end with one of /classify, /score,"), "{error}");
}

/// The error of a request to this address, without the address, and how long it took.
fn refused(address: &str) -> (String, Duration) {
    let prompt = Prompt::Text("why?".to_owned());
    let began = Instant::now();
    let error = http(address).score(&exchanges(&prompt, &["a"])).unwrap_err().to_string();
    (error.replace(address, "S"), began.elapsed())
}

#[test]
fn hopeless_requests_fail_at_once_in_one_line() {
    for status in [400, 402, 403, 404, 405, 413, 422, 424] {
        let (address, seen) = server(move |_, _| (status, "{\"error\": \"no\\nway\"}".to_owned()));
        let (error, _) = refused(&format!("{address}/score"));
        assert!(error.starts_with(&format!("S: {status} ")) && error.ends_with(": no way"), "{error}");
        assert_eq!(seen.lock().unwrap().len(), 1, "{status}");
    }
    for status in [408, 409, 425, 429, 500, 503] {
        let (address, seen) = server(move |number, _| match number {
            0 => (status, String::new()),
            _ => (400, String::new()),
        });
        assert_eq!(refused(&format!("{address}/score")).0, "S: 400 Bad Request, after 2 tries");
        assert_eq!(seen.lock().unwrap().len(), 2, "{status}");
    }
    let (address, seen) = server(|_, _| (307, String::new()));
    let (error, _) = refused(&format!("{address}/score"));
    assert_eq!(
        error,
        "S: 307 Temporary Redirect: it says to go to http://***@elsewhere/score: give that address"
    );
    assert_eq!(seen.lock().unwrap().len(), 1);

    // The server does not speak TLS.
    let (port, connections) = plain_text();
    let (error, _) = refused(&format!("https://127.0.0.1:{port}/score"));
    assert!(
        error.starts_with("S: ") && !error.contains("tries") && error.lines().count() == 1,
        "{error}"
    );
    assert_eq!(*connections.lock().unwrap(), 1);

    // No label of a host name has more than 63 characters.
    let host = "x".repeat(64);
    let (error, took) = refused(&format!("http://{host}.localhost/score"));
    assert!(error.contains("dns error") && !error.contains("tries"), "{error}");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_server_that_is_not_there_yet_is_asked_again() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let (error, took) = refused(&format!("http://127.0.0.1:{port}/score"));
    assert!(error.contains("refused") && error.ends_with(", after 5 tries"), "{error}");
    assert!(took > Duration::from_secs(3), "{took:?}");
}

#[test]
fn keys_are_sent_and_never_shown() {
    let prompt = Prompt::Text("why?".to_owned());
    let asked = |user: &str, key: Option<Key>| {
        let said = "{\"error\": \"the key sk-secret is bad\"}".to_owned();
        let (address, seen) = server(move |_, _| (401, said.clone()));
        let address = address.replace("http://", &format!("HTTP://{user}"));
        let reward = HttpReward::new(&format!("{address}/score"), key, TIMEOUT).unwrap();
        let error = TextReward::new(reward).score(&exchanges(&prompt, &["a"])).unwrap_err().to_string();
        let head = seen.lock().unwrap()[0].head.clone();
        (head, error)
    };
    let (head, error) = asked("", Some(Key::new("sk-secret\n")));
    assert!(head.contains("authorization: Bearer sk-secret\r\n"), "{head}");
    assert!(head.contains("user-agent: stackelberg/"), "{head}");
    assert!(error.ends_with(": 401 Unauthorized: the key [key] is bad"), "{error}");
    let (head, error) = asked("me:sk-secret@", None);
    // Base64 of me:sk-secret.
    assert!(head.contains("authorization: Basic bWU6c2stc2VjcmV0\r\n"), "{head}");
    assert!(error.starts_with("http://***@127.0.0.1:") && !error.contains("secret"), "{error}");
    let (head, _) = asked("", Some(Key::new(" ")));
    assert!(!head.contains("authorization"), "{head}");
}

#[test]
fn addresses_and_keys_that_cannot_be_sent_are_refused() {
    let new = |address: &str, key: Option<&str>| {
        HttpReward::new(address, key.map(Key::new), TIMEOUT).err().unwrap().to_string()
    };
    let error = new("http://localhost/score", Some("two\nlines"));
    assert!(error.starts_with("http://localhost/score: key: it holds characters"), "{error}");
    assert!(!error.contains("two"), "{error}");
    let error = new("http://me:secret@localhost/score", Some("sk"));
    assert!(
        error.starts_with("http://***@localhost/score: key: ") && !error.contains("secret"),
        "{error}"
    );
    for address in
        ["http://me:sec#ret@host/score", "http://me:secret@host/embed", "ftp://me:secret@host/score"]
    {
        let error = new(address, None);
        assert!(error.contains("://***@host/") && !error.contains("sec"), "{error}");
    }
    assert!(HttpReward::is_address("HTTPS://host/score") && !HttpReward::is_address("org/model"));
}
