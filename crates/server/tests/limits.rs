//! What one client can ask for is bounded.

use axum::body::{Body, Bytes};
use futures_util::StreamExt;
use serde_json::{Value, json};
use stackelberg_server::{Config, Limits, Server};

use crate::common::{CONTEXT, block_on, eventually, models, post, server};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

fn limited(limits: Value) -> Config {
    Config { limits: Limits::from_json(&limits.to_string()).unwrap(), ..Config::default() }
}

#[test]
fn limits_are_an_object() {
    for wrong in ["[1, 2]", "[]", "null", "3", "{\"body\": 0.5}", "{\"what\": 1}"] {
        assert!(Limits::from_json(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn limits_are_read_from_json_and_stated() {
    block_on(async {
        let limits =
            json!({"choices": 3, "prompt": 5, "tokens": 7, "logprobs": 40, "samples": 4, "rewards": 2});
        let client = server(limited(limits));
        let prompt = "w1 w2 w3 w4 w5";
        for (path, body, param, most) in [
            (TEXT, json!({"prompt": "w1", "n": 4}), "n", "at most 3"),
            (
                TEXT,
                json!({"prompt": "w1 w2 w3 w4 w5 w6"}),
                "prompt",
                "6 tokens: this server takes at most 5",
            ),
            (TEXT, json!({"prompt": "w1", "max_tokens": 8}), "max_tokens", "at most 7"),
            (
                TEXT,
                json!({"prompt": prompt, "n": 2, "echo": true, "logprobs": 4}),
                "logprobs",
                "50 log-probabilities of prompts: this server writes at most 40",
            ),
            (
                TEXT,
                json!({"prompt": prompt, "n": 3, "prompt_logprobs": 2}),
                "prompt_logprobs",
                "45 log-prob",
            ),
            (
                TEXT,
                json!({"prompt": "w1", "guidance": {"method": "best-of-n", "reward": "head", "samples": 5}}),
                "guidance.samples",
                "at most 4",
            ),
            ("/shape", json!({"rewards": [1, 2, 3]}), "rewards", "at most 2"),
        ] {
            let reply = client.ask(path, body.clone()).await;
            let error = &reply.json()["error"];
            assert_eq!((reply.status, &error["param"]), (400, &json!(param)), "{body}: {error}");
            assert!(error["message"].as_str().unwrap().contains(most), "{body}: {error}");
        }
        client.good(TEXT, json!({"prompt": prompt, "n": 2, "prompt_logprobs": 3})).await;
    });
    for (limits, message) in [
        (json!({"choices": 0}), "the limit choices is 0: it must be between 1 and"),
        (json!({"tokens": 1u64 << 31}), "the limit tokens is 2147483648: it must be between 1 and"),
        (json!({"body": 100, "bodies": 99}), "the limit bodies is 99: it must be at least body, 100"),
    ] {
        let error = Server::new(limited(limits), models()).err().expect("it is refused").to_string();
        assert!(error.starts_with(message), "{error}");
    }
    for wrong in [json!({"choice": 1}), json!({"choices": -1}), json!({"sequences": 3})] {
        assert!(serde_json::from_value::<Limits>(wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn limits_bind_the_defaults_of_methods() {
    block_on(async {
        let client = server(limited(json!({"samples": 2, "block": 4, "candidates": 3})));
        for (method, setting, most) in [
            ("best-of-n", "samples", 2),
            ("blockwise", "samples", 2),
            ("blockwise", "block", 4),
            ("args", "candidates", 3),
        ] {
            let guidance = json!({"method": method, "reward": "head"});
            let body =
                json!({"prompt": "w1", "max_tokens": 8, "ignore_eos": true, "guidance": guidance});
            let answer = client.good(TEXT, body).await.json();
            let found = &answer["choices"][0]["guidance"]["settings"][setting];
            assert_eq!(found, &json!(most), "{method}: {answer}");
            let models = client.get("/v1/models").await.json();
            let methods = models["methods"].as_array().unwrap();
            let about = methods.iter().find(|about| about["name"] == method).unwrap();
            assert_eq!(about["defaults"][setting], json!(most), "{method}: {about}");
        }
    });
}

#[test]
fn what_is_kept_of_an_answer_is_bounded() {
    block_on(async {
        let client = server(limited(json!({"entries": 100})));
        let traced = json!({"method": "args", "reward": "head", "candidates": 5, "trace": true});
        for (mut body, param) in [
            (json!({"guidance": traced}), "guidance.trace"),
            (json!({"logprobs": 4, "n": 2}), "logprobs"),
        ] {
            body["prompt"] = json!("w1");
            body["max_tokens"] = json!(21);
            let reply = client.ask(TEXT, body.clone()).await;
            assert_eq!(
                (reply.status, &reply.json()["error"]["param"]),
                (400, &json!(param)),
                "{}",
                reply.text
            );
            body["max_tokens"] = json!(10);
            client.good(TEXT, body.clone()).await;
            body["max_tokens"] = json!(21);
            body["stream"] = json!(true);
            assert_eq!(client.ask(TEXT, body).await.status, 200);
        }
    });
}

#[test]
fn bodies_share_their_memory() {
    block_on(async {
        let client = server(limited(json!({"body": 1000, "bodies": 1500})));
        // A body that stays half-sent.
        let half = || {
            let first = Bytes::from(vec![b' '; 900]);
            let half = futures_util::stream::iter([Ok::<_, std::io::Error>(first)])
                .chain(futures_util::stream::pending());
            let client = client.clone();
            tokio::spawn(async move { client.post(TEXT, Body::from_stream(half)).await })
        };
        let body = format!("{}{}", " ".repeat(700), json!({"prompt": "w1"}));
        let mut asked = half();
        let mut tries = 0;
        while client.post(TEXT, body.clone()).await.status != 503 {
            // It came while the other had the memory, and was refused.
            if asked.is_finished() {
                asked = half();
            }
            tries += 1;
            assert!(tries < 1000, "there is always room for another");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let reply = client.post(TEXT, body.clone()).await;
        assert_eq!(
            (&reply.json()["error"]["code"], &reply.headers["retry-after"]),
            (&json!("overloaded"), &"1".parse().unwrap())
        );
        // A small one fits, and the client that goes away gives its memory back.
        client.good(TEXT, json!({"prompt": "w1"})).await;
        asked.abort();
        eventually("there is room again", || async {
            client.post(TEXT, body.clone()).await.status == 200
        })
        .await;
        assert_eq!(client.post(TEXT, vec![b' '; 1001]).await.status, 413);
    });
}

#[test]
fn texts_are_refused_before_they_are_tokenized() {
    block_on(async {
        let client = server(Config::default());
        let long = "w1 ".repeat(CONTEXT * 64 / 3 + 1);
        let chat = json!([{"role": "user", "content": long}]);
        for (path, body, param) in [
            (TEXT, json!({"prompt": long}), "prompt"),
            (CHAT, json!({"messages": chat}), "messages"),
            ("/classify", json!({"model": "head", "input": long}), "input"),
            ("/score", json!({"model": "model", "text_1": "w1", "text_2": long}), "text_2"),
            (TEXT, json!({"prompt": vec![1; CONTEXT]}), "prompt"),
        ] {
            let reply = client.ask(path, body).await;
            let error = &reply.json()["error"];
            assert_eq!((reply.status, &error["param"]), (400, &json!(param)), "{error}");
            assert_eq!(error["code"], "context_length_exceeded");
        }
        // One long prompt of many answers is kept and counted once.
        let (prompt, answers) = ("w1 ".repeat(50_000), vec!["1"; 1024]);
        let scores = client
            .good("/score", json!({"model": "ones", "text_1": prompt, "text_2": answers}))
            .await
            .json();
        assert_eq!(scores["data"].as_array().unwrap().len(), 1024);
        assert_eq!(scores["usage"]["prompt_tokens"], 1024 * 50_001);
    });
}

#[test]
fn a_client_that_leaves_before_the_answer_is_counted() {
    block_on(async {
        let client = server(Config::default());
        let body = json!({"prompt": "w1", "max_tokens": 3900, "ignore_eos": true, "n": 8});
        let asked = tokio::spawn({
            let client = client.clone();
            async move { client.send(post(TEXT, body.to_string())).await }
        });
        eventually("it runs", || async { client.metric("stackelberg_running").await == 8.0 }).await;
        asked.abort();
        let gone = "stackelberg_http_requests_total{path=\"/v1/completions\",status=\"499\"}";
        eventually("it is counted", || async { client.metric(gone).await == 1.0 }).await;
    });
}

#[test]
fn a_block_that_is_not_the_request_s_is_shortened() {
    block_on(async {
        let limits = Limits::from_json(r#"{"block": 8}"#).unwrap();
        let client = server(Config { limits, ..Config::default() });
        let block = |answer: Value| answer["choices"][0]["guidance"]["settings"]["block"].clone();
        for method in ["blockwise", "particles"] {
            let guidance = json!({"method": method, "reward": "head", "samples": 2});
            let body = json!({"prompt": "w1", "max_tokens": 2, "guidance": guidance});
            assert_eq!(block(client.good(TEXT, body).await.json()), 2);
        }
        let default = json!({"method": "blockwise", "reward": "head", "block": 16, "samples": 2});
        let client = server(Config { default_guidance: Some(default), ..Config::default() });
        let body =
            json!({"prompt": "w1", "max_tokens": 4, "guidance": {"extends": "default", "trace": true}});
        assert_eq!(block(client.good(TEXT, body).await.json()), 4);
        let own =
            json!({"prompt": "w1", "max_tokens": 4, "guidance": {"extends": "default", "block": 8}});
        assert_eq!(client.ask(TEXT, own).await.json()["error"]["param"], "guidance.block");
    });
}

#[test]
fn a_default_with_blocks_answers_short_requests() {
    block_on(async {
        let default = json!({"method": "blockwise", "reward": "head", "samples": 2, "block": 16});
        let client = server(Config { default_guidance: Some(default), ..Config::default() });
        let body = json!({"prompt": "w1", "max_tokens": 3, "ignore_eos": true});
        let answer = client.good(TEXT, body.clone()).await.json();
        assert_eq!(answer["choices"][0]["guidance"]["settings"]["block"], 3);
        let mut own = body;
        own["guidance"] = json!({"extends": "default"});
        let answer = client.good(TEXT, own).await.json();
        assert_eq!(answer["choices"][0]["guidance"]["settings"]["block"], 3);
    });
    for default in [
        json!({"reward": "head", "candidates": 300}),
        json!({"reward": "head", "candidates": 41}),
        json!({"reward": "head", "strength": -1}),
    ] {
        let config = Config { default_guidance: Some(default.clone()), ..Config::default() };
        let error = Server::new(config, models()).err().expect("it is refused").to_string();
        assert!(error.starts_with("default guidance: "), "{default}: {error}");
    }
}
