//! The check of reward servers at the start, and servers that are asked together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stackelberg_engine::Prompt;
use stackelberg_engine::reward::{RewardFormat, TextReward, TextScorer};
use stackelberg_remote::HttpReward;

use crate::exchanges;
use crate::server::{Request, server};

type Seen = Arc<Mutex<Vec<Request>>>;

fn reward(address: &str) -> HttpReward {
    HttpReward::new(address, None, Duration::from_secs(5)).unwrap()
}

/// The warnings of a check or its error, without the address, and the number of requests.
fn check(
    path: &str,
    reply: impl Fn(usize, &Value) -> (u16, String) + Send + 'static,
) -> (Result<Vec<String>, String>, usize, Seen) {
    let (address, seen) = server(reply);
    let shown = |text: String| text.replace(&address, "S");
    let found = reward(&format!("{address}{path}")).check();
    let found = found.map(|check| check.warnings.into_iter().map(shown).collect());
    let n = seen.lock().unwrap().len();
    (found.map_err(|error| shown(error.to_string())), n, seen)
}

/// The lengths of texts as logits, in the shape of `/classify`, behind a sigmoid where one is asked for.
fn lengths(body: &Value, scale: f64, always: bool) -> (u16, String) {
    let logit = |text: &Value| (text.as_str().unwrap_or_default().len() as f64 - 80.0) * scale;
    let applies = always || body["use_activation"] != json!(false);
    let number = |x: f64| if applies { 1.0 / (1.0 + (-x).exp()) } else { x };
    let row = |(i, text): (usize, &Value)| json!({"index": i, "label": "LABEL_0", "probs": [number(logit(text))]});
    let rows: Vec<Value> = body["input"].as_array().into_iter().flatten().enumerate().map(row).collect();
    (200, json!({"data": rows}).to_string())
}

#[test]
fn a_raw_reward_takes_one_request() {
    let (found, requests, seen) = check("/classify", |_, body| lengths(body, 0.1, false));
    assert_eq!((found, requests), (Ok(vec![]), 1));
    let body = seen.lock().unwrap()[0].body.clone();
    assert_eq!(body["input"].as_array().map(Vec::len), Some(2));
    assert_eq!(body["use_activation"], json!(false));
}

#[test]
fn a_sigmoid_is_noticed() {
    let (found, requests, seen) = check("/classify", |_, body| lengths(body, 0.1, true));
    let warnings = found.unwrap();
    assert_eq!((warnings.len(), requests), (1, 2));
    assert!(warnings[0].starts_with("S/classify: seems to apply a sigmoid or softmax"), "{warnings:?}");
    assert!(warnings[0].contains("use_activation: false"), "{warnings:?}");
    assert_eq!(seen.lock().unwrap()[1].body["use_activation"], json!(true));
    // Raw scores between 0 and 1 differ from those behind a sigmoid.
    let small = |body: &Value| {
        let (status, text) = lengths(body, 0.001, body["use_activation"] == json!(true));
        (status, text.replace("-0.", "0."))
    };
    let (found, requests, _) = check("/classify", move |_, body| small(body));
    assert_eq!((found, requests), (Ok(vec![]), 2));
    // A server that refuses to apply one gives raw scores.
    let (found, requests, _) =
        check("/classify", move |_, body| match body["use_activation"] == json!(true) {
            true => (400, "use_activation is not supported".to_owned()),
            false => small(body),
        });
    assert_eq!((found, requests), (Ok(vec![]), 2));
    // Two labels behind a softmax that saturates.
    let (found, _, _) = check("/classify#1", |_, _| {
        let rows = [[1.0, 0.0], [0.25, 0.75]].map(|row| json!({"label": "a", "probs": row}));
        (200, json!({"data": rows}).to_string())
    });
    assert!(found.unwrap()[0].contains("seems to apply a sigmoid or softmax"));
}

#[test]
fn odd_rewards_are_noticed_or_refused() {
    let scores = |scores: Value| move |_: usize, _: &Value| (200, json!({"data": scores}).to_string());
    let (found, requests, _) = check("/score", scores(json!([{"score": 2.5}, {"score": 2.5}])));
    let warnings = found.unwrap();
    assert_eq!((warnings.len(), requests), (1, 1));
    assert!(warnings[0].contains("two different texts the same score, 2.500"), "{warnings:?}");
    for (odd, said) in [
        (json!([{"score": 1.0}]), "a list of 2 scores"),
        (json!([{"score": 1.0}, {"score": "2.0"}]), "a finite score"),
        (json!([{"score": 1.0}, {"score": null}]), "a finite score"),
        (
            json!([{"index": 0, "score": 1.0}, {"index": 0, "score": 1.0}]),
            "an index below 2, each once,",
        ),
        (json!("none"), "a list of 2 scores"),
    ] {
        let (found, requests, _) = check("/score", scores(odd));
        let error = found.unwrap_err();
        assert!(error.starts_with("S/score: answered '") && error.contains(said), "{error}");
        assert_eq!((requests, error.lines().count()), (1, 1), "{error}");
    }
    let (found, _, _) = check("/score", |_, _| (200, "{\"data\": [{\"score\": NaN}]}".to_owned()));
    assert!(found.unwrap_err().contains("where JSON is expected"));
    let (found, requests, _) = check("/score", |_, _| (401, "no key".to_owned()));
    assert_eq!((found, requests), (Err("S/score: 401 Unauthorized: no key".to_owned()), 1));
    let (found, _, _) = check("/classify#3", |_, body| lengths(body, 0.1, false));
    assert!(found.unwrap_err().contains("has no label 3: it tells 1 labels apart"));
    let began = Instant::now();
    let error = reward("http://127.0.0.1:9/score").check().unwrap_err().to_string();
    assert!(
        error.starts_with("http://127.0.0.1:9/score: ") && error.ends_with(", after 5 tries"),
        "{error}"
    );
    assert!(began.elapsed() < Duration::from_secs(15));
}

/// A label's name that neither answer shows may be that of the other label.
#[test]
fn names_of_labels_are_refused_only_if_all_are_known() {
    let row = |label: &str, probs: [f64; 2]| json!({"label": label, "probs": probs});
    let same = move |_: usize, _: &Value| {
        (200, json!({"data": [row("bad", [3.0, -4.0]), row("bad", [5.0, 1.0])]}).to_string())
    };
    assert_eq!(check("/classify#good", same).0, Ok(vec![]));
    let both = move |_: usize, _: &Value| {
        (200, json!({"data": [row("bad", [3.0, -4.0]), row("good", [-5.0, 1.0])]}).to_string())
    };
    assert_eq!(check("/classify#good", both).0, Ok(vec![]));
    let error = check("/classify#god", both).0.unwrap_err();
    assert_eq!(error, "S/classify: has no label 'god': it has bad (#0), good (#1)");
}

/// Servers with the same path that want other fields are found out, and asked so from then on.
#[test]
fn the_protocol_is_found_out() {
    let prompt = Prompt::Text("why?".to_owned());
    let format = RewardFormat::Hh;
    let lacks = |field: &str| (400, format!("{{\"error\": {{\"message\": \"{field} is missing\"}}}}"));
    // SGLang's /classify has `text`.
    let (address, seen) = server(move |_, body| match body["text"].as_array() {
        Some(texts) => {
            let row = |text: &Value| json!({"embedding": [text.as_str().unwrap().len() as f64], "meta_info": {}});
            (200, Value::from(texts.iter().map(row).collect::<Vec<_>>()).to_string())
        }
        None => lacks("text"),
    });
    let found = reward(&format!("{address}/classify"));
    assert!(found.check().unwrap().warnings.is_empty());
    assert_eq!(seen.lock().unwrap().len(), 2);
    let rewards = found.score(&exchanges(&prompt, &["a", "bbb"]), format).unwrap();
    assert_eq!(rewards[1] - rewards[0], 2.0);
    assert_eq!(seen.lock().unwrap().len(), 3);
    let said = found.about();
    assert!(
        said[0].0 == "server" && said[0].1.starts_with("the protocol of SGLang, scores "),
        "{said:?}"
    );
    // SGLang's /v1/score joins `query` and each of `items`.
    let (address, _) = server(move |_, body| match body["items"].as_array() {
        Some(items) => {
            let length = |item: &Value| {
                [(body["query"].as_str().unwrap().len() + item.as_str().unwrap().len()) as f64]
            };
            (200, json!({"scores": items.iter().map(length).collect::<Vec<_>>()}).to_string())
        }
        None => lacks("query"),
    });
    let found = reward(&format!("{address}/v1/score"));
    assert!(found.check().unwrap().warnings.is_empty());
    let whole = format.lay_out(exchanges(&prompt, &["bbb"])[0]).len() as f64;
    assert_eq!(found.score(&exchanges(&prompt, &["a", "bbb"]), format).unwrap(), [whole - 2.0, whole]);
    // vLLM's /rerank has `documents`, and sorts them.
    let (address, _) = server(move |_, body| match body["documents"].as_array() {
        Some(texts) => {
            let row = |(i, text): (usize, &Value)| json!({"index": i, "relevance_score": text.as_str().unwrap().len()});
            let mut rows: Vec<Value> = texts.iter().enumerate().map(row).collect();
            rows.sort_by_key(|row| std::cmp::Reverse(row["relevance_score"].as_u64()));
            (200, json!({"results": rows}).to_string())
        }
        None => lacks("documents"),
    });
    let found = reward(&format!("{address}/rerank"));
    assert!(found.check().unwrap().warnings.is_empty());
    assert_eq!(found.score(&exchanges(&prompt, &["a", "bbb", "cc"]), format).unwrap(), [1.0, 3.0, 2.0]);
    // One that understands neither says so of both.
    let (found, requests, _) = check("/classify", move |_, _| lacks("everything"));
    let error = found.unwrap_err();
    assert!(
        error.starts_with(
            "asked as vLLM: S/classify: 400 Bad Request: everything is missing; asked as SGLang: S"
        ),
        "{error}"
    );
    assert_eq!(requests, 2);
}

/// The server lays messages out in its model's chat template: as a complete conversation, or to be continued.
#[test]
fn conversations_are_sent_as_messages() {
    let prompt = Prompt::Text("What is the capital of France?".to_owned());
    for (format, continues, expected) in [
        (RewardFormat::Closed, false, 0.4349253177642822),
        (RewardFormat::Chat, true, 1.1457781791687012),
    ] {
        // What vLLM 0.32 answered to these messages.
        let (address, seen) = server(move |_, body| {
            let same = body["messages"][1] == json!({"role": "assistant", "content": "Paris."});
            let number = if same { expected } else { 9.0 };
            let row = json!({"index": 0, "label": "LABEL_0", "probs": [number], "num_classes": 1});
            (200, json!({"data": [row]}).to_string())
        });
        let found = TextReward::new(reward(&format!("{address}/classify"))).with_format(format).unwrap();
        let rewards = found.score(&exchanges(&prompt, &["Paris.", "London."])).unwrap();
        assert_eq!(rewards, [expected, 9.0]);
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 2);
        let first =
            &seen.iter().find(|one| one.body["messages"][1]["content"] == "Paris.").unwrap().body;
        assert_eq!(
            first["messages"][0],
            json!({"role": "user", "content": "What is the capital of France?"})
        );
        let options = ["add_generation_prompt", "continue_final_message", "use_activation"];
        assert_eq!(options.map(|option| first[option] == json!(true)), [false, continues, false]);
    }
    let refused = TextReward::new(reward("http://127.0.0.1:9/score")).with_format(RewardFormat::Chat);
    assert!(refused.err().unwrap().to_string().contains("does not read chat text"));
}

/// Several servers share the texts. One that fails is left out, and no score is lost or mixed up.
#[test]
fn several_servers_share_the_work() {
    let broken = Arc::new(AtomicBool::new(false));
    let fails = broken.clone();
    // A model takes time, in which the other server is the less busy one.
    let answer = |body: &Value| {
        std::thread::sleep(Duration::from_millis(5));
        lengths(body, 1.0, false)
    };
    let (one, seen_one) = server(move |_, body| match fails.load(Ordering::SeqCst) {
        true => (503, "out of memory".to_owned()),
        false => answer(body),
    });
    let (two, seen_two) = server(move |_, body| answer(body));
    let found = reward(&format!("{one}/classify, {two}/classify"));
    assert!(found.check().unwrap().warnings.is_empty());
    let texts: Vec<String> = (0..1000).map(|n| "x".repeat(n % 97)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let expected: Vec<f64> = texts.iter().map(|text| text.len() as f64 - 80.0).collect();
    let found = TextReward::new(found);
    assert_eq!(found.score_texts(&texts).unwrap(), expected);
    let counts = || [&seen_one, &seen_two].map(|seen| seen.lock().unwrap().len());
    // 1,000 texts are 32 requests.
    assert!(counts().iter().all(|&n| n > 8) && counts().iter().sum::<usize>() == 34, "{:?}", counts());
    broken.store(true, Ordering::SeqCst);
    assert_eq!(found.score_texts(&texts).unwrap(), expected);
    broken.store(false, Ordering::SeqCst);
    let before = counts()[0];
    let since = Instant::now();
    while counts()[0] < before + 5 {
        assert!(since.elapsed() < Duration::from_secs(30), "the server is not asked again");
        assert_eq!(found.score_texts(&texts).unwrap(), expected);
    }
}

#[test]
fn servers_of_one_reward_must_be_alike() {
    let (one, _) = server(|_, body| lengths(body, 1.0, false));
    let (other, _) = server(|_, body| lengths(body, 2.0, false));
    let error = reward(&format!("{one}/classify,{other}/classify")).check().unwrap_err().to_string();
    assert!(error.starts_with(&format!("{other}/classify: scores a text ")), "{error}");
    assert!(error.ends_with("servers of one reward must have one model"), "{error}");
    let refused = |addresses: &str| {
        HttpReward::new(addresses, None, Duration::from_secs(1)).err().unwrap().to_string()
    };
    assert!(refused("http://a/score,http://b/classify").contains("let the addresses end alike"));
    assert!(
        refused("http://a/score?model=m,http://u:secret@b/score").contains("give each the same ?model=")
    );
    assert!(!refused("http://a/score?model=m,http://u:secret@b/score").contains("secret"));
    assert!(refused("http://a/score,b/score").contains("a comma separates addresses"));
}
