//! The tokenizer over HTTP.

use serde_json::json;
use stackelberg_server::Config;

use crate::common::{block_on, server};

#[test]
fn texts_and_messages_are_tokenized() {
    block_on(async {
        let client = server(Config::default());
        let text = client
            .good("/tokenize", json!({"model": "tiny", "prompt": "w3 w4 w5", "return_token_strs": true}))
            .await;
        let expected = json!({"count": 3, "max_model_len": 4000, "tokens": [3, 4, 5], "token_strs": ["w3", "w4", "w5"]});
        assert_eq!(text.json(), expected);
        let chat = json!({"messages": [{"role": "user", "content": "w3"}]});
        assert_eq!(client.good("/tokenize", chat).await.json()["tokens"], json!([30, 0, 3, 31, 32, 33]));
        let chat = json!({"messages": [{"role": "user", "content": "w3"}], "continue_final_message": true,
                          "add_generation_prompt": false});
        let found = client.good("/tokenize", chat).await.json();
        assert_eq!((&found["tokens"], &found["token_strs"]), (&json!([30, 0, 3]), &json!(null)));
        assert_eq!(
            client.good("/detokenize", json!({"tokens": [3, 4]})).await.json(),
            json!({"prompt": "w3 w4"})
        );
        assert_eq!(
            client.good("/detokenize", json!({"tokens": []})).await.json(),
            json!({"prompt": ""})
        );
        let info = client.get("/tokenizer_info").await.json();
        assert_eq!((&info["bos_token"], &info["eos_token"]), (&json!("w1"), &json!("w2")));
        assert_eq!((&info["vocab_size"], &info["eos_token_ids"]), (&json!(40), &json!([2, 3])));
        assert!(info["chat_template"].as_str().unwrap().contains("add_generation_prompt"));
        for (path, body, param) in [
            ("/tokenize", json!({}), "prompt"),
            ("/tokenize", json!({"prompt": "w1", "messages": []}), "prompt"),
            ("/tokenize", json!({"messages": []}), "messages"),
            ("/detokenize", json!({"tokens": [40]}), "tokens"),
            ("/detokenize", json!({"tokens": [-1]}), "tokens[0]"),
        ] {
            let reply = client.ask(path, body.clone()).await;
            assert_eq!(
                (reply.status, &reply.json()["error"]["param"]),
                (400, &json!(param)),
                "{body}: {}",
                reply.text
            );
        }
    });
}
