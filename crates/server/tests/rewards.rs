//! Rewards over HTTP, in the shapes of vLLM, and the mathematics alone.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stackelberg_server::Config;

use crate::common::{CONTEXT, block_on, loaded, server};

/// Answers that vLLM gave.
const RECORDED: &str = include_str!("data/vllm-rewards.jsonl");

/// The paths of all fields of an answer.
fn fields(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                found.insert(format!("{at}.{name}"));
                fields(value, &format!("{at}.{name}"), found);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| fields(value, &format!("{at}[]"), found)),
        _ => {}
    }
}

#[test]
fn answers_have_the_fields_that_vllm_gives() {
    block_on(async {
        let client = server(Config::default());
        for line in RECORDED.lines() {
            let recorded: Value = serde_json::from_str(line).unwrap();
            let (path, mut body) = (recorded["path"].as_str().unwrap(), recorded["request"].clone());
            body["model"] = json!("model");
            // Tokens of another vocabulary.
            if let Some(ids) = body["input"].as_array().filter(|ids| ids.iter().all(Value::is_u64)) {
                body["input"] =
                    json!(ids.iter().map(|id| id.as_u64().unwrap() % 40).collect::<Vec<_>>());
            }
            let reply = client.ask(path, body.clone()).await;
            assert_eq!(json!(reply.status), recorded["status"], "{body}: {}", reply.text);
            let (mut theirs, mut ours) = (BTreeSet::new(), BTreeSet::new());
            fields(&recorded["response"], "", &mut theirs);
            fields(&reply.json(), "", &mut ours);
            // Details that are null there.
            theirs.retain(|field| !field.ends_with("_tokens_details"));
            assert_eq!(ours, theirs, "{body}");
            let count = |value: &Value| value["data"].as_array().map(Vec::len);
            assert_eq!(count(&reply.json()), count(&recorded["response"]), "{body}");
            assert_eq!(reply.json()["object"], recorded["response"]["object"]);
        }
    });
}

#[test]
fn scores_are_the_rewards() {
    block_on(async {
        let client = server(Config::default());
        let (policy, [head, model, _]) = loaded();
        let of = |reward: &stackelberg_engine::Reward, tokens: &[u32]| {
            reward.of_tokens(policy, tokens).unwrap()
        };
        let classify = |model: &str, input: Value| {
            client.good("/classify", json!({"model": model, "input": input}))
        };
        let answer = classify("head", json!([[4, 5, 6], [7]])).await.json();
        assert_eq!(answer["data"][0]["probs"], json!([of(head, &[4, 5, 6])]));
        assert_eq!(answer["data"][1]["probs"], json!([of(head, &[7])]));
        assert_eq!(
            (&answer["data"][1]["label"], &answer["data"][1]["index"]),
            (&json!("head"), &json!(1))
        );
        assert_eq!(
            answer["usage"],
            json!({"prompt_tokens": 4, "total_tokens": 4, "completion_tokens": 0})
        );
        // A combination, of the same text.
        let both = 0.5 * of(head, &[4, 5]) + of(model, &[4, 5]);
        assert_eq!(
            classify("head*0.5+model", json!([4, 5])).await.json()["data"][0]["probs"],
            json!([both])
        );
        assert_eq!(
            classify("ones", json!("w1 w11")).await.json()["data"][0]["probs"],
            json!([3.0 / 7.0])
        );
        // A conversation, by the chat template.
        let messages =
            json!([{"role": "user", "content": "w5"}, {"role": "assistant", "content": "w6"}]);
        let answer =
            client.good("/classify", json!({"model": "model", "messages": messages})).await.json();
        let tokens = [30, 0, 5, 31, 30, 0, 6, 31];
        assert_eq!(answer["data"][0]["probs"], json!([of(model, &tokens)]));
        // Pairs: the prompt by the chat template, then the answer.
        let body = json!({"model": "model", "text_1": "w5", "text_2": [" w6", " w7 w8"], "use_activation": false});
        let answer = client.good("/score", body).await.json();
        let pair = |answer: &[u32]| of(model, &[&[30, 0, 5, 31, 32, 33], answer].concat());
        assert_eq!(answer["data"][0]["score"], pair(&[6]));
        assert_eq!(answer["data"][1]["score"], pair(&[7, 8]));
        let body = json!({"model": "ones", "queries": ["w5", "w6"], "documents": ["1", "w2"]});
        let answer = client.good("/score", body).await.json();
        assert_eq!(
            (&answer["data"][0]["score"], &answer["data"][1]["score"]),
            (&json!(0.5), &json!(0.0))
        );
    });
}

#[test]
fn wrong_texts_are_refused() {
    block_on(async {
        let client = server(Config::default());
        for (path, body, status, param) in [
            ("/classify", json!({"input": "w1"}), 400, "model"),
            ("/classify", json!({"model": "nobody", "input": "w1"}), 404, "model"),
            ("/classify", json!({"model": "head"}), 400, "input"),
            ("/classify", json!({"model": "head", "input": []}), 400, "input"),
            ("/classify", json!({"model": "head", "input": ""}), 400, "input"),
            ("/classify", json!({"model": "head", "input": [40]}), 400, "input"),
            ("/classify", json!({"model": "head", "input": vec![1; CONTEXT + 1]}), 400, "input"),
            ("/classify", json!({"model": "head", "input": vec!["w1"; 1025]}), 400, "input"),
            (
                "/classify",
                json!({"model": "head", "input": "w1", "use_activation": true}),
                400,
                "use_activation",
            ),
            ("/score", json!({"model": "head", "text_1": "w1"}), 400, "text_2"),
            (
                "/score",
                json!({"model": "head", "text_1": ["a", "b"], "text_2": ["a", "b", "c"]}),
                400,
                "text_1",
            ),
            ("/score", json!({"model": "head", "text_1": "w1", "text_2": "w2", "top": 1}), 400, "top"),
        ] {
            let reply = client.ask(path, body.clone()).await;
            let found = (reply.status, reply.json()["error"]["param"].clone());
            assert_eq!(found, (status, json!(param)), "{body}: {}", reply.text);
        }
    });
}

#[test]
fn rewards_are_shaped() {
    block_on(async {
        let client = server(Config::default());
        let body =
            json!({"rewards": [0.0, 1.0, 2.0, 3.0], "shaping": "hard", "bound": 2.0, "strength": 1.0});
        let answer = client.good("/shape", body).await.json();
        // m* solves m = E[r] + ... : the responses at or above it have the bound.
        let threshold = answer["threshold"].as_f64().unwrap();
        let shaped: Vec<f64> =
            answer["shaped"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        for (reward, shaped) in [0.0, 1.0, 2.0, 3.0].iter().zip(shaped) {
            assert_eq!(shaped, if *reward >= threshold { 2.0 } else { 0.0 });
        }
        assert!(answer["residual"].as_f64().unwrap().abs() < 1e-9);
        assert_eq!(answer["utility"]["base"], 1.5);
        let logits = json!({"rewards": [0.0, 1.0], "logits": [1.0, 0.5], "shaping": "raw", "beta": 0.5});
        let answer = client.good("/shape", logits).await.json();
        assert_eq!((&answer["fused"], &answer["chosen"]), (&json!([1.0, 2.5]), &json!(1)));
        let budget = json!({"rewards": [0.0, 1.0, 5.0], "kl_budget": 0.2});
        let kl = client.good("/shape", budget).await.json()["kl"]["shaped"].as_f64().unwrap();
        assert!((kl - 0.2).abs() < 1e-6, "{kl}");
        for (body, param) in [
            (json!({}), "rewards"),
            (json!({"rewards": [1.0], "weights": [1.0], "logits": [1.0]}), "weights"),
            (json!({"rewards": [1.0, 2.0], "weights": [1.0]}), "weights"),
            (json!({"rewards": [1.0], "shaping": "magic"}), "shaping"),
            (json!({"rewards": [1.0], "bound": -1.0}), "bound"),
            (json!({"rewards": [1.0], "beta": 0.0}), "beta"),
            (json!({"rewards": [1.0], "x": 0.0}), "x"),
            (json!({"rewards": ["a"]}), "rewards[0]"),
        ] {
            let reply = client.ask("/shape", body.clone()).await;
            assert_eq!(
                (reply.status, &reply.json()["error"]["param"]),
                (400, &json!(param)),
                "{body}: {}",
                reply.text
            );
        }
    });
}
