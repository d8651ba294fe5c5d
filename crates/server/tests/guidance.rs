//! Guidance, chosen per request.

use serde_json::{Value, json};
use stackelberg_server::Config;

use crate::common::{Client, block_on, server};

const TEXT: &str = "/v1/completions";

fn body(guidance: Value) -> Value {
    json!({"prompt": "w4 w5", "max_tokens": 8, "seed": 2, "ignore_eos": true, "guidance": guidance})
}

async fn report(client: &Client, body: Value) -> Value {
    client.good(TEXT, body).await.json()["choices"][0]["guidance"].clone()
}

#[test]
fn a_choice_says_how_it_was_guided() {
    block_on(async {
        let client = server(Config::default());
        let base = report(&client, body(Value::Null)).await;
        assert_eq!((&base["method"], &base["reward"]), (&json!("base"), &Value::Null));
        assert_eq!((&base["kl"], &base["kl_bound"]), (&json!(0.0), &json!(0.0)));
        assert_eq!(base["settings"]["temperature"], 1.0);
        assert!(base["settings"].get("candidates").is_none() && base["settings"]["seed"] == 2);
        assert_eq!((&base["settings"]["max_tokens"], &base["rewards"]), (&json!(8), &json!({})));

        let guided = report(&client, body(json!({"reward": "head*0.5+model", "strength": 1.5}))).await;
        assert_eq!(guided["method"], "args");
        assert_eq!(guided["settings"]["reward"], "head*0.5+model");
        assert_eq!(guided["settings"]["strength"], 1.5);
        let parts = &guided["rewards"];
        let sum = 0.5 * parts["head"].as_f64().unwrap() + parts["model"].as_f64().unwrap();
        assert_eq!(guided["reward"].as_f64().unwrap(), sum);
        assert!(guided["kl"].is_null(), "a greedy choice is no distribution");
        assert_eq!(guided["reward_calls"].as_u64().unwrap() + guided["skipped"].as_u64().unwrap(), 8);
        assert!(guided["tokens_run"].as_u64().unwrap() >= 8);
        let one = report(&client, body(json!({"reward": "head"}))).await;
        assert_eq!(one["rewards"], json!({"head": one["reward"]}));
    });
}

#[test]
fn guidance_may_be_given_in_three_places() {
    block_on(async {
        let client = server(Config::default());
        let guidance = json!({"reward": "model", "strength": 3.0});
        let plain = client.good(TEXT, body(guidance.clone())).await.json();
        for (name, value) in [
            ("extra_body", json!({"guidance": guidance})),
            ("vllm_xargs", json!({"guidance": guidance})),
            ("vllm_xargs", json!({"guidance": guidance.to_string()})),
        ] {
            let mut other = body(Value::Null);
            other[name] = value;
            assert_eq!(client.good(TEXT, other).await.json()["choices"], plain["choices"], "{name}");
        }
    });
}

#[test]
fn the_default_guidance_is_replaced_or_extended() {
    block_on(async {
        let default = json!({"reward": "head", "strength": 2.0, "candidates": 4});
        let client = server(Config { default_guidance: Some(default.clone()), ..Config::default() });
        let other = server(Config::default());
        let of_default = report(&client, body(Value::Null)).await;
        assert_eq!(of_default, report(&other, body(default)).await);
        let replaced = report(&client, body(json!({"method": "base"}))).await;
        assert_eq!(replaced, report(&other, body(Value::Null)).await);
        let extended = report(&client, body(json!({"extends": "default", "reward": "model"}))).await;
        let whole = json!({"reward": "model", "strength": 2.0, "candidates": 4});
        assert_eq!(extended, report(&other, body(whole)).await);
        // Without a default, the base policy is extended.
        let base = report(&other, body(json!({"extends": "default"}))).await;
        assert_eq!(base["method"], "base");
    });
}

#[test]
fn a_bad_default_guidance_is_refused_at_the_start() {
    for (default, message) in [
        (json!({"reward": "nobody"}), "unknown reward \"nobody\""),
        (json!({}), "the method args needs a reward"),
        (json!({"extends": "default", "reward": "head"}), "extends: it is for requests"),
        (json!({"method": "base", "strength": 1}), "no effect with method base"),
        (json!("x"), "must be an object"),
    ] {
        let config = Config { default_guidance: Some(default.clone()), ..Config::default() };
        let error = stackelberg_server::Server::new(config, crate::common::models()).err();
        let error = error.expect("it is refused").to_string();
        assert!(
            error.starts_with("default guidance: ") && error.contains(message),
            "{default}: {error}"
        );
    }
}

#[test]
fn chunks_have_their_steps() {
    block_on(async {
        let client = server(Config::default());
        let mut request = body(
            json!({"reward": "head*0.5+model", "candidates": 5, "trace": true, "shaping": "srs", "bound": 2}),
        );
        request["return_token_ids"] = json!(true);
        let whole = client.good(TEXT, request.clone()).await.json();
        let trace = whole["choices"][0]["trace"].as_array().unwrap().clone();
        assert_eq!(trace.len(), 8);
        for (number, step) in trace.iter().enumerate() {
            assert_eq!(step["step"], number);
            assert_eq!(step["candidates"].as_array().unwrap().len(), 5);
            assert_eq!(step["chosen"], whole["choices"][0]["token_ids"][number]);
            let tokens: Vec<String> =
                step["candidates"].as_array().unwrap().iter().map(|id| format!("w{id}")).collect();
            assert_eq!(step["tokens"], json!(tokens));
        }
        let scored: Vec<&Value> = trace.iter().filter(|step| !step["rewards"].is_null()).collect();
        assert!(!scored.is_empty());
        for step in scored {
            assert!(
                step["shaped"].is_array()
                    && step["threshold"].is_number()
                    && step["parts"]["head"].is_array()
            );
        }
        request["stream"] = json!(true);
        let chunks = client.good(TEXT, request).await.chunks();
        let streamed: Vec<Value> = chunks
            .iter()
            .flat_map(|chunk| chunk["choices"][0]["trace"].as_array().cloned().unwrap_or_default())
            .collect();
        assert_eq!(streamed, trace);
        // Each chunk has the step that led to its token.
        for chunk in &chunks[..8] {
            assert_eq!(chunk["choices"][0]["trace"][0]["chosen"], chunk["choices"][0]["token_ids"][0]);
        }
    });
}

#[test]
fn what_is_wrong_with_guidance_is_a_400_that_names_the_field() {
    block_on(async {
        let client = server(Config::default());
        for (guidance, param, message) in [
            (json!({"reward": "nobody"}), "guidance.reward", "known are head, model, ones"),
            (json!({"reward": "head+nobody"}), "guidance.reward", "unknown reward \"nobody\""),
            (json!({"reward": "head+"}), "guidance.reward", "the name of a reward is expected"),
            (json!({"reward": "/etc/passwd"}), "guidance.reward", "unknown reward \"/etc/passwd\""),
            (json!({"reward": "program:id"}), "guidance.reward", "unknown reward \"program:id\""),
            (json!({"reward": "http://localhost:1/x"}), "guidance.reward", "unknown reward"),
            (json!({"reward": "harmless"}), "guidance.reward", "unknown reward"),
            (json!({}), "guidance.reward", "the method args needs a reward; known are head"),
            (json!({"method": "best-of-n"}), "guidance.reward", "needs a reward"),
            (json!({"method": "cd"}), "guidance.value", "needs a value head; known are v"),
            (
                json!({"method": "cd", "value": "w"}),
                "guidance.value",
                "unknown value head \"w\"; known are v",
            ),
            (json!({"reward": "head", "value": "v"}), "guidance.value", "no effect with method args"),
            (json!({"method": "magic"}), "guidance.method", "known are base, args"),
            (json!({"reward": "head", "shaping": "x"}), "guidance.shaping", "x"),
            (json!({"reward": "head", "samples": 5}), "guidance.samples", "no effect with method args"),
            (json!({"reward": "head", "strenght": 1}), "guidance.strenght", "unknown; known are"),
            (
                json!({"reward": "head", "temperature": 1}),
                "guidance.temperature",
                "temperature of the request",
            ),
            (json!({"reward": "head", "candidates": 300}), "guidance.candidates", "at most 256"),
            (json!({"reward": "head", "candidates": 41}), "guidance.candidates", "vocabulary"),
            (json!({"reward": "head", "strength": -1}), "guidance.strength", "zero or more"),
            (
                json!({"reward": "head", "method": "best-of-n", "samples": 65}),
                "guidance.samples",
                "at most 64",
            ),
            (
                json!({"reward": "head", "method": "blockwise", "samples": 1}),
                "guidance.samples",
                "at least 2",
            ),
            (
                json!({"reward": "head", "method": "blockwise", "block": 9}),
                "guidance.block",
                "new tokens",
            ),
            (
                json!({"reward": "head", "method": "best-of-n", "block": 4}),
                "guidance.block",
                "no effect with method best-of-n without reject",
            ),
            (json!([]), "guidance", "must be an object"),
        ] {
            let reply = client.ask(TEXT, body(guidance.clone())).await;
            let error = &reply.json()["error"];
            assert_eq!(reply.status, 400, "{guidance}: {}", reply.text);
            assert_eq!(error["param"], param, "{guidance}: {error}");
            assert!(error["message"].as_str().unwrap().contains(message), "{guidance}: {error}");
            assert_eq!(error["type"], "invalid_request_error");
        }
        // Fields of the request that a method does not use: neutral values pass.
        for (field, value, passes) in [
            ("top_p", json!(1.0), true),
            ("top_p", json!(0.9), false),
            ("top_k", json!(0), true),
            ("top_k", json!(-1), true),
            ("top_k", json!(5), false),
            ("min_p", json!(0), true),
            ("min_p", json!(0.1), false),
            ("repetition_penalty", json!(1.2), true),
        ] {
            let mut request = body(json!({"reward": "head"}));
            request[field] = value.clone();
            let reply = client.ask(TEXT, request).await;
            assert_eq!(reply.status == 200, passes, "{field} {value}: {}", reply.text);
            if !passes {
                assert_eq!(reply.json()["error"]["param"], field);
            }
        }
        let mut greedy = body(json!({"reward": "head", "method": "best-of-n"}));
        greedy["temperature"] = json!(0);
        assert_eq!(client.ask(TEXT, greedy).await.json()["error"]["param"], "temperature");
    });
}

#[test]
fn a_reward_that_fails_fails_alone_and_says_nothing_of_itself() {
    block_on(async {
        let client = server(Config::default());
        let fails = json!({"prompt": "w4 refuse", "max_tokens": 4, "guidance": {"reward": "ones"}});
        let reply = client.ask(TEXT, fails.clone()).await;
        assert_eq!((reply.status, &reply.json()["error"]["type"]), (500, &json!("server_error")));
        assert!(!reply.text.contains("secret"), "{}", reply.text);
        let mut stream = fails;
        stream["stream"] = json!(true);
        let chunks = client.ask(TEXT, stream).await.chunks();
        assert_eq!(chunks.last().unwrap()["error"]["type"], "server_error");
        client.good(TEXT, body(json!({"reward": "ones"}))).await;
        assert_eq!(client.metric("stackelberg_answers_total{outcome=\"failed\"}").await, 2.0);
    });
}
