//! Batch invariance: hidden states are bit-identical whatever rows share the forward pass, however a sequence was split
//! into chunks, and for any number of threads.

use proptest::prelude::*;
use serde_json::json;
use stackelberg_engine::model::Segment;
use stackelberg_engine::{Dtype, Error, KvDtype, Model, Tensor, kernel};

use crate::common::tiny::Tiny;
use crate::common::tiny_gguf::{BLOCKS, write_blocks};

fn model(dtype: Dtype) -> Model {
    let folder = tempfile::tempdir().unwrap();
    Tiny::default().write(folder.path());
    Model::load(folder.path(), dtype).unwrap()
}

/// A model of a GGUF file with all types of blocks.
fn native() -> Model {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tiny.gguf");
    write_blocks(&file, 40, &BLOCKS);
    Model::load(&file, Dtype::Native).unwrap()
}

fn bits(hidden: &Tensor) -> Vec<Vec<u32>> {
    let rows: Vec<Vec<f32>> = hidden.to_vec2().unwrap();
    rows.into_iter().map(|row| row.into_iter().map(f32::to_bits).collect()).collect()
}

fn dtype() -> impl Strategy<Value = Dtype> {
    prop::sample::select(Dtype::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn results_do_not_depend_on_chunks_batch_and_threads(
        dtype in dtype(),
        kv in prop::sample::select(KvDtype::ALL.to_vec()),
        text in prop::collection::vec(0..40u32, 2..300),
        cuts in prop::collection::vec(1..90usize, 1..8),
        candidates in prop::collection::vec(0..40u32, 1..45),
        other in prop::collection::vec(0..40u32, 1..140),
    ) {
        let model = if dtype == Dtype::Native { native() } else { model(dtype) };
        let model = model.with_kv_dtype(kv).unwrap();
        let (prefix, hidden) = model.prefill(&text).unwrap();
        let hidden = bits(&hidden);

        // In chunks.
        let mut grown = model.empty();
        let mut read = Vec::new();
        let mut rest = &text[..];
        for cut in cuts.iter().cycle() {
            let (piece, more) = rest.split_at((*cut).min(rest.len()));
            read.extend(bits(&model.extend(&mut grown, piece).unwrap()));
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(&read, &hidden);

        // As a candidate: the last token among many candidates.
        let (before, _) = model.prefill(&text[..text.len() - 1]).unwrap();
        let crowd = [&candidates[..], &text[text.len() - 1..]].concat();
        let ahead = model.branch(&before, &crowd).unwrap();
        prop_assert_eq!(&bits(&ahead.hidden)[candidates.len()], &hidden[text.len() - 1]);
        let mut committed = before.clone();
        committed.commit(&ahead, candidates.len()).unwrap();

        // Alone, in a batch, after a prefix that was prefilled or committed, on one thread or on all.
        let among = bits(&model.branch(&prefix, &candidates).unwrap().hidden);
        prop_assert_eq!(&bits(&model.branch(&committed, &candidates).unwrap().hidden), &among);
        let (mut company, _) = model.prefill(&other[..1]).unwrap();
        let mut again = prefix.clone();
        let together = model
            .forward(&mut [
                Segment::Read(&mut company, &other),
                Segment::Branch(&prefix, &candidates),
                Segment::Read(&mut again, &candidates[..1]),
            ])
            .unwrap();
        prop_assert_eq!(&bits(&together[1].hidden), &among);
        prop_assert_eq!(&bits(&together[2].hidden)[0], &among[0]);
        kernel::set_threads(1);
        let alone: Vec<_> =
            candidates.iter().map(|&c| bits(&model.branch(&prefix, &[c]).unwrap().hidden).remove(0)).collect();
        let serial = bits(&model.prefill(&text).unwrap().1);
        kernel::set_threads(0);
        prop_assert_eq!(&alone, &among);
        prop_assert_eq!(&serial, &hidden);

        // Logits, too.
        let of = |hidden: &Tensor| bits(&model.logits(hidden).unwrap());
        let all = of(&together[1].hidden);
        prop_assert_eq!(&of(&together[1].hidden.narrow(0, 0, 1).unwrap())[0], &all[0]);
    }
}

#[test]
fn texts_that_part_keep_what_is_their_own() {
    let model = model(Dtype::F32);
    let (prefix, _) = model.prefill(&[3; 100]).unwrap();
    let (mut left, mut right) = (prefix.clone(), prefix.clone());
    model.extend(&mut left, &[5, 6, 7]).unwrap();
    model.extend(&mut right, &[8; 40]).unwrap();
    let whole = model.prefill(&[&[3; 100][..], &[5, 6, 7]].concat()).unwrap().0;
    let next = |prefix| bits(&model.branch(prefix, &[9]).unwrap().hidden);
    assert_eq!(next(&left), next(&whole));
    assert_ne!(next(&right), next(&whole));
    assert_eq!((prefix.len(), left.len(), right.len()), (100, 103, 140));
}

/// Keys and values in bf16 take half of the memory and change hidden states by about the rounding of bf16.
#[test]
fn keys_and_values_can_be_bf16() {
    let text: Vec<u32> = (0..200).map(|i| i * 7 % 40).collect();
    let exact = model(Dtype::F32);
    let (prefix, expected) = exact.prefill(&text).unwrap();
    let rounded = model(Dtype::F32).with_kv_dtype(KvDtype::Bf16).unwrap();
    let (own, found) = rounded.prefill(&text).unwrap();
    let (expected, found) = (expected.to_vec2::<f32>().unwrap(), found.to_vec2::<f32>().unwrap());
    let sum = |of: fn(f32, f32) -> f32| -> f32 {
        expected.iter().flatten().zip(found.iter().flatten()).map(|(a, b)| of(*a, *b)).sum()
    };
    let (error, size) = (sum(|a, b| (a - b).abs()), sum(|a, _| a.abs()));
    assert!(error > 0.0 && error < 0.01 * size, "{error} of {size}");
    assert_eq!(rounded.page().unwrap().1 * 2, exact.page().unwrap().1);
    // Each model reads its own prefixes.
    assert!(matches!(rounded.branch(&prefix, &[1]), Err(Error::OtherDevice)));
    assert!(matches!(exact.branch(&own, &[1]), Err(Error::OtherDevice)));
    assert!(matches!(exact.extend(&mut { own }, &[1]), Err(Error::OtherDevice)));
}

/// Long texts are read in spans, which threads share where there are few rows: none of that shows in the results, with a sliding
/// window or without.
#[test]
fn spans_of_long_texts_do_not_show() {
    let text: Vec<u32> = (0..900u32).map(|i| i * i * 7 % 40).collect();
    let plain = json!({"max_position_embeddings": 1000});
    let mut window = plain.clone();
    (window["architectures"], window["sliding_window"]) = (json!(["MistralForCausalLM"]), json!(300));
    for (kv, config) in KvDtype::ALL.iter().flat_map(|kv| [(*kv, plain.clone()), (*kv, window.clone())])
    {
        let folder = tempfile::tempdir().unwrap();
        Tiny { config: config.clone(), ..Tiny::default() }.write(folder.path());
        let model = Model::load(folder.path(), Dtype::F32).unwrap().with_kv_dtype(kv).unwrap();
        let whole = bits(&model.prefill(&text).unwrap().1);
        for length in [255, 256, 257, 300, 520, 899] {
            let (before, _) = model.prefill(&text[..length]).unwrap();
            let next = text[length];
            let alone = bits(&model.branch(&before, &[next]).unwrap().hidden);
            assert_eq!(alone[0], whole[length], "{kv:?} {config} {length}");
            let crowd: Vec<u32> = (0..39).chain([next]).collect();
            let among = bits(&model.branch(&before, &crowd).unwrap().hidden);
            assert_eq!(among[39], whole[length], "{kv:?} {config} {length}");
            let mut grown = before.clone();
            assert_eq!(bits(&model.extend(&mut grown, &[next]).unwrap())[0], whole[length]);
        }
    }
}
