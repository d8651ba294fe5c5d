//! The page for people, and what it is told about methods.

use serde_json::json;
use stackelberg_server::{Config, Keys};

use crate::common::{block_on, server};

#[test]
fn the_page_has_all_files_that_it_names_and_needs_no_key() {
    block_on(async {
        let client = server(Config { keys: Keys::new(["one"]).unwrap(), ..Config::default() });
        let page = client.get("/").await;
        assert_eq!(
            (page.status, &page.headers["content-type"]),
            (200, &"text/html; charset=utf-8".parse().unwrap())
        );
        let policy = page.headers["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
        let mut left = vec![page.text];
        let mut seen = Vec::new();
        while let Some(text) = left.pop() {
            // Paths in the page, and imports in scripts.
            let quoted = text
                .split('"')
                .filter_map(|part| part.strip_prefix("/playground/").or(part.strip_prefix("./")));
            for name in quoted
                .filter(|name| !seen.contains(&(*name).to_owned()))
                .map(str::to_owned)
                .collect::<Vec<_>>()
            {
                let file = client.get(&format!("/playground/{name}")).await;
                assert_eq!(file.status, 200, "{name}");
                let kind = if name.ends_with(".css") {
                    "text/css; charset=utf-8"
                } else {
                    "text/javascript; charset=utf-8"
                };
                assert_eq!(file.headers["content-type"], kind, "{name}");
                left.push(file.text);
                seen.push(name);
            }
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 8, "{seen:?}");
        assert_eq!(client.get("/playground/nope.js").await.status, 404);
        assert_eq!(client.get("/playground/..%2Froutes.rs").await.status, 404);
        assert_eq!(client.get("/v1/models").await.status, 401);
    });
}

#[test]
fn models_tell_each_method_s_settings_and_they_are_accepted() {
    block_on(async {
        let client = server(Config::default());
        let models = client.get("/v1/models").await.json();
        let methods = models["methods"].as_array().unwrap();
        assert_eq!(methods.len(), 8);
        for method in methods {
            let mut guidance = method["defaults"].clone();
            let mut body = json!({"prompt": "w1", "max_tokens": 2, "seed": 1});
            for field in ["temperature", "top_p"] {
                if let Some(value) = guidance.as_object_mut().unwrap().remove(field) {
                    body[field] = value;
                }
            }
            guidance["method"] = method["name"].clone();
            let needs = method["needs"].as_array().unwrap();
            let name = &method["name"];
            if !needs.is_empty() {
                body["guidance"] = guidance.clone();
                assert_eq!(
                    client.ask("/v1/completions", body.clone()).await.status,
                    400,
                    "{name} lacks {needs:?}"
                );
            }
            for need in needs {
                guidance[need.as_str().unwrap()] =
                    models[format!("{}s", need.as_str().unwrap())][0].clone();
            }
            // A block is no longer than the answer; a bound and a budget exclude each other.
            if guidance.get("block").is_some() {
                guidance["block"] = json!(2);
            }
            if guidance.get("kl_budget").is_some() {
                guidance.as_object_mut().unwrap().remove("bound");
            }
            body["guidance"] = guidance;
            let told = client.good("/v1/completions", body.clone()).await.json();
            body["guidance"].as_object_mut().unwrap().retain(|field, _| {
                needs.contains(&json!(field)) || field == "method" || field == "block"
            });
            for field in ["temperature", "top_p"] {
                body.as_object_mut().unwrap().remove(field);
            }
            let usual = client.good("/v1/completions", body).await.json();
            assert_eq!(
                told["choices"], usual["choices"],
                "{name}: told defaults are not those in force"
            );
        }
    });
}
