//! Summaries of verdicts: win rates, and the judge's biases.

use std::fs;
use std::path::Path;

use serde_json::Value;
use stackelberg_evaluation::judge::{Asking, Order, Pair, Resampling, Summary, length_controlled};

use crate::judge_server::{Server, say};
use crate::judging::{Judging, fair, some_pairs};

#[test]
fn a_judge_that_always_prefers_the_first_is_found_out() {
    let server = Server::start(|_| say(9, 6));
    let judging = Judging::new(some_pairs(8));
    judging.go(&server, &Asking::default()).unwrap();
    let summary = judging.summary();
    let position = summary.position.unwrap();
    assert_eq!((position.pairs, position.flipped, position.shifted), (8, 8, 0));
    assert_eq!((position.flip_rate.mean, position.first_preferred.mean), (1.0, 1.0));
    assert_eq!(position.first_ahead.mean, 3.0);
    // Both orders together know of no winner.
    assert_eq!((summary.win, summary.tie, summary.lose), (0, 8, 0));
    // One order alone would have seen A win everything, and cannot tell.
    let half = Summary::new(
        &judging.pairs,
        &[Order::Ab],
        &judging.store(),
        &Resampling { draws: 100, seed: 0 },
    );
    assert_eq!((half.win, half.one_sided, half.position.is_none()), (8, 0, true));

    let fair_one = Server::start(fair);
    let judging = Judging::new(some_pairs(8));
    judging.go(&fair_one, &Asking::default()).unwrap();
    let position = judging.summary().position.unwrap();
    assert_eq!(
        (position.flipped, position.first_preferred.mean, position.first_ahead.mean),
        (0, 0.5, 0.0)
    );
}

#[test]
fn identical_answers_are_ties_without_a_call() {
    let server = Server::start(fair);
    let mut pairs = some_pairs(4);
    pairs[1].b = pairs[1].a.clone();
    let judging = Judging::new(pairs);
    judging.go(&server, &Asking::default()).unwrap();
    let summary = judging.summary();
    assert_eq!((summary.win, summary.tie, summary.identical, summary.one_sided), (3, 1, 1, 0));
    assert_eq!((server.requests().len(), summary.calls.needed), (6, 6));
}

#[test]
fn a_judge_that_prefers_length_is_found_out() {
    // A's answers are longer in 25 of 30 pairs, and the longer one gets a point more.
    let server = Server::start(|request| {
        let (first, second) = (request.first().len(), request.second().len());
        say(5 + i32::from(first > second), 5 + i32::from(second > first))
    });
    let pair = |i: usize| Pair {
        id: i.to_string(),
        prompt: format!("Question {i}?"),
        a: "word ".repeat(if i < 25 { 20 + i } else { 5 }),
        b: "text ".repeat(10),
    };
    let judging = Judging::new((0..30).map(pair).collect());
    judging.go(&server, &Asking::default()).unwrap();
    let summary = judging.summary();
    assert_eq!((summary.win, summary.lose), (25, 5));
    assert_eq!(summary.length.longer_wins.unwrap().mean, 1.0);
    assert!(summary.length.correlation.unwrap().low > 0.5);
    let (raw, controlled) = (summary.preference.unwrap(), summary.length.controlled.unwrap());
    assert!(raw.mean > 0.8 && controlled.mean < raw.mean - 0.2, "{raw:?} {controlled:?}");
    assert!(controlled.low <= controlled.mean && controlled.mean <= controlled.high);
}

#[test]
fn the_length_controlled_rate_is_that_of_another_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/length.json");
    let data: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    for case in data["cases"].as_array().unwrap() {
        let numbers = |field: &str| -> Vec<f64> {
            case[field].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        let found = length_controlled(&numbers("preferences"), &numbers("longer_by")).unwrap();
        let expected = case["controlled"].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-5, "{}: {found}, not {expected}", case["name"]);
    }
    // Length is all there is: 88 percent are won, 52 would be at equal length.
    let case = &data["cases"][0];
    assert!(case["raw"].as_f64().unwrap() > 0.85 && case["controlled"].as_f64().unwrap() < 0.55);
    // All differences the same: length and quality cannot be told apart.
    assert_eq!(length_controlled(&[1.0, 0.0, 1.0], &[5.0, 5.0, 5.0]), None);
    assert_eq!(length_controlled(&[1.0], &[5.0]), None);
}
