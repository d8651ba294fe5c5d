//! Rated texts: every accepted form, and every rejected line.

use stackelberg_data::read_rated;

use crate::common::{file, refused, turns, zipped};

#[test]
fn rated_texts() {
    let lines = r#"{"text": "A fine film.", "score": 2.5}
{"prompt": "How was it?", "response": "Dull.", "score": -1}
{"text": "\n\nHuman: Hi\n\nAssistant: Hello", "score": 0, "source": "made up"}"#;
    let (_folder, path) = file("rated.jsonl.gz", &zipped(lines.as_bytes()));
    let rated = read_rated(&path).unwrap();
    assert_eq!(rated.iter().map(|r| r.score).collect::<Vec<_>>(), [2.5, -1.0, 0.0]);
    assert_eq!(turns(&rated[0].conversation), [("assistant", "A fine film.")]);
    assert_eq!(rated[0].group, "A fine film.");
    assert_eq!(rated[1].conversation.raw, "How was it? Dull.");
    assert_eq!(rated[1].group, "How was it?");
    assert_eq!(turns(&rated[2].conversation), [("user", "Hi"), ("assistant", "Hello")]);
}

#[test]
fn vader_files() {
    let lines =
        "1_1\t-0.9\tno picture, \"scrolling\" b/w.\r\n1_2\t1.4375\tcaf\u{e9}\tau lait\r\n2_1\t3\tlast";
    let (_folder, path) = file("amazon_GroundTruth.txt", lines.as_bytes());
    let rated = read_rated(&path).unwrap();
    assert_eq!(rated.iter().map(|r| r.score).collect::<Vec<_>>(), [-0.9, 1.4375, 3.0]);
    assert_eq!(rated[0].conversation.raw, "no picture, \"scrolling\" b/w.");
    assert_eq!(rated[1].conversation.response(), "caf\u{e9}\tau lait");
    let groups: Vec<&str> = rated.iter().map(|r| r.group.as_str()).collect();
    assert_eq!(
        groups,
        ["amazon_GroundTruth.txt#1", "amazon_GroundTruth.txt#1", "amazon_GroundTruth.txt#2"]
    );
}

#[test]
fn bad_ratings() {
    let refused = |text: &str| refused(read_rated, text.as_bytes());
    assert_eq!(refused(""), "f.jsonl holds no rated texts: is it the right file?");
    let missing = "f.jsonl:1: missing field ";
    assert!(refused(r#"{"text": "x"}"#).starts_with(&format!("{missing}`score`")));
    assert_eq!(refused(r#"{"score": 1}"#), format!("{missing}`text` (or `prompt` and `response`)"));
    assert_eq!(refused(r#"{"score": 1, "prompt": "x"}"#), format!("{missing}`response`"));
    assert_eq!(refused(r#"{"score": 1, "response": "x"}"#), format!("{missing}`prompt`"));
    assert_eq!(
        refused(r#"{"score": 1, "response": "x", "text": "y"}"#),
        "f.jsonl:1: both `text` and `prompt` or `response`: give one of them"
    );
    assert_eq!(
        refused(r#"{"score": 1, "text": " "}"#),
        "f.jsonl:1: text is empty: there is nothing to score"
    );
    assert!(refused(r#"{"score": "1", "text": "x"}"#).starts_with("f.jsonl:1: score: invalid type"));
    assert!(refused(r#"{"score": NaN, "text": "x"}"#).starts_with("f.jsonl:1: score: expected value"));
    assert!(refused(r#"{"score": 1e999, "text": "x"}"#).starts_with("f.jsonl:1: score: number out of"));
    let tabs = "f.jsonl:2: neither a JSON object nor id<TAB>score<TAB>text";
    assert_eq!(refused("1\t2\tx\n2\t3 x"), tabs);
    assert_eq!(
        refused("id\tscore\ttext"),
        "f.jsonl:1: score: 'score' is not a finite number (remove a header line)"
    );
    assert!(refused("1\tinf\ttext").starts_with("f.jsonl:1: score: 'inf'"));
    assert_eq!(refused("1\t2\t "), "f.jsonl:1: text is empty: there is nothing to score");
    assert!(refused("{\"text\": \"a\", \"score\": 1}\n1\t2\tx").starts_with("f.jsonl:2: "));
}

#[test]
fn rated_messages() {
    let lines = r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}], "score": 1}
{"prompt": [{"role": "user", "content": "Hi"}], "response": "Ho", "score": 1}"#;
    let (_folder, path) = file("r.jsonl", lines.as_bytes());
    for rated in read_rated(&path).unwrap() {
        assert_eq!(rated.conversation.raw, "\n\nHuman: Hi\n\nAssistant: Ho");
        assert_eq!((rated.conversation.response(), rated.score), ("Ho", 1.0));
    }
}
