//! Heads on an embedder: their inputs, and the checks that a head fits its embedder.

use std::collections::HashMap;
use std::path::PathBuf;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;
use stackelberg_engine::embedder::{Embedder, Pooling, Truncate};
use stackelberg_engine::reward::{EmbeddedHead, Exchange, Head, TextReward};
use stackelberg_engine::{Checkpoint, Message, Prompt, Reward};

use crate::common::tiny;
use crate::common::tiny_bert::{BERT, Tiny};

/// Writes a head with these metadata in addition to its format.
fn head(folder: &tempfile::TempDir, width: usize, metadata: &[(&str, &str)]) -> PathBuf {
    let weight: Vec<u8> = (0..width).flat_map(|i| (i as f32 - 3.5).to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![1, width], &weight).unwrap();
    let mut all = HashMap::from([("format".to_owned(), "stackelberg-head".to_owned())]);
    all.extend(metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())));
    let path = folder.path().join("head.safetensors");
    safetensors::serialize_to_file([("score.weight", view)], Some(all), &path).unwrap();
    path
}

const ON_EMBEDDER: [(&str, &str); 2] = [("backbone", "embedder"), ("pooling", "mean")];

fn embedder(folder: &tempfile::TempDir) -> Embedder {
    Embedder::load(folder.path()).unwrap().with_pooling(Pooling::Mean).unwrap()
}

#[test]
fn scores_are_products_with_the_embedding() {
    let folder = BERT.write();
    let scaled = [&ON_EMBEDDER[..], &[("reward_mean", "0.25"), ("reward_std", "2.0")]].concat();
    let path = head(&folder, 12, &scaled);
    let reward = EmbeddedHead::load(&path, embedder(&folder)).unwrap();
    // More words than the 20 places hold: the end is read.
    let long = "w7 ".repeat(30) + "w8 w9";
    let texts = ["w5 w9 w30", &long, ""];
    let found = reward.score_texts(&texts).unwrap();
    let embeddings = embedder(&folder).embed_cut(&texts, Truncate::Start).unwrap();
    for (found, embedding) in found.iter().zip(&embeddings) {
        let raw: f64 = embedding.iter().enumerate().map(|(i, x)| f64::from(*x) * (i as f64 - 3.5)).sum();
        assert!((found - (raw - 0.25) / 2.0).abs() < 1e-9);
        let norm: f64 = embedding.iter().map(|x| f64::from(*x).powi(2)).sum();
        assert!((norm - 1.0).abs() < 1e-6);
    }
    assert_ne!(found[1], reward.score_texts(&[&"w7 ".repeat(30)]).unwrap()[0]);
    // Bit-identical, alone or together.
    for (text, found) in texts.iter().zip(found) {
        assert_eq!(reward.score_texts(&[text]).unwrap(), [found]);
    }
}

#[test]
fn prompts_are_laid_out_as_conversations() {
    let turns = |turns: &[(&str, &str)]| {
        Prompt::Messages(turns.iter().map(|(role, content)| Message::new(*role, *content)).collect())
    };
    let conversation = turns(&[("user", "a"), ("assistant", "b"), ("user", "c")]);
    for (prompt, text) in [
        (Prompt::Text("a".into()), "\n\nHuman: a\n\nAssistant: r"),
        (turns(&[("user", "a")]), "\n\nHuman: a\n\nAssistant: r"),
        (Prompt::Text("\n\nHuman: a\n\nAssistant:".into()), "\n\nHuman: a\n\nAssistant: r"),
        (Prompt::Text("\n\nHuman: a".into()), "\n\nHuman: a\n\nAssistant: r"),
        (conversation, "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: r"),
    ] {
        assert_eq!(TextReward::lay_out(&prompt, " r"), text);
    }
    let folder = BERT.write();
    let reward = EmbeddedHead::load(&head(&folder, 12, &ON_EMBEDDER), embedder(&folder)).unwrap();
    let (one, other) = (Prompt::Text("w4".into()), Prompt::Text("w5 w6".into()));
    let reward = TextReward::new(reward);
    let exchanges = [Exchange { prompt: &one, answer: "w8" }, Exchange { prompt: &other, answer: "w9" }];
    let texts = ["\n\nHuman: w4\n\nAssistant: w8", "\n\nHuman: w5 w6\n\nAssistant: w9"];
    assert_eq!(reward.score(&exchanges).unwrap(), reward.score_texts(&texts).unwrap());
}

#[test]
fn heads_and_backbones_are_not_mixed_up() {
    let folder = BERT.write();
    let refused = |width: usize, metadata: &[(&str, &str)], said: &[&str]| {
        let path = head(&folder, width, metadata);
        let error =
            EmbeddedHead::load(&path, embedder(&folder)).err().expect("it is refused").to_string();
        for said in said.iter().chain(&["head.safetensors: "]) {
            assert!(error.contains(said), "'{said}' is not in '{error}'");
        }
    };
    refused(12, &[], &["a head on a policy's own hidden states, not on an embedder"]);
    refused(9, &ON_EMBEDDER, &["width 9", "have 12"]);
    refused(12, &[ON_EMBEDDER[0], ("pooling", "cls")], &["trained with cls pooling", "has mean"]);
    refused(12, &[ON_EMBEDDER[0], ("pooling", "max")], &["unknown pooling 'max'"]);
    refused(12, &[("backbone", "oracle")], &["unknown backbone 'oracle'", "policy and embedder"]);
    let other = [&ON_EMBEDDER[..], &[("base", "0123456789abcdef")]].concat();
    refused(12, &other, &["the embedder 0123456789ab, not on this one", "train one for it"]);

    let fingerprint = embedder(&folder).fingerprint;
    let own = [&ON_EMBEDDER[..], &[("base", &fingerprint[..])]].concat();
    EmbeddedHead::load(&head(&folder, 12, &own), embedder(&folder)).unwrap();
    let changed = Tiny { config: json!({}), norm: ["gamma", "beta"], ..BERT }.write();
    assert_ne!(embedder(&changed).fingerprint, fingerprint);

    // A head on an embedder cannot guide a policy.
    let policy = tempfile::tempdir().unwrap();
    tiny::Tiny::default().write(policy.path());
    let policy = Checkpoint::load(policy.path(), stackelberg_engine::Dtype::F32).unwrap();
    let named = [&ON_EMBEDDER[..], &[("base_name", "all-minilm-l6-v2")]].concat();
    let path = head(&folder, tiny::D, &named);
    let error = Reward::load(&path, &policy, stackelberg_engine::Dtype::F32).err().unwrap().to_string();
    assert!(
        error
            .ends_with("a head on an embedder (all-minilm-l6-v2), not on the hidden states of a policy"),
        "{error}"
    );
    let plain = Head::load(&head(&folder, tiny::D, &[])).unwrap();
    plain.fits(&policy).unwrap();
}
