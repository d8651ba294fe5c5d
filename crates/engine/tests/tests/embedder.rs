//! Sentence embedders against sentence-transformers and transformers (see `tests/data/README.md`).

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::{Value, json};
use stackelberg_engine::embedder::{Embedder, Pooling, Truncate};

use crate::common::tiny::choose_kernel;
use crate::common::tiny_bert::{BERT, Tiny, put};
use crate::common::weights::fetch;

#[derive(Deserialize)]
struct Golden {
    texts: Vec<Text>,
    start_cut: Text,
    tiny: HashMap<String, HashMap<String, Vec<f32>>>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    times: usize,
    #[serde(alias = "pooled")]
    embedding: Vec<f32>,
}

fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/embed.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn minilm() -> &'static Embedder {
    static MINILM: OnceLock<Embedder> = OnceLock::new();
    choose_kernel();
    MINILM.get_or_init(|| Embedder::load(&fetch("all-minilm-l6-v2")).unwrap())
}

#[track_caller]
fn close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "[{i}]: {a} is not {b} within {tolerance}");
    }
}

#[test]
fn minilm_is_that_of_sentence_transformers() {
    let Golden { texts: cases, start_cut, .. } = golden();
    assert_eq!(cases.len(), 6);
    assert_eq!((minilm().width(), minilm().max_tokens(), minilm().pooling()), (384, 256, Pooling::Mean));
    let texts: Vec<String> = cases.iter().map(|case| case.text.repeat(case.times)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for (found, case) in minilm().embed(&texts).unwrap().iter().zip(&cases) {
        close(found, &case.embedding, 1e-6);
        let norm: f32 = found.iter().map(|x| x * x).sum();
        assert!((norm - 1.0).abs() < 1e-6);
    }
    let text = start_cut.text.repeat(start_cut.times);
    let [start, end] =
        [Truncate::Start, Truncate::End].map(|cut| minilm().pooled(&[&text], cut).unwrap().remove(0));
    close(&start, &start_cut.embedding, 5e-6);
    assert_ne!(start, end);
}

/// Results are bit-identical at any batch size.
#[test]
fn a_text_is_not_touched_by_its_neighbours() {
    let words: Vec<String> = (0..70).map(|i| "some words of a text ".repeat(1 + i * 7 % 40)).collect();
    let texts: Vec<&str> = words.iter().map(String::as_str).collect();
    let together = minilm().embed(&texts).unwrap();
    for i in [0, 1, 33, 69] {
        assert_eq!(minilm().embed(&texts[i..=i]).unwrap()[0], together[i]);
    }
    let backwards: Vec<&str> = texts.iter().rev().copied().collect();
    assert!(minilm().embed(&backwards).unwrap().into_iter().rev().eq(together));
    assert!(minilm().embed(&[]).unwrap().is_empty());
}

fn load(folder: &tempfile::TempDir) -> Embedder {
    Embedder::load(folder.path()).unwrap()
}

#[track_caller]
fn refused(folder: &tempfile::TempDir, said: &[&str]) {
    let error = Embedder::load(folder.path()).err().expect("it is refused").to_string();
    for said in said {
        assert!(error.contains(said), "'{said}' is not in '{error}'");
    }
    assert!(!error.contains('\n'), "{error}");
}

const WORDS: &str = "w5 w9 w30";

#[test]
fn tiny_folders_are_those_of_transformers() {
    let golden = golden().tiny;
    let old = Tiny { prefix: "bert.", norm: ["gamma", "beta"], ..BERT };
    let roberta = Tiny { family: "roberta", prefix: "roberta.", ..BERT };
    for tiny in [BERT, old, roberta] {
        let folder = tiny.write();
        // As SimCSE is read, the longest text given by the positions alone.
        let embedder = load(&folder);
        assert_eq!(embedder.pooling(), Pooling::Pooler);
        assert_eq!(embedder.max_tokens(), if tiny.family == "roberta" { 18 } else { 20 });
        for (name, pooling) in
            [("pooler", Pooling::Pooler), ("cls", Pooling::Cls), ("mean", Pooling::Mean)]
        {
            let embedder = load(&folder).with_pooling(pooling).unwrap();
            let found = embedder.pooled(&[WORDS], Truncate::End).unwrap();
            close(&found[0], &golden[tiny.family][name], 3e-6);
        }
    }
}

#[test]
fn the_files_of_sentence_transformers_decide() {
    let folder = BERT.write();
    let module = |kind: &str, path: &str| json!({"type": format!("a.b.{kind}"), "path": path});
    let transformer = module("Transformer", "");
    put(&folder, "modules.json", json!([transformer, module("Pooling", "1_Pooling")]));
    put(&folder, "sentence_bert_config.json", json!({"max_seq_length": 6, "do_lower_case": true}));
    let pooling = |mode: Value| put(&folder, "1_Pooling/config.json", mode);

    pooling(json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}));
    assert_eq!(load(&folder).pooling(), Pooling::Cls);
    pooling(json!({"pooling_mode": "mean"}));
    let embedder = load(&folder);
    assert_eq!((embedder.pooling(), embedder.max_tokens()), (Pooling::Mean, 6));
    // Four of the words fit between the two special tokens; case does not matter.
    let texts = ["W7 W6 W5 W4 W9 W8", "w7 w6 w5 w4", "w5 w4 w9 w8", " w5 w4 w9 w8\n"];
    let cut = |truncate| embedder.pooled(&texts, truncate).unwrap();
    let [end, start] = [Truncate::End, Truncate::Start].map(cut);
    assert!(end[0] == end[1] && start[0] == start[2] && start[2] == end[2] && end[2] == end[3]);
    assert_ne!(start[0], end[0]);

    put(&folder, "sentence_bert_config.json", json!({"max_seq_length": 2}));
    refused(&folder, &["at most 2 tokens, of which 2 are special tokens: there is no room for text"]);
    pooling(json!({"pooling_mode_max_tokens": true, "pooling_mode_mean_tokens": true}));
    refused(&folder, &["1_Pooling", "config.json", "max_tokens", "mean_tokens", "only mean or cls"]);
    pooling(json!({}));
    refused(&folder, &["1_Pooling", "no pooling_mode is switched on"]);
    put(&folder, "modules.json", json!([transformer, module("Dense", "2_Dense")]));
    refused(&folder, &["modules.json", "a.b.Dense", "2_Dense", "not supported"]);
}

#[test]
fn wrong_folders_are_refused_in_one_line() {
    let missing = Tiny { without: "encoder.layer.1.output.dense", ..BERT }.write();
    refused(&missing, &["'encoder.layer.1.output.dense.weight' is missing"]);
    let shape = Tiny { config: json!({"intermediate_size": 24}), ..BERT }.write();
    refused(&shape, &["encoder.layer.0.intermediate.dense.weight", "[20, 12]", "[24, 12]"]);
    let other = json!({"architectures": ["MPNetModel"], "model_type": "mpnet"});
    refused(
        &Tiny { config: other, ..BERT }.write(),
        &["config.json", "MPNetModel", "supported are Bert, Roberta"],
    );
    let relative = json!({"position_embedding_type": "relative_key"});
    refused(&Tiny { config: relative, ..BERT }.write(), &["position_embedding_type", "relative_key"]);
    refused(&Tiny { config: json!({"hidden_act": "mish"}), ..BERT }.write(), &["hidden_act", "mish"]);
    refused(
        &Tiny { config: json!({"num_attention_heads": 5}), ..BERT }.write(),
        &["num_attention_heads"],
    );
    refused(&Tiny { config: json!({"vocab_size": "x"}), ..BERT }.write(), &["config.json", "usize"]);

    let small = BERT.write();
    let text = fs::read_to_string(small.path().join("tokenizer.json")).unwrap();
    fs::write(small.path().join("tokenizer.json"), text.replace("\"w39\":39", "\"w39\":39,\"x\":40"))
        .unwrap();
    refused(&small, &["the tokenizer knows 41 tokens, the model 40"]);

    let no_pooler = Tiny { without: "pooler", ..BERT }.write();
    assert_eq!(load(&no_pooler).pooling(), Pooling::Cls);
    let error = load(&no_pooler).with_pooling(Pooling::Pooler).err().unwrap().to_string();
    assert!(error.contains("pooler.dense.weight"), "{error}");

    let file = no_pooler.path().join("config.json");
    let error = Embedder::load(&file).err().unwrap().to_string();
    assert!(error.contains("not a folder: an embedder is a folder"), "{error}");
    fs::remove_file(no_pooler.path().join("model.safetensors")).unwrap();
    refused(&no_pooler, &["model.safetensors"]);
}
