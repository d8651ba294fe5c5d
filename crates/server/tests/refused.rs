//! What is refused, with which status, and how the error looks.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use stackelberg_server::{Config, Limits};

use crate::common::{CONTEXT, Client, block_on, post, server};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// Checks that an error has the shape of OpenAI.
#[track_caller]
fn checked(reply: &crate::common::Reply, status: u16) -> Value {
    assert_eq!(reply.status, status, "{}", reply.text);
    let json = reply.json();
    assert_eq!(json.as_object().unwrap().len(), 1, "{json}");
    let error = json["error"].clone();
    let mut fields: Vec<&String> = error.as_object().unwrap().keys().collect();
    fields.sort();
    assert_eq!(fields, ["code", "message", "param", "type"]);
    let message = error["message"].as_str().unwrap();
    assert!(!message.is_empty() && !message.contains('\n') && !message.contains("/tmp"), "{message}");
    error
}

async fn refused(client: &Client, path: &str, body: Value, param: &str) -> Value {
    let reply = client.ask(path, body.clone()).await;
    let error = checked(&reply, 400);
    assert_eq!(error["param"], param, "{body}: {error}");
    error
}

#[test]
fn wrong_fields_are_400_and_named() {
    block_on(async {
        let client = server(Config::default());
        for (field, value) in [
            ("max_tokens", json!(0)),
            ("max_tokens", json!(-1)),
            ("max_tokens", json!(1u64 << 63)),
            ("max_tokens", json!(u64::MAX)),
            ("max_tokens", json!(1.5)),
            ("max_tokens", json!("8")),
            ("n", json!(0)),
            ("n", json!(1_000_000_000u64)),
            ("n", json!(129)),
            ("temperature", json!(-1)),
            ("temperature", json!(1e300)),
            ("temperature", json!("hot")),
            ("top_p", json!(0)),
            ("top_p", json!(1.1)),
            ("top_k", json!(-2)),
            ("min_p", json!(1.5)),
            ("structured_outputs", json!({"choice": ["a"]})),
            ("allowed_token_ids", json!([1])),
            ("repetition_penalty", json!(0)),
            ("seed", json!(1.5)),
            ("seed", json!("x")),
            ("stop", json!("")),
            ("stop", json!([1])),
            ("stop", json!(vec!["x"; 65])),
            ("stop", json!("x".repeat(1025))),
            ("stream_options", json!({"include_usage": true})),
            ("stream_options.other", json!({"other": true})),
            ("stream_options", json!([true])),
            ("response_format", json!({"type": "json_object"})),
            ("use_beam_search", json!(true)),
            ("truncate_prompt_tokens", json!(10)),
            ("skip_special_tokens", json!(false)),
            ("best_of", json!(3)),
            ("suffix", json!("x")),
            ("foo_bar", json!(3)),
            ("extra_body.top", json!({"top": 3})),
        ] {
            let mut body = json!({"prompt": "w4"});
            body[field.split('.').next().unwrap()] = value;
            refused(&client, TEXT, body, field).await;
        }
        for (prompt, param) in [
            (json!(""), "prompt"),
            (json!([]), "prompt"),
            (json!([""]), "prompt"),
            (json!(["w1", ""]), "prompt[1]"),
            (json!([[1], [400]]), "prompt[1]"),
            (json!([[]]), "prompt"),
            (json!([40]), "prompt"),
            (json!([[1], [4294967295u64]]), "prompt[1]"),
            (Value::Null, "prompt"),
        ] {
            refused(&client, TEXT, json!({"prompt": prompt}), param).await;
        }
        refused(&client, TEXT, json!({"prompt": vec!["w1"; 200]}), "prompt").await;
        let chat = json!([{"role": "user", "content": "w1"}]);
        for (field, value) in [
            ("tools", json!([{"type": "function"}])),
            ("tool_choice", json!("required")),
            ("functions", json!([{}])),
            ("modalities", json!(["text", "audio"])),
            ("reasoning_effort", json!("low")),
            ("max_completion_tokens", json!(5)),
            ("continue_final_message", json!(true)),
            ("chat_template_kwargs", json!({"messages": 3})),
            ("prompt", json!("w1")),
        ] {
            let mut body = json!({"messages": chat, "max_tokens": 4, "add_generation_prompt": true});
            body[field] = value;
            let reply = client.ask(CHAT, body.clone()).await;
            let error = checked(&reply, 400);
            assert_eq!(error["param"], field, "{body}: {error}");
        }
        for (guidance, param) in [
            (json!({"strength": -1}), "strength"),
            (json!({"bound": -1}), "bound"),
            (json!({"alpha": -1}), "alpha"),
            (json!({"bound": 1e10}), "bound"),
            (json!({"strength": 1e300}), "strength"),
            (json!({"kl_budget": -1}), "kl_budget"),
            (json!({"ref_quantile": 2, "budget": "reference-step"}), "ref_quantile"),
            (json!({"perturbation": "noise=-1"}), "perturbation"),
            (json!({"perturbation": "random=1e308"}), "perturbation"),
            (json!({"reward": "head*1e308"}), "reward"),
        ] {
            let mut all = json!({"reward": "head", "method": "args"});
            all.as_object_mut().unwrap().extend(guidance.as_object().unwrap().clone());
            let param = format!("guidance.{param}");
            refused(&client, TEXT, json!({"prompt": "w4", "guidance": all}), &param).await;
        }
        refused(
            &client,
            "/score",
            json!({"model": "head*1e300", "text_1": "w1", "text_2": "w2"}),
            "model",
        )
        .await;
        refused(&client, "/shape", json!({"rewards": [1, 2], "weights": [1, -1]}), "weights").await;
        let both = json!({"rewards": [1, 2], "bound": 1, "kl_budget": 1});
        refused(&client, "/shape", both, "bound").await;
        let error =
            refused(&client, "/shape", json!({"rewards": [1, 2], "kl_budget": -1}), "kl_budget").await;
        assert!(error["message"].as_str().unwrap().starts_with("kl_budget is -1"), "{error}");
        refused(&client, "/detokenize", json!({}), "tokens").await;
        let both = json!({"model": "head", "text_1": "w1", "text_2": "w2", "documents": "w2"});
        refused(&client, "/score", both, "documents").await;
        let texts = json!({"model": "head", "queries": "w1", "items": ["w2", vec!["w2"; CONTEXT + 100].join(" ")]});
        refused(&client, "/score", texts, "items[1]").await;
        let twice = checked(&client.post(TEXT, "{\"prompt\": \"w1\", \"prompt\": \"w2\"}").await, 400);
        assert_eq!(twice["param"], "prompt");
        // The fields in their order are no request.
        let array = client.ask(TEXT, json!(["tiny", "w1"])).await;
        assert!(checked(&array, 400)["message"].as_str().unwrap().contains("a JSON object"));
        let image =
            json!([{"type": "text", "text": "w1"}, {"type": "image_url", "image_url": {"url": "x"}}]);
        let body = json!({"messages": [{"role": "user", "content": image}]});
        let error = refused(&client, CHAT, body, "messages[0].content[1]").await;
        assert!(error["message"].as_str().unwrap().contains("\"image_url\""), "{error}");
        for (messages, param) in [
            (json!([]), "messages"),
            (json!([{"role": "user"}]), "messages[0].content"),
            (json!([{"role": "user", "content": "x", "tool_call_id": "1"}]), "messages[0].tool_call_id"),
            (json!([{"role": "user", "content": "x", "type": "image"}]), "messages[0].type"),
            (json!([{"role": "user", "content": "x", "what": 1}]), "messages[0].what"),
            (json!([{"content": "x"}]), "messages[0].role"),
            (json!([["user", "x"]]), "messages[0]"),
            (json!([{"role": "user", "content": [["text", "x"]]}]), "messages[0].content"),
        ] {
            refused(&client, CHAT, json!({"messages": messages}), param).await;
        }
    });
}

#[test]
fn harmless_fields_and_neutral_values_pass() {
    block_on(async {
        let client = server(Config::default());
        let body = json!({
            "model": "tiny", "messages": [{"role": "user", "content": "w1", "name": "me"}], "max_completion_tokens": 2,
            "max_tokens": 2, "user": "u", "metadata": {"a": "b"}, "store": false, "service_tier": "auto",
            "safety_identifier": "s", "prompt_cache_key": "k", "parallel_tool_calls": true, "tools": [],
            "tool_choice": "none", "response_format": {"type": "text"}, "modalities": ["text"], "logit_bias": {},
            "presence_penalty": 0, "frequency_penalty": 0, "logprobs": false, "top_k": -1, "top_p": 1, "n": 1,
            "stop": null, "seed": null, "stream": false, "stream_options": null, "functions": [], "audio": null,
            "structured_outputs": null, "allowed_token_ids": [], "bad_words": null, "detokenize": true,
            "min_tokens": 0, "length_penalty": 1.0, "priority": 0, "skip_special_tokens": true, "echo": false,
        });
        client.good(CHAT, body).await;
        client.good(TEXT, json!({"prompt": "w1", "best_of": 2, "n": 2, "suffix": null})).await;
    });
}

#[test]
fn context_overflow_is_never_cut() {
    block_on(async {
        let client = server(Config::default());
        // The context has 4000 tokens.
        let prompt = vec![1; CONTEXT - 10];
        let error =
            refused(&client, TEXT, json!({"prompt": prompt, "max_tokens": 11}), "max_tokens").await;
        assert_eq!(error["code"], "context_length_exceeded");
        assert!(
            error["message"].as_str().unwrap().contains("3990 tokens and max_tokens is 11"),
            "{error}"
        );
        client.good(TEXT, json!({"prompt": prompt, "max_tokens": 10})).await;
        refused(&client, TEXT, json!({"prompt": vec![1; CONTEXT]}), "prompt").await;
        let answer =
            client.good(TEXT, json!({"prompt": vec![1; CONTEXT - 1], "ignore_eos": true})).await.json();
        assert_eq!(answer["usage"]["completion_tokens"], 1);
        let words = vec!["w1"; CONTEXT + 100].join(" ");
        let chat = json!({"messages": [{"role": "user", "content": words}]});
        refused(&client, CHAT, chat, "messages").await;
        // Nothing follows a prompt that is only read.
        let whole = json!({"prompt": vec![1; CONTEXT], "max_tokens": 0, "echo": true});
        client.good(TEXT, whole).await;
        let more = json!({"prompt": vec![1; CONTEXT + 1], "max_tokens": 0, "echo": true});
        refused(&client, TEXT, more, "prompt").await;
    });
}

#[test]
fn bad_bodies_are_4xx() {
    block_on(async {
        let limits = Limits { body: 100_000, ..Limits::default() };
        let client = server(Config { limits, ..Config::default() });
        let deep = "[".repeat(100_000 - 100);
        for body in [
            "".to_owned(),
            "{".to_owned(),
            "[]".to_owned(),
            "null".to_owned(),
            "3".to_owned(),
            "{} {}".to_owned(),
            "{\"prompt\": \"w1\", \"temperature\": NaN}".to_owned(),
            "{\"prompt\": \"w1\", \"temperature\": Infinity}".to_owned(),
            "{\"prompt\": \"w1\", \"temperature\": 1e999}".to_owned(),
            "{\"prompt\": \"w1\", \"prompt\": \"w2\"}".to_owned(),
            "{\"prompt\": \"w1\", \"max_tokens\": 9223372036854775808}".to_owned(),
            "{\"prompt\": \"w1\", \"max_tokens\": 99999999999999999999999}".to_owned(),
            "{\"prompt\": \"\\ud800\"}".to_owned(),
            format!("{{\"prompt\": {deep}"),
            format!("{{\"guidance\": {deep}"),
            format!("{{\"metadata\": {deep}"),
        ] {
            let reply = client.post(TEXT, body.clone()).await;
            checked(&reply, 400);
        }
        let latin = client.post(TEXT, &b"{\"prompt\": \"\xe9\"}"[..]).await;
        checked(&latin, 400);
        let error = checked(&client.post(TEXT, "{\"prompt\": \"w1\",").await, 400);
        assert!(error["message"].as_str().unwrap().contains("line 1 column"), "{error}");
        // Too large, whether or not it says so.
        let large = format!("{{\"prompt\": \"{}\"}}", "w1 ".repeat(40_000));
        let error = checked(&client.post(TEXT, large.clone()).await, 413);
        assert!(error["message"].as_str().unwrap().contains("100000 bytes"), "{error}");
        let mut said = post(TEXT, "{}");
        said.headers_mut().insert("content-length", 100_000_000.into());
        checked(&client.reply(said).await, 413);
        let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1 << 20]));
        checked(&client.post(TEXT, Body::from_stream(chunks)).await, 413);
        // Many messages.
        let client = server(Config::default());
        let messages = vec![json!({"role": "user", "content": ""}); 5000];
        checked(&client.ask(CHAT, json!({"messages": messages})).await, 400);
    });
}

#[test]
fn errors_of_http_have_the_same_shape() {
    block_on(async {
        let client = server(Config::default());
        checked(&client.get("/v1/nope").await, 404);
        checked(&client.get(TEXT).await, 405);
        checked(&client.ask("/v1/models", json!({})).await, 405);
        let plain = |path: &str| Request::post(path).body(Body::from("{}")).unwrap();
        checked(&client.reply(plain("/health")).await, 405);
        checked(&client.reply(plain("/v1/nope")).await, 404);
        let model = client.ask(TEXT, json!({"model": "gpt-4", "prompt": "w1"})).await;
        let error = checked(&model, 404);
        assert_eq!((&error["code"], &error["param"]), (&json!("model_not_found"), &json!("model")));
        assert!(error["message"].as_str().unwrap().contains("this server has \"tiny\""));
        // What a request says is not repeated at any length.
        for long in
            [json!({"model": "x".repeat(100_000), "prompt": "w1"}), json!({"x".repeat(100_000): 1})]
        {
            let reply = client.ask(TEXT, long).await;
            assert!(reply.text.len() < 2000 && reply.status / 100 == 4, "{}", reply.text.len());
        }
        let plain =
            Request::post(TEXT).header("content-type", "text/plain").body(Body::from("{}")).unwrap();
        checked(&client.reply(plain).await, 415);
        checked(&client.reply(Request::post(TEXT).body(Body::from("{}")).unwrap()).await, 415);
    });
}
