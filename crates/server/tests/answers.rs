//! Answers: streamed, whole, alone and in company, all are the same.

use serde_json::{Value, json};
use stackelberg_decoding::{Method, Settings, generate};
use stackelberg_engine::{Checkpoint, Dtype};
use stackelberg_server::{Config, Models, Server};

use crate::common::{Client, block_on, joined, loaded, server, text_of};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// Requests of all methods, for both paths.
fn requests() -> Vec<(&'static str, Value)> {
    let chat = json!([{"role": "user", "content": "w1 w2 w3"}]);
    let mut requests = Vec::new();
    for (number, guidance) in [
        json!(null),
        json!({"method": "base", "reward": "ones"}),
        json!({"reward": "head"}),
        json!({"reward": "model", "strength": 2.0, "shaping": "hard"}),
        json!({"reward": "ones", "score_every": 3}),
        json!({"reward": "head*0.5+model", "trace": true}),
        json!({"method": "cd", "value": "v"}),
        json!({"method": "cd", "value": "v", "beams": 3, "reward": "head"}),
        json!({"method": "best-of-n", "reward": "model", "samples": 4}),
        json!({"method": "blockwise", "reward": "ones", "samples": 3, "block": 4}),
        json!({"method": "particles", "reward": "head", "samples": 3, "block": 4}),
    ]
    .into_iter()
    .enumerate()
    {
        let n = if number == 2 { 1 } else { 2 };
        let common = json!({"max_tokens": 12, "seed": 5 + number, "n": n, "guidance": guidance, "ignore_eos": number % 2 == 0});
        let mut one = common.clone();
        one["messages"] = chat.clone();
        requests.push((CHAT, one));
        let mut other = common;
        other["prompt"] = json!(["w7 w8", "w9"]);
        other["stop"] = json!(["w1 w", "6 w"]);
        requests.push((TEXT, other));
    }
    requests
}

/// What must be equal: everything but the id and the time.
fn comparable(mut answer: Value) -> Value {
    let object = answer.as_object_mut().unwrap();
    object.remove("id");
    object.remove("created");
    answer
}

#[test]
fn streamed_is_whole_is_alone_and_among_others() {
    block_on(async {
        let client = server(Config::default());
        let mut alone = Vec::new();
        for (path, body) in requests() {
            let whole = comparable(client.good(path, body.clone()).await.json());
            let choices = whole["choices"].as_array().unwrap();
            let mut stream = body.clone();
            stream["stream"] = json!(true);
            stream["stream_options"] = json!({"include_usage": true});
            let chunks = client.good(path, stream).await.chunks();
            let texts = joined(&chunks, choices.len());
            for (choice, text) in choices.iter().zip(texts) {
                assert_eq!(text_of(choice), text, "{body}");
                let index = &choice["index"];
                let last = chunks.iter().rev().flat_map(|chunk| chunk["choices"].as_array().unwrap());
                let last = last.clone().find(|last| last["index"] == *index).unwrap();
                assert_eq!(last["finish_reason"], choice["finish_reason"]);
                assert_eq!(last["guidance"], choice["guidance"], "{body}");
            }
            let usage = chunks.last().unwrap();
            assert_eq!((&usage["choices"], &usage["usage"]), (&json!([]), &whole["usage"]));
            alone.push(whole);
        }
        // All at once, with others that are as many again.
        let mut tasks = Vec::new();
        for round in 0..3 {
            for (number, (path, mut body)) in requests().into_iter().enumerate() {
                if round == 1 {
                    body["seed"] = json!(1000 + number);
                    body["max_tokens"] = json!(5 + number);
                }
                let client = client.clone();
                tasks.push((
                    round,
                    number,
                    tokio::spawn(async move { client.good(path, body).await.json() }),
                ));
            }
        }
        let mut compared = 0;
        for (round, number, task) in tasks {
            let answer = comparable(task.await.unwrap());
            if round != 1 {
                assert_eq!(answer, alone[number], "{:?}", requests()[number]);
                compared += 1;
            }
        }
        assert_eq!(compared, 44);
    });
}

#[test]
fn the_first_choice_is_what_the_library_generates() {
    let (policy, rewards) = loaded();
    let prompt = policy.tokenizer.encode("w7 w8", true).unwrap();
    let mut settings = Settings { max_new_tokens: 12, seed: 9, ..Settings::new(Method::Args) };
    settings.sampling.temperature = 0.8;
    let expected = generate(policy, Some(&rewards[0]), &prompt, "0", &settings, &mut ()).unwrap();
    let body = json!({"prompt": [7, 8], "max_tokens": 12, "seed": 9, "temperature": 0.8, "guidance": {"reward": "head"}});
    let answer = block_on(async { server(Config::default()).good(TEXT, body).await.json() });
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"], expected.text);
    assert_eq!(choice["guidance"]["reward"], json!(expected.reward));
    assert_eq!(choice["guidance"]["kl"], json!(expected.kl));
    assert_eq!(choice["guidance"]["steered"], json!(expected.steered));
    assert!(expected.steered > 0, "guidance has an effect");
}

#[test]
fn choices_differ_and_batches_do_not_matter() {
    block_on(async {
        let client = server(Config::default());
        let ask = |prompt: Value, n: usize, seed: u64| {
            client.good(
                TEXT,
                json!({"prompt": prompt, "n": n, "seed": seed, "max_tokens": 10, "ignore_eos": true}),
            )
        };
        let texts = |answer: &Value| -> Vec<String> {
            answer["choices"].as_array().unwrap().iter().map(text_of).collect()
        };
        let batch = texts(&ask(json!(["w4", "w5 w6", "w4"]), 2, 3).await.json());
        assert_eq!(batch.len(), 6);
        // A prompt in a batch is answered as alone, and choices of one prompt differ.
        assert_eq!(batch[0..2], texts(&ask(json!("w4"), 2, 3).await.json()));
        assert_eq!(batch[2..4], texts(&ask(json!([[5, 6]]), 2, 3).await.json()));
        assert_eq!(batch[0..2], batch[4..6]);
        assert_ne!(batch[0], batch[1]);
        assert_ne!(batch[0..2], texts(&ask(json!("w4"), 2, 4).await.json()));
        // Without a seed there is a new one, which is returned and gives the same answer again.
        let fresh = client
            .good(TEXT, json!({"prompt": "w4", "max_tokens": 10, "ignore_eos": true}))
            .await
            .json();
        let other = client.good(TEXT, json!({"prompt": "w4", "max_tokens": 10})).await.json();
        assert_ne!(fresh["seed"], other["seed"]);
        let again = ask(json!("w4"), 1, fresh["seed"].as_u64().unwrap()).await.json();
        assert_eq!(texts(&again), texts(&fresh));
        let negative = client.good(TEXT, json!({"prompt": "w4", "seed": -1})).await.json();
        assert_eq!(negative["seed"], json!(u64::MAX));
    });
}

#[test]
fn stop_texts_never_leak() {
    block_on(async {
        let client = server(Config::default());
        let ask = |stop: Value, stream: bool| {
            client.good(
                TEXT,
                json!({"prompt": "w4", "seed": 8, "max_tokens": 40, "ignore_eos": true, "stop": stop, "stream": stream}),
            )
        };
        let whole = ask(json!([]), false).await.text();
        let words: Vec<&str> = whole.split_whitespace().collect();
        assert!(words.len() > 10, "{whole}");
        // Several tokens, and the middle of tokens.
        let several = format!("{} {}", words[5], words[6]);
        for stop in [words[5].to_owned(), several, whole[17..21].to_owned()] {
            let at = whole.find(&stop).unwrap();
            let answer = ask(json!(stop), false).await;
            assert_eq!(answer.text(), whole[..at], "{stop:?}");
            assert_eq!(answer.json()["choices"][0]["finish_reason"], "stop");
            let chunks = ask(json!([stop, "nothing"]), true).await.chunks();
            assert_eq!(joined(&chunks, 1), [&whole[..at]]);
        }
    });
}

#[test]
fn chats_are_laid_out_by_the_template() {
    block_on(async {
        let client = server(Config::default());
        let messages = json!([{"role": "user", "content": [{"type": "text", "text": "w1 "}, {"type": "text", "text": "w2"}]},
                              {"role": "assistant", "content": "w3 w4", "refusal": null, "tool_calls": null}]);
        let ask = |more: Value| {
            let mut body = json!({"messages": messages, "max_tokens": 4, "temperature": 0, "return_token_ids": true});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            client.good(CHAT, body)
        };
        // The lengths of the roles are no words of the model: 0.
        let (one, two) = (json!([30, 0, 1, 2, 31]), json!([30, 0, 3, 4]));
        let ids = |parts: &[&Value]| -> Vec<Value> {
            parts.iter().flat_map(|p| p.as_array().unwrap().clone()).collect()
        };
        for (more, expected) in [
            (json!({}), ids(&[&one, &two, &json!([31, 32, 33])])),
            (json!({"add_generation_prompt": false}), ids(&[&one, &two, &json!([31])])),
            (json!({"continue_final_message": true}), ids(&[&one, &two])),
            (
                json!({"chat_template_kwargs": {"shout": true}}),
                ids(&[&one, &two, &json!([31, 32, 33, 34])]),
            ),
        ] {
            let answer = ask(more.clone()).await.json();
            assert_eq!(answer["prompt_token_ids"], json!(expected), "{more}");
            assert_eq!(answer["usage"]["prompt_tokens"], expected.len());
            let chosen = answer["choices"][0]["token_ids"].as_array().unwrap().len();
            assert_eq!(answer["usage"]["completion_tokens"], chosen);
            assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
            // The same tokens as a completion give the same text.
            let body = json!({"prompt": expected, "max_tokens": 4, "temperature": 0});
            assert_eq!(client.good(TEXT, body).await.text(), text_of(&answer["choices"][0]));
        }
    });
}

#[test]
fn chunks_have_the_shape_that_clients_expect() {
    block_on(async {
        let client = server(Config::default());
        let body = json!({"messages": [{"role": "user", "content": "w5"}], "max_tokens": 6, "seed": 1, "stream": true,
                          "ignore_eos": true, "return_token_ids": true,
                          "stream_options": {"include_usage": true, "continuous_usage_stats": true}});
        let reply = client.good(CHAT, body).await;
        assert_eq!(reply.headers["content-type"], "text/event-stream; charset=utf-8");
        let chunks = reply.chunks();
        assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
        assert!(chunks[0]["prompt_token_ids"].is_array());
        let id = &chunks[0]["id"];
        assert!(
            chunks.iter().all(|chunk| chunk["id"] == *id && chunk["object"] == "chat.completion.chunk")
        );
        let (last, usage) = (&chunks[chunks.len() - 2], &chunks[chunks.len() - 1]);
        assert_eq!(last["choices"][0]["delta"], json!({}));
        assert_eq!(last["choices"][0]["finish_reason"], "length");
        assert_eq!(
            usage["usage"],
            json!({"prompt_tokens": 6, "completion_tokens": 6, "total_tokens": 12})
        );
        let running: Vec<u64> = chunks[1..7]
            .iter()
            .map(|chunk| chunk["usage"]["completion_tokens"].as_u64().unwrap())
            .collect();
        assert_eq!(running, [1, 2, 3, 4, 5, 6]);
        let ids: Vec<u64> = chunks
            .iter()
            .flat_map(|chunk| chunk["choices"][0]["token_ids"].as_array().cloned())
            .flatten()
            .map(|id| id.as_u64().unwrap())
            .collect();
        assert_eq!(ids.len(), 6);
        // A streamed completion begins with the ids of its prompt, each choice once.
        let body = json!({"prompt": "w5 w6", "max_tokens": 3, "n": 2, "stream": true, "ignore_eos": true, "return_token_ids": true});
        let chunks = client.good(TEXT, body).await.chunks();
        let with_ids =
            chunks.iter().filter(|chunk| chunk["choices"][0].get("prompt_token_ids").is_some());
        let with_ids: Vec<_> =
            with_ids.map(|chunk| chunk["choices"][0]["prompt_token_ids"].clone()).collect();
        assert_eq!(with_ids, [json!([5, 6]), json!([5, 6])]);
        // Some clients say that a message is one.
        let of = |message: Value| json!({"messages": [message], "max_tokens": 3, "seed": 1});
        let plain = client.good(CHAT, of(json!({"role": "user", "content": "w5"}))).await.json();
        let typed =
            client.good(CHAT, of(json!({"role": "user", "content": "w5", "type": "text"}))).await.json();
        assert_eq!(typed["choices"], plain["choices"]);
        // Without being asked there is no usage.
        let body = json!({"prompt": "w5", "max_tokens": 3, "stream": true});
        let chunks = client.good(TEXT, body).await.chunks();
        assert!(
            chunks.iter().all(|chunk| chunk.get("usage").is_none() && chunk["choices"] != json!([]))
        );
    });
}

/// A tokenizer whose tokens are single bytes: some begin or continue characters of two bytes.
fn byte_tokenizer() -> Value {
    let bytes = "ÃÄ¡¢£¤¥¦§¨©ª«¬abcdefghijklmnopqrstuvwxyz".chars().enumerate();
    let vocabulary: serde_json::Map<String, Value> =
        bytes.map(|(id, c)| (c.to_string(), json!(id))).collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "truncation": null, "padding": null,
        "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    })
}

#[test]
fn characters_are_never_sent_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    crate::tiny::Tiny::default().write(folder.path());
    std::fs::write(folder.path().join("tokenizer.json"), byte_tokenizer().to_string()).unwrap();
    let policy = Checkpoint::load(folder.path(), Dtype::F32).unwrap();
    let client = Client::new(&Server::new(Config::default(), Models::new("bytes", policy)).unwrap());
    block_on(async {
        let bias: serde_json::Map<String, Value> =
            (0..14).map(|id| (id.to_string(), json!(if id < 2 { 4 } else { 1 }))).collect();
        let mut whole_characters = 0;
        for seed in 0..8 {
            let mut body = json!({"prompt": "abc", "max_tokens": 60, "seed": seed, "ignore_eos": true, "logit_bias": bias,
                                  "return_token_ids": true, "logprobs": 1});
            let whole = client.good(TEXT, body.clone()).await.json();
            let text = text_of(&whole["choices"][0]);
            body["stream"] = json!(true);
            let chunks = client.good(TEXT, body).await.chunks();
            assert_eq!(joined(&chunks, 1), [text.as_str()]);
            // What is no character in the end is one of these, but never what may still become one.
            for chunk in &chunks {
                assert!(!text_of(&chunk["choices"][0]).ends_with('\u{fffd}'), "{chunk}");
            }
            whole_characters += text.chars().filter(|c| *c != '\u{fffd}' && !c.is_ascii()).count();
            assert_eq!(whole["choices"][0]["token_ids"].as_array().unwrap().len(), 60);
            // The texts of the tokens together are the text: a token that completes a character has all of it.
            let tokens = whole["choices"][0]["logprobs"]["tokens"].as_array().unwrap();
            let texts: Vec<&str> = tokens.iter().map(|token| token.as_str().unwrap()).collect();
            assert_eq!((texts.len(), texts.concat()), (60, text.clone()));
            let offsets = whole["choices"][0]["logprobs"]["text_offset"].as_array().unwrap();
            let mut at = 0;
            for (text, offset) in texts.iter().zip(offsets) {
                assert_eq!(*offset, at);
                at += text.chars().count();
            }
        }
        assert!(whole_characters > 20, "{whole_characters}");
    });
}
