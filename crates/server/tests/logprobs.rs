//! Log-probabilities, and what steers sampling and stopping without a reward.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stackelberg_engine::kernel;
use stackelberg_server::Config;

use crate::common::{Client, block_on, joined, loaded, server, text_of};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// Answers that vLLM gave.
const RECORDED: &str = include_str!("data/vllm-logprobs.jsonl");

/// Log-probabilities of all tokens behind these, by the policy itself.
fn expected(tokens: &[u32]) -> Vec<f64> {
    let policy = &loaded().0;
    let (_, hidden) = policy.model.prefill(tokens).unwrap();
    let last = hidden.narrow(0, tokens.len() - 1, 1).unwrap();
    let logits = policy.model.logits(&last).unwrap().to_vec2::<f32>().unwrap().remove(0);
    let z = kernel::log_sum_exp(&logits);
    logits.into_iter().map(|logit| f64::from(logit) - z).collect()
}

/// The `count` likeliest tokens.
fn likeliest(log_probs: &[f64], count: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..log_probs.len() as u32).collect();
    order.sort_by(|a, b| log_probs[*b as usize].total_cmp(&log_probs[*a as usize]).then(a.cmp(b)));
    order.truncate(count);
    order
}

/// The text that a token adds at a place of a text.
fn name(place: usize, id: u32) -> String {
    if place == 0 { format!("w{id}") } else { format!(" w{id}") }
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

async fn choice(client: &Client, body: Value) -> Value {
    client.good(TEXT, body).await.json()["choices"][0].clone()
}

#[test]
fn they_are_the_base_policys_whatever_guides() {
    block_on(async {
        let client = server(Config::default());
        for guidance in [
            json!(null),
            json!({"reward": "model", "strength": 3.0}),
            json!({"reward": "head", "method": "best-of-n", "samples": 3}),
            json!({"method": "cd", "value": "v"}),
        ] {
            for (more, top) in [
                (json!({}), 3),
                (json!({"temperature": 1.7, "repetition_penalty": 1.3}), 20),
                (json!({}), 0),
            ] {
                let mut body = json!({"prompt": [5, 6], "max_tokens": 6, "seed": 4, "ignore_eos": true, "logprobs": top,
                                      "return_token_ids": true, "guidance": guidance});
                body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                let found = choice(&client, body).await;
                let (tokens, lists) = (ids(&found["token_ids"]), &found["logprobs"]);
                let mut before = vec![5, 6];
                for (place, &token) in tokens.iter().enumerate() {
                    let all = expected(&before);
                    assert_eq!(
                        numbers(&lists["token_logprobs"])[place],
                        all[token as usize],
                        "{guidance}"
                    );
                    let mut names: Vec<u32> = likeliest(&all, top);
                    names.push(token);
                    let named: BTreeSet<String> = names.iter().map(|id| name(place, *id)).collect();
                    let (at, place) = (place, lists["top_logprobs"][place].as_object().unwrap());
                    assert_eq!(place.keys().cloned().collect::<BTreeSet<_>>(), named);
                    for id in names {
                        assert_eq!(place[&name(at, id)].as_f64().unwrap(), all[id as usize]);
                    }
                    before.push(token);
                }
                assert_eq!(tokens.len(), 6);
            }
        }
    });
}

#[test]
fn echo_has_exactly_the_prompt_and_what_was_generated() {
    block_on(async {
        let client = server(Config::default());
        let prompt: Vec<u32> = (0..150).map(|i| 4 + i * 7 % 30).collect();
        let body = json!({"prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": 2, "echo": true, "return_token_ids": true});
        let found = choice(&client, body.clone()).await;
        let lists = &found["logprobs"];
        let generated = ids(&found["token_ids"]);
        assert_eq!(generated.len(), 1);
        let all: Vec<u32> = [&prompt[..], &generated].concat();
        assert_eq!(lists["token_logprobs"][0], Value::Null);
        assert_eq!(lists["top_logprobs"][0], Value::Null);
        for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            assert_eq!(lists[name].as_array().unwrap().len(), 151, "{name}");
        }
        for place in [1, 2, 63, 64, 65, 149, 150] {
            let log_probs = expected(&all[..place]);
            assert_eq!(
                lists["token_logprobs"][place].as_f64().unwrap(),
                log_probs[all[place] as usize],
                "{place}"
            );
            for id in likeliest(&log_probs, 2) {
                assert_eq!(
                    // The answer begins a text of its own.
                    lists["top_logprobs"][place][name(place % 150, id)],
                    json!(log_probs[id as usize])
                );
            }
        }
        let text: Vec<String> = prompt.iter().map(|id| format!("w{id}")).collect();
        assert!(found["text"].as_str().unwrap().starts_with(&text.join(" ")));
        // Streamed, it is the same.
        let mut stream = body.clone();
        stream["stream"] = json!(true);
        let chunks = client.good(TEXT, stream).await.chunks();
        assert_eq!(joined(&chunks, 1)[0], found["text"]);
        let streamed: Vec<Value> = chunks
            .iter()
            .flat_map(|chunk| {
                chunk["choices"][0]["logprobs"]["token_logprobs"].as_array().cloned().unwrap_or_default()
            })
            .collect();
        assert_eq!(json!(streamed), lists["token_logprobs"]);
        // The prompt alone.
        let mut alone = body.clone();
        alone["max_tokens"] = json!(0);
        let alone = client.good(TEXT, alone).await.json();
        assert_eq!(alone["choices"][0]["text"], text.join(" "));
        assert_eq!(alone["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), 150);
        assert_eq!(
            (&alone["choices"][0]["finish_reason"], &alone["usage"]["completion_tokens"]),
            (&json!("length"), &json!(0))
        );
        // Where the text ends at once, the token that ends it is an entry, too.
        let ends = json!({"prompt": [5, 6], "max_tokens": 1, "logprobs": 1, "echo": true, "logit_bias": {"2": 100}});
        let found = choice(&client, ends).await;
        assert_eq!(
            (found["logprobs"]["tokens"].clone(), &found["text"]),
            (json!(["w5", " w6", "w2"]), &json!("w5 w6"))
        );
        let plain = json!({"prompt": "w5 w6", "max_tokens": 2, "seed": 1, "echo": true, "n": 2});
        let answer = client.good(TEXT, plain).await.json();
        for choice in answer["choices"].as_array().unwrap() {
            assert!(text_of(choice).starts_with("w5 w6") && choice["logprobs"].is_null());
        }
    });
}

#[test]
fn prompts_have_log_probabilities_with_ranks() {
    block_on(async {
        let client = server(Config::default());
        let prompt = [7, 9, 11, 13];
        let body = json!({"prompt": prompt, "max_tokens": 1, "prompt_logprobs": 2});
        let found = choice(&client, body).await;
        let places = found["prompt_logprobs"].as_array().unwrap();
        assert_eq!((places.len(), &places[0]), (4, &Value::Null));
        for place in 1..4 {
            let all = expected(&prompt[..place]);
            let own = prompt[place];
            let rank = 1 + all.iter().filter(|p| **p > all[own as usize]).count();
            let entry = |id: u32, rank: usize| json!({"logprob": all[id as usize], "rank": rank, "decoded_token": name(place, id)});
            assert_eq!(places[place][own.to_string()], entry(own, rank));
            for (i, id) in likeliest(&all, 2).into_iter().enumerate() {
                assert_eq!(places[place][id.to_string()], entry(id, i + 1));
            }
        }
        let chat = json!({"messages": [{"role": "user", "content": "w5"}], "max_tokens": 1, "prompt_logprobs": 0});
        let answer = client.good(CHAT, chat).await.json();
        assert_eq!(answer["prompt_logprobs"].as_array().unwrap().len(), 6);
        let stream = json!({"prompt": "w5", "prompt_logprobs": 1, "stream": true});
        assert_eq!(client.ask(TEXT, stream).await.json()["error"]["param"], "prompt_logprobs");
    });
}

#[test]
fn chats_have_another_shape_and_tokens_may_be_ids() {
    block_on(async {
        let client = server(Config::default());
        let body = json!({"messages": [{"role": "user", "content": "w5"}], "max_tokens": 3, "temperature": 0, "ignore_eos": true,
                          "logprobs": true, "top_logprobs": 2, "return_token_ids": true});
        let answer = client.good(CHAT, body.clone()).await.json();
        let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
        let tokens = ids(&answer["choices"][0]["token_ids"]);
        let mut before = ids(&answer["prompt_token_ids"]);
        for (place, (entry, &token)) in content.iter().zip(&tokens).enumerate() {
            let all = expected(&before);
            let own = name(place, token);
            assert_eq!((&entry["token"], &entry["bytes"]), (&json!(own), &json!(own.as_bytes())));
            assert_eq!(entry["logprob"].as_f64().unwrap(), all[token as usize]);
            let top: Vec<Value> = entry["top_logprobs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["token"].clone())
                .collect();
            assert_eq!(
                json!(top),
                json!(likeliest(&all, 2).iter().map(|id| name(place, *id)).collect::<Vec<_>>())
            );
            before.push(token);
        }
        assert_eq!(content.len(), 3);
        let mut stream = body.clone();
        stream["stream"] = json!(true);
        let chunks = client.good(CHAT, stream).await.chunks();
        let streamed: Vec<Value> = chunks
            .iter()
            .flat_map(|chunk| {
                chunk["choices"][0]["logprobs"]["content"].as_array().cloned().unwrap_or_default()
            })
            .collect();
        assert_eq!(streamed, content);
        let mut named = body.clone();
        named["return_tokens_as_token_ids"] = json!(true);
        let answer = client.good(CHAT, named).await.json();
        assert_eq!(
            answer["choices"][0]["logprobs"]["content"][0]["token"],
            format!("token_id:{}", tokens[0])
        );
        let mut without = body;
        without["logprobs"] = json!(false);
        assert_eq!(client.ask(CHAT, without).await.json()["error"]["param"], "top_logprobs");
        for (path, body, param) in [
            (TEXT, json!({"prompt": "w1", "logprobs": 21}), "logprobs"),
            (
                CHAT,
                json!({"messages": [{"role": "user", "content": "w5"}], "logprobs": true, "top_logprobs": 21}),
                "top_logprobs",
            ),
            (TEXT, json!({"prompt": "w1", "prompt_logprobs": 21}), "prompt_logprobs"),
            (CHAT, json!({"messages": [{"role": "user", "content": "w5"}], "echo": true}), "echo"),
        ] {
            assert_eq!(client.ask(path, body).await.json()["error"]["param"], param);
        }
    });
}

/// The names of all fields of a choice, those of maps by token left out.
fn fields(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) if at.ends_with("top_logprobs[]") && !object.contains_key("logprob") => {}
        Value::Object(object) => {
            for (name, value) in object {
                let name = if name.parse::<u32>().is_ok() { "ID" } else { name };
                found.insert(format!("{at}.{name}"));
                fields(value, &format!("{at}.{name}"), found);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| fields(value, &format!("{at}[]"), found)),
        _ => {}
    }
}

#[test]
fn choices_have_the_fields_that_vllm_gives() {
    block_on(async {
        let client = server(Config::default());
        for line in RECORDED.lines() {
            let recorded: Value = serde_json::from_str(line).unwrap();
            let (path, mut body) = (recorded["path"].as_str().unwrap(), recorded["request"].clone());
            body["model"] = json!("tiny");
            body["ignore_eos"] = json!(true);
            let reply = client.ask(path, body.clone()).await;
            assert_eq!(json!(reply.status), recorded["status"], "{body}: {}", reply.text);
            let (mut theirs, mut ours) = (BTreeSet::new(), BTreeSet::new());
            fields(&recorded["response"]["choices"][0]["logprobs"], "", &mut theirs);
            fields(&reply.json()["choices"][0]["logprobs"], "", &mut ours);
            assert_eq!(ours, theirs, "{body}");
            if path == TEXT {
                let prompts = |value: &Value| {
                    let mut found = BTreeSet::new();
                    fields(&value["choices"][0]["prompt_logprobs"], "", &mut found);
                    found
                };
                if body.get("prompt_logprobs").is_some() {
                    assert_eq!(prompts(&reply.json()), prompts(&recorded["response"]), "{body}");
                }
            }
        }
    });
}

#[test]
fn biases_and_penalties_change_what_is_drawn() {
    block_on(async {
        let client = server(Config::default());
        let ask = |more: Value| {
            let mut body = json!({"prompt": [5, 6], "max_tokens": 12, "temperature": 0, "ignore_eos": true, "return_token_ids": true});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let client = client.clone();
            async move { ids(&choice(&client, body).await["token_ids"]) }
        };
        let plain = ask(json!({})).await;
        assert_eq!(ask(json!({"logit_bias": {"7": 100}})).await, [7; 12]);
        let banned = ask(json!({"logit_bias": {plain[0].to_string(): -100}})).await;
        assert!(!banned.contains(&plain[0]));
        assert_eq!(banned[0], likeliest(&expected(&[5, 6]), 2)[1]);
        // With a large penalty no token comes twice.
        let twice = |tokens: &[u32]| tokens.len() - tokens.iter().collect::<BTreeSet<_>>().len();
        assert!(twice(&plain) > 0, "{plain:?}");
        let present = ask(json!({"presence_penalty": 2, "logit_bias": {"7": 3}})).await;
        let frequent = ask(json!({"frequency_penalty": 2, "logit_bias": {"7": 3}})).await;
        let biased = ask(json!({"logit_bias": {"7": 3}})).await;
        assert!(
            twice(&present) < twice(&biased) && twice(&frequent) < twice(&biased),
            "{biased:?} {present:?} {frequent:?}"
        );
        assert_ne!(present, frequent);
        // They hold of guided choices, too.
        let guided = ask(json!({"logit_bias": {"7": 100}, "guidance": {"reward": "model"}})).await;
        assert_eq!(guided, [7; 12]);
        for (field, value) in [
            ("logit_bias", json!({"x": 1})),
            ("logit_bias", json!({"7": 101})),
            ("logit_bias", json!({"40": 1})),
            ("presence_penalty", json!(2.1)),
            ("frequency_penalty", json!(-3)),
            ("min_tokens", json!(20)),
            ("stop_token_ids", json!([40])),
        ] {
            let mut body = json!({"prompt": [5], "max_tokens": 12});
            body[field] = value.clone();
            let reply = client.ask(TEXT, body).await;
            assert_eq!(
                (reply.status, &reply.json()["error"]["param"]),
                (400, &json!(field)),
                "{value}: {}",
                reply.text
            );
        }
        let many: Value =
            (0..1025).map(|id| (id.to_string(), json!(1))).collect::<serde_json::Map<_, _>>().into();
        let reply = client.ask(TEXT, json!({"prompt": [5], "logit_bias": many})).await;
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("logit_bias")));
    });
}

#[test]
fn stops_say_what_they_were() {
    block_on(async {
        let client = server(Config::default());
        let ask = |more: Value| {
            let mut body = json!({"prompt": [5, 6], "max_tokens": 20, "temperature": 0, "ignore_eos": true, "return_token_ids": true});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let client = client.clone();
            async move { choice(&client, body).await }
        };
        let plain = ask(json!({})).await;
        assert_eq!((&plain["finish_reason"], &plain["stop_reason"]), (&json!("length"), &Value::Null));
        let tokens = ids(&plain["token_ids"]);
        let at = (1..20).find(|&i| !tokens[..i].contains(&tokens[i])).unwrap();
        let words =
            |tokens: &[u32]| tokens.iter().map(|id| format!("w{id}")).collect::<Vec<_>>().join(" ");
        let stopped = ask(json!({"stop_token_ids": [tokens[at]]})).await;
        assert_eq!(
            (&stopped["finish_reason"], &stopped["stop_reason"]),
            (&json!("stop"), &json!(tokens[at]))
        );
        assert_eq!(
            (&stopped["text"], ids(&stopped["token_ids"])),
            (&json!(words(&tokens[..at])), tokens[..=at].to_vec())
        );
        let stop = format!(" w{}", tokens[at]);
        let stopped = ask(json!({"stop": ["nothing", stop]})).await;
        assert_eq!(
            (&stopped["stop_reason"], &stopped["text"]),
            (&json!(stop), &json!(words(&tokens[..at])))
        );
        let included = ask(json!({"stop": [stop], "include_stop_str_in_output": true})).await;
        assert_eq!(included["text"], words(&tokens[..=at]));
        let included =
            ask(json!({"stop_token_ids": [tokens[at]], "include_stop_str_in_output": true})).await;
        assert_eq!(included["text"], words(&tokens[..=at]));
        // Nothing ends the answer before it has its least length.
        let long = ask(json!({"stop_token_ids": [tokens[at]], "min_tokens": 15})).await;
        assert!(ids(&long["token_ids"]).len() >= 15, "{long}");
        let long = ask(json!({"stop": ["w"], "min_tokens": 15})).await;
        assert_eq!(ids(&long["token_ids"]).len(), 15, "{long}");
        let ends = json!({"logit_bias": {"2": 100}, "ignore_eos": false});
        assert_eq!(ids(&ask(ends.clone()).await["token_ids"]), [2]);
        let mut later = ends;
        later["min_tokens"] = json!(4);
        assert_eq!(ids(&ask(later).await["token_ids"]).len(), 5);
    });
}
