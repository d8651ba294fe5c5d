//! Keys, hosts, the queue, health and counters.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use stackelberg_server::{Config, Keys, Limits};

use crate::common::{block_on, eventually, post, server};

const TEXT: &str = "/v1/completions";

#[test]
fn keys_are_needed_where_there_are_keys() {
    block_on(async {
        let client = server(Config { keys: Keys::new(["one", "two"]).unwrap(), ..Config::default() });
        let ask = |key: Option<&str>| {
            let mut request = post(TEXT, "{\"prompt\": \"w1\", \"max_tokens\": 1}");
            if let Some(key) = key {
                request.headers_mut().insert("authorization", key.parse().unwrap());
            }
            client.reply(request)
        };
        for key in ["Bearer one", "Bearer two", "bearer two"] {
            assert_eq!(ask(Some(key)).await.status, 200, "{key}");
        }
        for key in [
            None,
            Some("Bearer three"),
            Some("one"),
            Some("Basic one"),
            Some("Bearer "),
            Some("Bearer onetwo"),
        ] {
            let reply = ask(key).await;
            assert_eq!(reply.status, 401, "{key:?}");
            assert_eq!(reply.json()["error"]["code"], "invalid_api_key");
            assert_eq!(reply.headers["www-authenticate"], "Bearer");
        }
        for path in ["/v1/models", "/metrics", "/openapi.json", "/version", "/nope"] {
            assert_eq!(client.get(path).await.status, 401, "{path}");
        }
        for path in ["/health", "/ready"] {
            assert_eq!(client.get(path).await.status, 200, "{path}");
        }
    });
}

#[test]
fn on_loopback_only_local_names_are_answered() {
    block_on(async {
        let client = server(Config { loopback: true, ..Config::default() });
        let get = |host: Option<&str>| {
            let mut request = Request::get("/v1/models");
            if let Some(host) = host {
                request = request.header("host", host);
            }
            client.reply(request.body(Body::empty()).unwrap())
        };
        for host in ["localhost:8080", "127.0.0.1", "[::1]:8080"] {
            assert_eq!(get(Some(host)).await.status, 200, "{host}");
        }
        for host in [Some("evil.com"), Some("localhost.evil.com:8080"), Some("192.168.0.1"), None] {
            let reply = get(host).await;
            assert_eq!(
                (reply.status, &reply.json()["error"]["code"]),
                (403, &json!("wrong_host")),
                "{host:?}"
            );
        }
        let other = server(Config::default());
        let named = Request::get("/v1/models").header("host", "evil.com").body(Body::empty()).unwrap();
        assert_eq!(other.reply(named).await.status, 200);
    });
}

#[test]
fn a_full_queue_is_429_and_others_are_answered() {
    block_on(async {
        let limits = Limits { sequences: 2, queue: 3, ..Limits::default() };
        let client = server(Config { limits, ..Config::default() });
        let long = json!({"prompt": "w1", "max_tokens": 1500, "ignore_eos": true, "n": 5, "seed": 1});
        let first = tokio::spawn(client.good(TEXT, long.clone()));
        eventually("all places are taken", || async {
            client.metric("stackelberg_running").await + client.metric("stackelberg_waiting").await
                == 5.0
        })
        .await;
        let reply = client.ask(TEXT, json!({"prompt": "w1"})).await;
        assert_eq!(reply.status, 429, "{}", reply.text);
        let seconds: u64 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds));
        assert_eq!(
            (&reply.json()["error"]["type"], &reply.json()["error"]["code"]),
            (&json!("rate_limit_error"), &json!("queue_full"))
        );
        assert_eq!(first.await.unwrap().json()["choices"].as_array().unwrap().len(), 5);
        client.good(TEXT, json!({"prompt": "w1"})).await;
        // More than there can ever be places for is no matter of waiting.
        let reply = client.ask(TEXT, json!({"prompt": "w1", "n": 6})).await;
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("n")));
    });
}

#[test]
fn a_client_that_goes_away_stops_its_request() {
    block_on(async {
        let client = server(Config::default());
        let cancelled = "stackelberg_answers_total{outcome=\"cancelled\"}";
        let mut count = 0.0;
        for (guidance, stream) in [
            (Value::Null, true),
            (Value::Null, false),
            (json!({"reward": "model"}), true),
            (json!({"reward": "model", "method": "best-of-n", "samples": 8}), false),
            (json!({"reward": "model", "method": "best-of-n", "samples": 8}), true),
        ] {
            let body = json!({"prompt": "w1", "max_tokens": 3900, "ignore_eos": true, "n": 8, "guidance": guidance,
                              "stream": stream});
            // Of a stream, the body is what holds the request; else the future of its answer.
            let response = match stream {
                true => Some(client.send(post(TEXT, body.to_string())).await),
                false => None,
            };
            let asked = tokio::spawn({
                let client = client.clone();
                async move {
                    if !stream {
                        drop(client.send(post(TEXT, body.to_string())).await);
                    }
                }
            });
            eventually("it runs", || async { client.metric("stackelberg_running").await == 8.0 }).await;
            let generated = client.metric("stackelberg_generated_tokens_total").await;
            drop(response);
            asked.abort();
            count += 8.0;
            eventually("it is cancelled", || async { client.metric(cancelled).await == count }).await;
            assert_eq!(client.metric("stackelberg_running").await, 0.0);
            let after = client.metric("stackelberg_generated_tokens_total").await;
            assert!(after - generated < 8.0 * 3000.0, "it went on to the end");
        }
        // The places are free again.
        client.good(TEXT, json!({"prompt": "w1"})).await;
    });
}

#[test]
fn the_server_says_what_it_is() {
    block_on(async {
        let own = server(Config::default());
        assert_eq!(own.get("/v1/models/tiny").await.json()["id"], "tiny");
        let other = own.get("/v1/models/org/other").await;
        assert_eq!((other.status, &other.json()["error"]["code"]), (404, &json!("model_not_found")));
        let client = server(Config::default());
        let models = client.get("/v1/models").await.json();
        assert_eq!(models["data"][0]["id"], "tiny");
        assert_eq!(models["data"][0]["max_model_len"], 4000);
        assert_eq!(
            (&models["rewards"], &models["values"]),
            (&json!(["head", "model", "ones"]), &json!(["v"]))
        );
        assert_eq!(client.get("/health").await.json(), json!({"status": "ok"}));
        assert_eq!(client.get("/version").await.json(), json!({"version": env!("CARGO_PKG_VERSION")}));
        let openapi = client.get("/openapi.json").await.json();
        for (path, method) in [
            ("/v1/chat/completions", "post"),
            ("/v1/completions", "post"),
            ("/tokenize", "post"),
            ("/score", "post"),
            ("/classify", "post"),
            ("/pooling", "post"),
            ("/shape", "post"),
            ("/v1/models", "get"),
            ("/metrics", "get"),
        ] {
            let responses = openapi["paths"][path][method]["responses"].as_object().unwrap();
            for (status, response) in responses {
                assert!(
                    response["description"].as_str().is_some_and(|said| !said.is_empty()),
                    "{path} {status}"
                );
            }
        }
        let schemas = openapi["components"]["schemas"].as_object().unwrap();
        for name in schemas.keys() {
            assert!(!["Vec", "Option", "BTreeMap"].contains(&name.as_str()), "{name}");
        }
        let mut names = Vec::new();
        for (path, methods) in openapi["paths"].as_object().unwrap() {
            for operation in methods.as_object().unwrap().values() {
                names.push(operation["operationId"].as_str().unwrap());
                let responses = operation["responses"].as_object().unwrap();
                assert!(responses.contains_key("4XX") && responses.contains_key("5XX"), "{path}");
            }
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "an operation id is given twice");
        let guidance = openapi["components"]["schemas"]["Guidance"]["properties"].as_object().unwrap();
        for field in ["method", "reward", "strength", "kl_budget", "samples", "trace", "extends"] {
            assert!(guidance.contains_key(field), "{field}");
        }
        assert!(!guidance.contains_key("max_new_tokens"));
        assert_eq!(openapi["components"]["securitySchemes"]["key"]["scheme"], "bearer");
        let content = &openapi["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"];
        assert!(content["application/json"].is_object() && content["text/event-stream"].is_object());
        let chat = &schemas["ChatRequest"]["properties"];
        assert!(chat["messages"].is_object() && chat["guidance"].is_object());
    });
}

#[test]
fn counters_count() {
    block_on(async {
        let client = server(Config::default());
        let prompt: Vec<u32> = (0..70).map(|i| i % 30).collect();
        let body = json!({"prompt": prompt, "max_tokens": 5, "ignore_eos": true, "guidance": {"reward": "head"}});
        for _ in 0..2 {
            client.good(TEXT, body.clone()).await;
        }
        client.ask(TEXT, json!({"prompt": ""})).await;
        for (line, value) in [
            ("stackelberg_http_requests_total{path=\"/v1/completions\",status=\"200\"}", 2.0),
            ("stackelberg_http_requests_total{path=\"/v1/completions\",status=\"400\"}", 1.0),
            ("stackelberg_answers_total{outcome=\"length\"}", 2.0),
            ("stackelberg_prompt_tokens_total", 140.0),
            ("stackelberg_generated_tokens_total", 10.0),
            ("stackelberg_time_to_first_token_seconds_count", 2.0),
            ("stackelberg_time_between_tokens_seconds_count", 8.0),
            // A page has 64 tokens.
            ("stackelberg_cache_hit_tokens_total", 64.0),
            ("stackelberg_cache_miss_tokens_total", 76.0),
        ] {
            assert_eq!(client.metric(line).await, value, "{line}");
        }
        let guided = client.metric("stackelberg_guided_steps_total").await;
        assert_eq!(guided + client.metric("stackelberg_skipped_steps_total").await, 10.0);
        for line in
            ["stackelberg_cache_bytes", "stackelberg_model_bytes", "stackelberg_policy_tokens_total"]
        {
            assert!(client.metric(line).await > 0.0, "{line}");
        }
        // What clients write is no label.
        client.get("/made/up/path").await;
        let text = client.get("/metrics").await.text;
        assert!(!text.contains("made") && text.ends_with("# EOF\n"));
    });
}
