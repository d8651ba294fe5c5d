//! The forward pass by candle's operations against transformers: on candle's CPU device and, in a build for a GPU, on the
//! GPU.
//!
//! `cargo test --release -p stackelberg-engine --features cuda --test tests -- device:: --ignored --nocapture` measures
//! the GPU, with the model in the folder or file `STACKELBERG_MODEL`.

use std::path::PathBuf;

use serde_json::json;
use stackelberg_engine::model::Segment;
use stackelberg_engine::reward::{PromptInput, Question, ask};
use stackelberg_engine::{Checkpoint, Device, Dtype, Model, Reward};

use crate::common::families::{
    Expected, FAMILIES, distance, distances, expected, folder, rows, sharded_classifier,
};
use crate::common::tiny::Tiny;

/// The devices on which these tests run.
fn places() -> Vec<Device> {
    let mut places = vec![Device::Candle];
    places.extend(cfg!(feature = "cuda").then_some(Device::Cuda(0)));
    places.extend(cfg!(feature = "metal").then_some(Device::Metal(0)));
    places
}

fn load(family: &str, place: Device) -> Model {
    Model::load_on(&folder(family), Dtype::F32, place).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn close(found: &[f32], expected: &[f32], what: &str) {
    let apart = distance(found, expected);
    assert!(apart < 1e-5, "{what}: {apart}");
}

#[test]
fn every_family_is_transformers() {
    for (family, place) in FAMILIES.into_iter().flat_map(|f| places().into_iter().map(move |p| (f, p))) {
        let expected = expected(family);
        let gguf =
            (!["mistral", "gemma2-scaled"].contains(&family)).then(|| folder(family).join("model.gguf"));
        for path in [Some(folder(family)), gguf].into_iter().flatten() {
            let at = format!("{} on {place}", path.display());
            let model = Model::load_on(&path, Dtype::F32, place).unwrap();
            let (hidden, logits) = distances(&model, &expected);
            assert!(hidden < 1e-4 && logits < 1e-4, "{at}: {hidden} {logits}");
            let kernels = Model::load(&path, Dtype::F32).unwrap();
            assert_eq!(model.parameters(), kernels.parameters(), "{at}");
            assert_eq!(model.bytes(), 4 * weights(&model), "{at}");
            let model = Model::load_on(&path, Dtype::Bf16, place).unwrap();
            let (hidden, logits) = distances(&model, &expected);
            assert!(hidden < 0.2 && logits < 0.2, "{at} in bf16: {hidden} {logits}");
        }
    }
}

/// Number of weights in all matrices.
fn weights(model: &Model) -> usize {
    let c = model.config();
    let attention = 2 * (c.heads + c.kv_heads) * c.head_dim;
    let feed_forward = (if c.gated { 3 } else { 2 }) * c.intermediate;
    let tables = (if c.tied { 1 } else { 2 }) * c.vocabulary;
    (c.layers * (attention + feed_forward) + tables) * c.hidden
}

/// Both implementations round alike, so they only differ by the order of sums.
#[test]
fn bf16_is_that_of_the_kernels() {
    for (family, place) in FAMILIES.into_iter().flat_map(|f| places().into_iter().map(move |p| (f, p))) {
        let tokens = expected(family).tokens;
        let last = |place| {
            let model = Model::load_on(&folder(family), Dtype::Bf16, place).unwrap();
            rows(&model.prefill(&tokens).unwrap().1).pop().unwrap()
        };
        let apart = distance(&last(place), &last(Device::Cpu));
        assert!(apart < 0.1, "{family} on {place}: {apart}");
    }
}

/// Token by token, in chunks, as candidates among others, committed or prefilled.
#[test]
fn branches_are_sequential_decoding() {
    for (family, place) in FAMILIES.into_iter().flat_map(|f| places().into_iter().map(move |p| (f, p))) {
        let (model, tokens) = (load(family, place), expected(family).tokens);
        let (_, whole) = model.prefill(&tokens).unwrap();
        let whole = rows(&whole);
        let mut prefix = model.empty();
        for (i, &token) in tokens.iter().enumerate() {
            let at = format!("{family} on {place}, token {i}");
            let candidates = [(token + 1) % 80, token, (token + 7) % 80];
            let ahead = model.branch(&prefix, &candidates).unwrap();
            close(&rows(&ahead.hidden)[1], &whole[i], &at);
            if i % 3 == 1 {
                prefix.commit(&ahead, 1).unwrap();
                assert!(prefix.commit(&ahead, 1).is_err(), "behind another prefix now");
            } else {
                close(&rows(&model.extend(&mut prefix, &[token]).unwrap())[0], &whole[i], &at);
            }
        }
        assert_eq!(prefix.tokens(), tokens);
        let mut pieces = model.empty();
        let (first, second) = tokens.split_at(tokens.len() / 2);
        model.extend(&mut pieces, first).unwrap();
        let rest = rows(&model.extend(&mut pieces, second).unwrap());
        close(&rest.concat(), &whole[first.len()..].concat(), family);
    }
}

/// Segments of several sequences in one forward pass have the same results as alone.
#[test]
fn segments_do_not_disturb_each_other() {
    for (family, place) in FAMILIES.into_iter().flat_map(|f| places().into_iter().map(move |p| (f, p))) {
        let (model, tokens) = (load(family, place), expected(family).tokens);
        let (prefix, whole) = model.prefill(&tokens).unwrap();
        let (whole, candidates) = (rows(&whole), [0, 39, 12, 12, 7]);
        let alone = rows(&model.branch(&prefix, &candidates).unwrap().hidden);
        let (mut other, _) = model.prefill(&tokens[..3]).unwrap();
        let mut empty = model.empty();
        let out = model
            .forward(&mut [
                Segment::Read(&mut other, &tokens[3..]),
                Segment::Branch(&prefix, &candidates),
                Segment::Read(&mut empty, &tokens),
            ])
            .unwrap();
        close(&rows(&out[0].hidden).concat(), &whole[3..].concat(), family);
        close(&rows(&out[1].hidden).concat(), &alone.concat(), family);
        close(&rows(&out[2].hidden).concat(), &whole.concat(), family);
        assert_eq!((other.tokens(), empty.tokens()), (&tokens[..], &tokens[..]));
    }
}

/// Clones of a prefix share memory, and extending one does not change another.
#[test]
fn clones_go_their_own_ways() {
    for place in places() {
        let (model, tokens) = (load("gemma3", place), expected("gemma3").tokens);
        let (mut one, _) = model.prefill(&tokens).unwrap();
        let mut others = [one.clone(), one.clone()];
        let ways = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]];
        model.extend(&mut one, &ways[0][..3]).unwrap();
        let ahead = model.branch(&others[0], &ways[1]).unwrap();
        others[0].commit(&ahead, 0).unwrap();
        model.extend(&mut others[0], &ways[1][1..3]).unwrap();
        model.extend(&mut others[1], &ways[2][..3]).unwrap();
        let [two, three] = others;
        for (mut prefix, way) in [one, two, three].into_iter().zip(ways) {
            let text = [&tokens[..], &way].concat();
            let whole = rows(&model.prefill(&text).unwrap().1).pop().unwrap();
            let ahead = model.branch(&prefix, &[0, way[3]]).unwrap();
            close(&rows(&ahead.hidden)[1], &whole, "looked at");
            let read = model.extend(&mut prefix, &way[3..]).unwrap();
            close(&rows(&read)[0], &whole, "read");
            assert_eq!(prefix.tokens(), text);
        }
    }
}

/// Sequences grow beyond the memory that is allocated at a time.
#[test]
fn texts_outgrow_their_room() {
    let folder = tempfile::tempdir().unwrap();
    Tiny { config: json!({"max_position_embeddings": 1200}), ..Tiny::default() }.write(folder.path());
    for place in places() {
        let model = Model::load_on(folder.path(), Dtype::F32, place).unwrap();
        let kernels = Model::load(folder.path(), Dtype::F32).unwrap();
        let text: Vec<u32> = (0..700).map(|i| i * i % 40).collect();
        let (mut prefix, read) = model.prefill(&text).unwrap();
        close(&rows(&read).concat(), &rows(&kernels.prefill(&text).unwrap().1).concat(), "read");
        for step in 0..90 {
            let ahead = model.branch(&prefix, &[step % 40, (step + 7) % 40]).unwrap();
            prefix.commit(&ahead, 1).unwrap();
        }
        let ahead = model.branch(&prefix, &[11]).unwrap();
        let (whole, _) = kernels.prefill(prefix.tokens()).unwrap();
        let whole = kernels.branch(&whole, &[11]).unwrap();
        close(&rows(&ahead.hidden)[0], &rows(&whole.hidden)[0], "grown by candidates");
    }
}

#[test]
fn every_classifier_is_transformers() {
    for (family, place) in FAMILIES.into_iter().flat_map(|f| places().into_iter().map(move |p| (f, p))) {
        let Expected { tokens, score: Some(score), classifier: Some(classifier), .. } = expected(family)
        else {
            continue;
        };
        let shards = sharded_classifier(family, &classifier);
        let model = Model::load_on(shards.path(), Dtype::F32, place).unwrap();
        let head = model.score().unwrap();
        let last = rows(&model.prefill(&tokens).unwrap().1).pop().unwrap();
        let found: f32 = last.iter().zip(&head.rows[0]).map(|(h, w)| h * w).sum();
        let near = (found - score).abs() < 1e-4 * (1.0 + score.abs());
        assert!(near, "{family} on {place}: {found} not {score}");
    }
}

/// Reward models run on the policy's device, and score candidates as whole texts.
#[test]
fn a_reward_model_follows_the_policy() {
    let folder = tempfile::tempdir().unwrap();
    let (at, text) = (|name: &str| folder.path().join(name), [5, 17, 9, 33, 4]);
    Tiny::default().write(&at("policy"));
    Tiny { seed: 5, labels: Some(1), ..Tiny::default() }.write(&at("reward"));
    for place in places() {
        let policy = Checkpoint::load_on(&at("policy"), Dtype::F32, place).unwrap();
        let reward = Reward::load(&at("reward"), &policy, Dtype::F32).unwrap();
        let Reward::Model(model) = &reward else { panic!("is a reward model") };
        assert_eq!((policy.model.place(), model.model().place()), (place, place));
        let mut state = reward.state(&policy, PromptInput { tokens: &text, prompt: None }).unwrap();
        let candidates = [3, 30, 14];
        let question =
            Question { state: &mut state, candidates: &candidates, further: &[], ahead: None };
        let scores = ask(&mut [question]).remove(0).unwrap();
        let answers: Vec<&[u32]> = candidates.chunks(1).collect();
        let whole = reward.of_answers(&policy, (&text).into(), &answers).unwrap();
        for (score, whole) in scores.iter().zip(whole) {
            assert!((score - whole).abs() < 1e-5, "{score} is not {whole}");
        }
    }
}

#[test]
fn what_cannot_be_is_said_in_one_line() {
    let refused = |dtype, place| match Model::load_on(&folder("llama"), dtype, place) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("was loaded"),
    };
    for dtype in [Dtype::Int8, Dtype::Q4] {
        let what = format!("weights in {dtype} are for the device cpu: give the dtype bf16 or f32");
        assert_eq!(refused(dtype, Device::Candle), format!("candle: {what}"));
    }
    // What is native there is bf16.
    let hidden = |dtype| {
        let model = Model::load_on(&folder("llama"), dtype, Device::Candle).unwrap();
        model.prefill(&[1, 2, 3]).unwrap().1.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(hidden(Dtype::Native), hidden(Dtype::Bf16));
    for (built, place, feature) in [
        (cfg!(feature = "cuda"), Device::Cuda(1), "cuda"),
        (cfg!(feature = "metal"), Device::Metal(1), "metal"),
    ] {
        let said = refused(Dtype::F32, place);
        let hint = format!(
            "{feature}:1: not in this build: make one with `cargo build --release --features {feature}`"
        );
        assert!(built || said == hint, "{said}");
        assert!(!said.contains('\n'), "{said}");
    }
    // A prefix of one device and a model on another.
    let (here, there) = (load("llama", Device::Cpu), load("llama", Device::Candle));
    for (reader, other) in [(&here, &there), (&there, &here)] {
        let (mut prefix, _) = reader.prefill(&[1, 2]).unwrap();
        let error = other.branch(&prefix, &[3]).unwrap_err().to_string();
        assert_eq!(
            error,
            "the prefix was prefilled on another device or with other keys and values: prefill it again with this model"
        );
        assert!(other.extend(&mut prefix, &[3]).is_err());
        assert!(reader.extend(&mut prefix, &[3]).is_ok());
    }
}

#[test]
fn places_go_by_names() {
    for name in ["cpu", "candle", "cuda", "cuda:1", "metal", "metal:2"] {
        assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
    }
    assert_eq!("cuda:0".parse(), Ok(Device::Cuda(0)));
    for name in ["gpu", "cuda:x", "cpu:0", "cuda:", ""] {
        let said = name.parse::<Device>().unwrap_err();
        assert!(said.starts_with(&format!("unknown device '{name}': known are cpu, ")), "{said}");
    }
}

/// The time of looking ahead over ten candidates, compared with one, on a GPU if there is one.
#[test]
#[ignore = "it measures, and prints what it finds"]
fn ten_candidates_cost_little_more_than_one() {
    let folder = tempfile::tempdir().unwrap();
    Tiny::default().write(folder.path());
    let path = std::env::var("STACKELBERG_MODEL").map_or(folder.path().to_owned(), PathBuf::from);
    for place in places() {
        let model = Model::load_on(&path, Dtype::Bf16, place).unwrap();
        let text: Vec<u32> = (0..150).map(|i| i * i % 40).collect();
        let (prefix, _) = model.prefill(&text).unwrap();
        let median = |k: u32| {
            let candidates: Vec<u32> = (0..k).collect();
            let mut times: Vec<f64> = (0..33)
                .map(|_| {
                    let began = std::time::Instant::now();
                    let ahead = model.branch(&prefix, &candidates).unwrap();
                    model.logits(&ahead.hidden.narrow(0, 0, 1).unwrap()).unwrap();
                    began.elapsed().as_secs_f64() * 1e3
                })
                .collect();
            times.sort_by(f64::total_cmp);
            times[16]
        };
        let (one, ten) = (median(1), median(10));
        println!("{place}: one token {one:.2} ms, ten candidates {ten:.2} ms: {:.2} times", ten / one);
    }
}
