//! `tokenizer.json`: texts to tokens and back, alone and in an encoder.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use stackelberg_engine::{Embedder, TextStream, Tokenizer};
use stackelberg_fuzz::{case, folder, lay_out};

fuzz_target!(|json: &[u8]| {
    case(|| {
        lay_out("bert", "tokenizer.json", json);
        let Ok(tokenizer) = Tokenizer::from_file(&folder().join("tokenizer.json")) else { return };
        let tokenizer = Arc::new(tokenizer);
        for text in ["", "w5 w6", " Grüße, 3.14 日本\u{301}\r\n<s> "] {
            let tokens = tokenizer.encode(text, true).unwrap_or_default();
            let _ = tokenizer.decode(&tokens, false);
            let mut stream = TextStream::new(&tokenizer);
            for token in tokens.into_iter().chain(0..8) {
                let _ = stream.push(token);
            }
        }
        if let Ok(embedder) = Embedder::load(folder()) {
            let _ = embedder.embed(&["w5 w6", " Grüße, 3.14 日本\u{301} "]);
        }
    });
});
