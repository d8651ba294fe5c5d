//! Every family of decoders and encoders against transformers: hidden states, logits and scores of tiny checkpoints with
//! random weights (see `families/make.py`).

use std::fs;

use serde::Deserialize;
use serde_json::{Value, json};
use stackelberg_engine::embedder::Pooling;
use stackelberg_engine::model::Model;
use stackelberg_engine::reward::{Classifier, Exchange, RewardFormat, TextReward};
use stackelberg_engine::{Dtype, Embedder, Message, Prompt};

use crate::common::families::{
    ENCODERS, Expected, FAMILIES, distance, distances, expected, folder, rows, sharded_classifier,
};

#[test]
fn every_family_is_transformers() {
    for family in FAMILIES {
        let expected = expected(family);
        let gguf =
            (!["mistral", "gemma2-scaled"].contains(&family)).then(|| folder(family).join("model.gguf"));
        for path in [Some(folder(family)), gguf].into_iter().flatten() {
            let model = Model::load(&path, Dtype::F32).unwrap_or_else(|error| panic!("{error}"));
            let (hidden, logits) = distances(&model, &expected);
            assert!(hidden < 1e-4 && logits < 1e-4, "{}: {hidden} {logits}", path.display());
            let model = Model::load(&path, Dtype::Bf16).unwrap();
            let (hidden, logits) = distances(&model, &expected);
            assert!(hidden < 0.2 && logits < 0.2, "{} in bf16: {hidden} {logits}", path.display());
        }
        for (dtype, near) in [(Dtype::Int8, 0.3), (Dtype::Q4, 1.0)] {
            let model = Model::load(&folder(family), dtype).unwrap();
            let (hidden, _) = distances(&model, &expected);
            assert!(hidden > 1e-3 && hidden < near, "{family} in {dtype}: {hidden}");
        }
    }
}

/// Token by token, in chunks, as candidates among others: results are bit-identical.
#[test]
fn branches_are_sequential_decoding() {
    for family in FAMILIES {
        let model = Model::load(&folder(family), Dtype::F32).unwrap();
        let tokens = expected(family).tokens;
        let (_, whole) = model.prefill(&tokens).unwrap();
        let whole = rows(&whole);
        let (mut prefix, mut last) = (model.empty(), Vec::new());
        for (i, &token) in tokens.iter().enumerate() {
            if i > 0 {
                let candidates = [(token + 1) % 80, token, (token + 7) % 80];
                let ahead = model.branch(&prefix, &candidates).unwrap();
                assert_eq!(rows(&ahead.hidden)[1], whole[i], "{family}: candidate at {i}");
            }
            if i % 3 == 1 {
                let ahead = model.branch(&prefix, &[token]).unwrap();
                prefix.commit(&ahead, 0).unwrap();
                last = rows(&ahead.hidden).remove(0);
            } else {
                last = rows(&model.extend(&mut prefix, &[token]).unwrap()).remove(0);
            }
            assert_eq!(last, whole[i], "{family}: token {i}");
        }
        assert!(!last.is_empty());
    }
}

#[test]
fn every_classifier_is_transformers() {
    for family in FAMILIES {
        let Expected { tokens, score: Some(score), classifier: Some(classifier), .. } = expected(family)
        else {
            assert_eq!(family, "olmo2", "transformers has a classifier of {family}");
            continue;
        };
        let shards = sharded_classifier(family, &classifier);
        let model = Model::load(shards.path(), Dtype::F32).unwrap();
        let head = model.score().unwrap();
        let (_, hidden) = model.prefill(&tokens).unwrap();
        let last = rows(&hidden).pop().unwrap();
        let found: f32 = last.iter().zip(&head.rows[0]).map(|(h, w)| h * w).sum();
        assert!((found - score).abs() < 1e-4 * (1.0 + score.abs()), "{family}: {found} not {score}");
    }
}

/// The text model of a multimodal model is read as a plain model; the rest is ignored.
#[test]
fn the_text_part_of_a_multimodal_gemma_is_gemma() {
    let expected = expected("gemma3");
    let plain = Model::load(&folder("gemma3"), Dtype::F32).unwrap();
    let plain = rows(&plain.prefill(&expected.tokens).unwrap().1);
    let bytes = fs::read(folder("gemma3").join("model.safetensors")).unwrap();
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..end]).unwrap();
    let text: Value =
        serde_json::from_str(&fs::read_to_string(folder("gemma3").join("config.json")).unwrap())
            .unwrap();
    for (prefix, sight) in [("language_model.model.", ""), ("model.language_model.", "model.")] {
        let name = |name: &str| match name.strip_prefix("model.") {
            Some(inner) => format!("{prefix}{inner}"),
            None => name.to_owned(),
        };
        let mut renamed: serde_json::Map<String, Value> =
            header.iter().map(|(key, info)| (name(key), info.clone())).collect();
        let eye = serde_json::json!({"dtype": "F32", "shape": [1], "data_offsets": [bytes.len() - end, bytes.len() - end + 4]});
        renamed.insert(format!("{sight}vision_tower.vision_model.post_layernorm.weight"), eye);
        let renamed = Value::Object(renamed).to_string();
        let length = (renamed.len() as u64).to_le_bytes();
        let multimodal = tempfile::tempdir().unwrap();
        let file = [&length[..], renamed.as_bytes(), &bytes[end..], &[0; 4]].concat();
        fs::write(multimodal.path().join("model.safetensors"), file).unwrap();
        let config = serde_json::json!({"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text,
            "vision_config": {"hidden_size": 8}, "eos_token_id": [1, 106]});
        fs::write(multimodal.path().join("config.json"), config.to_string()).unwrap();
        let model = Model::load(multimodal.path(), Dtype::F32).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(rows(&model.prefill(&expected.tokens).unwrap().1), plain, "{prefix}");
    }
}

#[derive(Deserialize)]
struct Classified {
    texts: Vec<String>,
    logits: Vec<Vec<f32>>,
    #[serde(default)]
    pairs: Vec<(String, String)>,
    #[serde(default)]
    pair_logits: Vec<Vec<f32>>,
}

/// Classifiers over encoders: logits, in a batch and alone, and the rewards of their labels.
#[test]
fn every_encoder_is_transformers() {
    for family in ENCODERS {
        let folder = folder(family);
        let expected: Classified =
            serde_json::from_str(&fs::read_to_string(folder.join("expected.json")).unwrap()).unwrap();
        assert!(Classifier::is_in(&folder));
        let classifier = Classifier::load(&folder, Some("good-bad")).unwrap();
        let texts: Vec<&str> = expected.texts.iter().map(String::as_str).collect();
        let logits = classifier.logits(&texts).unwrap();
        for ((found, expected), text) in logits.iter().zip(&expected.logits).zip(&texts) {
            assert!(distance(found, expected) < 1e-4, "{family}: {found:?} not {expected:?}");
            assert_eq!(classifier.logits(&[text]).unwrap()[0], *found, "{family}: alone");
        }
        let reward = TextReward::new(classifier);
        assert_eq!(reward.format(), RewardFormat::Answer);
        let found = reward.score_texts(&texts).unwrap();
        for (reward, logits) in found.iter().zip(&logits) {
            assert_eq!(*reward, f64::from(logits[1]) - f64::from(logits[0]));
        }
        // Prompt and answer as a pair.
        let reward = reward.with_format(RewardFormat::Pair).unwrap();
        let pairs: Vec<(Prompt, &str)> =
            expected.pairs.iter().map(|(q, a)| (Prompt::Text(q.clone()), a.as_str())).collect();
        let pairs: Vec<_> = pairs.iter().map(|(prompt, answer)| Exchange { prompt, answer }).collect();
        let found = reward.score(&pairs).unwrap();
        for ((found, logits), pair) in found.iter().zip(&expected.pair_logits).zip(&pairs) {
            let expected = logits[1] - logits[0];
            assert!(distance(&[*found as f32], &[expected]) < 2e-4, "{family}: {found} not {expected}");
            assert_eq!(reward.score(&[*pair]).unwrap(), [*found], "{family}: a pair alone");
        }
        if family == "electra" {
            let asked = Prompt::Messages(vec![Message::new("user", "w5")]);
            let error = reward.score(&[Exchange { prompt: &asked, answer: "w6" }]).unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("tokenizer.json: its post_processor puts nothing between two")
            );
        }
        let refused = |label| Classifier::load(&folder, label).err().unwrap().to_string();
        assert!(
            refused(None)
                .contains("has the labels bad, good: choose one behind a '#', or two as GOOD-BAD")
        );
        assert!(refused(Some("odd")).contains("has no label 'odd': it has bad, good"));
        assert!(Classifier::load(&folder, Some("good")).is_ok());
    }
}

/// A copy of a classifier with another value in its configuration.
fn with(family: &str, field: &str, value: Value) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(folder(family).join(file), copy.path().join(file)).unwrap();
    }
    let path = copy.path().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config[field] = value;
    fs::write(&path, config.to_string()).unwrap();
    copy
}

#[test]
fn labels_may_have_hyphens() {
    let copy = with("deberta", "id2label", json!({"0": "non-toxic", "1": "toxic"}));
    let score = |label| {
        let classifier = Classifier::load(copy.path(), Some(label)).unwrap();
        TextReward::new(classifier).score_texts(&["w5 w6"]).unwrap()[0]
    };
    let (good, bad) = (score("non-toxic"), score("toxic"));
    assert_eq!([score("non-toxic-toxic"), score("toxic-non-toxic")], [good - bad, bad - good]);
}

/// The encoders of classifiers are embedders too, with CLS pooling.
#[test]
fn encoders_are_embedders() {
    for family in ["deberta", "modernbert"] {
        let embedder = Embedder::load(&folder(family)).unwrap();
        assert_eq!((embedder.pooling(), embedder.width()), (Pooling::Cls, 32));
        let found = embedder.embed(&["w5 w6", "w7"]).unwrap();
        assert_eq!(embedder.embed(&["w7"]).unwrap()[0], found[1]);
    }
}

/// Unsupported values in a configuration are refused with the name of the field; equivalent spellings are read.
#[test]
fn configurations_of_encoders_are_read_or_refused() {
    let cases = [
        (
            "deberta",
            "hidden_act",
            json!("mish"),
            "hidden_act is 'mish': known are gelu, gelu_new, silu and relu",
        ),
        (
            "deberta",
            "pos_att_type",
            json!("c2p|p2p"),
            "pos_att_type has 'p2p': only c2p and p2c are supported",
        ),
        (
            "deberta",
            "norm_rel_ebd",
            json!("batch"),
            "norm_rel_ebd is 'batch': only layer_norm and none are",
        ),
        (
            "deberta",
            "conv_kernel_size",
            json!(3),
            "conv_kernel_size: DeBERTa's convolution is not supported",
        ),
        ("deberta", "position_buckets", json!(1), "position_buckets is 1 for distances up to 64 tokens"),
        (
            "deberta",
            "position_buckets",
            json!(16),
            "'deberta.encoder.rel_embeddings.weight' has shape [16, 32]",
        ),
        (
            "deberta",
            "share_att_key",
            json!(false),
            "'deberta.encoder.layer.0.attention.self.pos_key_proj.weight'",
        ),
        ("deberta", "pooler_hidden_act", json!("mish"), "pooler_hidden_act is 'mish': known are"),
        ("deberta", "pos_att_type", json!(["p2c", "c2p"]), ""),
        ("deberta", "num_labels", json!(5), ""),
        ("deberta", "problem_type", json!("regression"), ""),
        (
            "modernbert",
            "classifier_pooling",
            json!("max"),
            "classifier_pooling is \"max\": known are cls and mean",
        ),
        (
            "modernbert",
            "classifier_activation",
            json!("mish"),
            "classifier_activation is 'mish': known are",
        ),
        ("modernbert", "hidden_activation", json!("mish"), "hidden_act is 'mish'"),
        (
            "modernbert",
            "mlp_bias",
            json!(true),
            "mlp_bias: biases in feed-forward layers are not supported",
        ),
        ("modernbert", "attention_bias", json!(true), "'model.layers.0.attn.Wqkv.bias' is missing"),
        ("modernbert", "global_attn_every_n_layers", json!(0), "global_attn_every_n_layers is 0"),
        (
            "modernbert",
            "layer_types",
            json!(["full_attention"]),
            "layer_types: one of full_attention and",
        ),
        (
            "modernbert",
            "rope_parameters",
            json!({"full_attention": {"rope_type": "yarn"}}),
            "rope_type 'yarn' is not",
        ),
        ("modernbert", "layer_norm_eps", json!(1e-5), ""),
    ];
    for (family, field, value, said) in cases {
        let copy = with(family, field, value);
        match Classifier::load(copy.path(), Some("good")) {
            Ok(_) => assert_eq!(said, "", "{family}: {field}"),
            Err(error) => {
                let error = error.to_string();
                assert!(
                    !said.is_empty() && error.contains(said) && !error.contains('\n'),
                    "{field}: {error}"
                );
            }
        }
    }
}
