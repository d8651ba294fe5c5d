//! The policy's hidden states over HTTP, in the shape of vLLM's `/pooling`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use stackelberg_server::Config;

use crate::common::{CONTEXT, block_on, loaded, server};
use crate::tiny::D;

/// The hidden states of a text, as the model in this process computes them.
fn local(tokens: &[u32]) -> Vec<Vec<f32>> {
    loaded().0.model.prefill(tokens).unwrap().1.to_vec2().unwrap()
}

#[test]
fn states_are_those_of_the_model() {
    block_on(async {
        let client = server(Config::default());
        let rows = |answer: &Value| -> Vec<Vec<f32>> {
            serde_json::from_value(answer["data"][0]["data"].clone()).unwrap()
        };
        // Longer than a chunk.
        let text: Vec<u32> = (0..150).map(|i| i * 7 % 40).collect();
        let body = json!({"model": "tiny", "input": text, "use_activation": false});
        let answer = client.good("/pooling", body.clone()).await.json();
        assert_eq!(rows(&answer), local(&text));
        assert_eq!(answer["usage"]["prompt_tokens"], 150);
        let mut packed = body.clone();
        (packed["encoding_format"], packed["task"]) = (json!("base64"), json!("token_embed"));
        let answer = client.good("/pooling", packed).await.json();
        let bytes = STANDARD.decode(answer["data"][0]["data"].as_str().unwrap()).unwrap();
        let numbers: Vec<f32> =
            bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        assert_eq!(numbers, local(&text).concat());
        assert_eq!(numbers.len(), 150 * D);
        let body = json!({"input": [text, [1, 2]], "task": "embed"});
        let answer = client.good("/pooling", body).await.json();
        for (index, text) in [&text[..], &[1, 2]].into_iter().enumerate() {
            let one = &answer["data"][index];
            let found: Vec<f32> = serde_json::from_value(one["data"].clone()).unwrap();
            assert_eq!((&one["index"], Some(&found)), (&json!(index), local(text).last()));
        }
    });
}

#[test]
fn wrong_texts_are_refused() {
    block_on(async {
        let client = server(Config::default());
        for (body, status, field) in [
            (json!({"model": "nobody", "input": [1]}), 404, "model"),
            (json!({"input": "w1"}), 400, "input"),
            (json!({"input": []}), 400, "input"),
            (json!({"input": [[1], []]}), 400, "input"),
            (json!({"input": [40]}), 400, "input"),
            (json!({"input": vec![[1, 2]; CONTEXT / 2 + 1]}), 400, "input"),
            (json!({"input": [1], "use_activation": true}), 400, "use_activation"),
            (json!({"input": [1], "task": "classify"}), 400, "task"),
            (json!({"input": [1], "truncate_prompt_tokens": 3}), 400, "truncate_prompt_tokens"),
        ] {
            let reply = client.ask("/pooling", body.clone()).await;
            assert_eq!(reply.status, status, "{}: {}", body.to_string().len(), reply.text);
            assert!(reply.text.contains(field), "{}", reply.text);
        }
    });
}
