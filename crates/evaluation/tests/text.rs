//! Words and repetition against the paper's reference and NLTK.

use serde::Deserialize;
use stackelberg_evaluation::text::{Repetition, cut};
use stackelberg_evaluation::words::words;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
    clean: Vec<Clean>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    tokens: Vec<String>,
    rep_2: f64,
    rep_3: f64,
    rep_4: f64,
    diversity: f64,
}

#[derive(Deserialize)]
struct Clean {
    answer: String,
    response: String,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("data/metrics.json")).unwrap()
}

#[test]
fn words_and_repetition_are_the_references() {
    for case in golden().cases {
        assert_eq!(words(&case.text), case.tokens, "{:?}", case.text);
        let Repetition { rep, diversity } = Repetition::of(&case.text);
        for (found, expected) in [
            (rep[0], case.rep_2),
            (rep[1], case.rep_3),
            (rep[2], case.rep_4),
            (diversity, case.diversity),
        ] {
            assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{:?}: {found}", case.text);
        }
    }
}

#[test]
fn answers_are_cut_as_in_the_reference() {
    for case in golden().clean {
        assert_eq!(cut(&case.answer), case.response, "{:?}", case.answer);
    }
}

#[test]
fn words_are_nltks() {
    let cases: Vec<(String, Vec<String>)> =
        serde_json::from_str(include_str!("data/nltk.json")).unwrap();
    assert!(cases.len() > 300);
    for (text, expected) in cases {
        assert_eq!(words(&text), expected, "{text:?}");
    }
}
