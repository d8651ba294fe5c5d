//! Training data: every form that is read, and every line that is refused.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::{Compression, write::GzEncoder};
use stackelberg_data::{Conversation, Error, group_ids, read_pairs, read_rated};
use tempfile::TempDir;

fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn turns(conversation: &Conversation) -> Vec<(&str, &str)> {
    conversation.messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect()
}

const TEA: &str = r#"{"chosen": "\n\nHuman: How do I brew tea?\n\nAssistant: Which tea?\n\nHuman: Green: 'Human: none'.\n\nAssistant: At 80 degrees,\n\nfor two minutes.", "rejected": "\n\nHuman: How do I brew tea?\n\nAssistant: Which tea?\n\nHuman: Green: 'Human: none'.\n\nAssistant:"}"#;

#[test]
fn pairs_in_the_form_of_hh() {
    for bytes in [TEA.as_bytes().to_vec(), zipped(TEA.as_bytes()), format!("\u{feff}{TEA}\r\n\n").into()]
    {
        let (_folder, path) = file("pairs", &bytes);
        let pairs = read_pairs(&path).unwrap();
        assert_eq!(pairs.len(), 1);
        let chosen = &pairs[0].chosen;
        assert!(chosen.raw.starts_with("\n\nHuman: How do I") && chosen.raw.ends_with("two minutes."));
        assert_eq!(
            turns(chosen),
            [
                ("user", "How do I brew tea?"),
                ("assistant", "Which tea?"),
                ("user", "Green: 'Human: none'."),
                ("assistant", "At 80 degrees,\n\nfor two minutes."),
            ]
        );
        assert_eq!(pairs[0].rejected.response(), "");
        assert_eq!(pairs[0].rejected.messages.last().unwrap().role, "assistant");
        assert_eq!(pairs[0].group, "How do I brew tea?");
    }
}

#[test]
fn neighbouring_turns_of_one_role_are_joined() {
    let line = r#"{"chosen": "\n\nHuman: A\n\nHuman: B\n\nAssistant: c\n\nAssistant: d", "rejected": "\n\nHuman: A\n\nAssistant: e"}"#;
    let (_folder, path) = file("pairs.jsonl", line.as_bytes());
    assert_eq!(
        turns(&read_pairs(&path).unwrap()[0].chosen),
        [("user", "A\n\nB"), ("assistant", "c\n\nd")]
    );
}

#[test]
fn pairs_with_a_prompt() {
    let lines = r#"{"prompt": "Name a bird.", "chosen": "A wren.", "rejected": "\nA table.", "id": 7}
{"prompt": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Name a bird.", "chosen": "A wren.", "rejected": "No."}
{"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Hello", "rejected": "Go"}
{"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "Go"}"#;
    let (_folder, path) = file("pairs.jsonl", lines.as_bytes());
    let pairs = read_pairs(&path).unwrap();
    assert_eq!(pairs[0].chosen.raw, "Name a bird. A wren.");
    assert_eq!(pairs[0].rejected.raw, "Name a bird.\nA table.");
    assert_eq!(turns(&pairs[0].rejected), [("user", "Name a bird."), ("assistant", "A table.")]);
    assert_eq!(
        pairs[1].chosen.raw,
        "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Name a bird.\n\nAssistant: A wren."
    );
    assert_eq!(turns(&pairs[1].rejected).len(), 4);
    for pair in &pairs[2..] {
        assert_eq!(pair.chosen.raw, "\n\nHuman: Hi\n\nAssistant: Hello");
        assert_eq!(pair.rejected.raw, "\n\nHuman: Hi\n\nAssistant: Go");
        assert_eq!(turns(&pair.chosen), [("user", "Hi"), ("assistant", "Hello")]);
    }
    let ids = group_ids(pairs.iter().map(|p| p.group.as_str()));
    assert_eq!(ids, [0, 1, 1, 1]);
}

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

/// The message without the folder's name.
#[track_caller]
fn refused<T: std::fmt::Debug>(read: impl Fn(&Path) -> Result<T, Error>, bytes: &[u8]) -> String {
    let (folder, path) = file("f.jsonl", bytes);
    read(&path).unwrap_err().to_string().replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn bad_pairs() {
    let refused = |bytes: &[u8]| refused(read_pairs, bytes);
    let after = |line: &str| refused(format!("{TEA}\n\n{line}\n").as_bytes());
    assert_eq!(refused(b""), "f.jsonl holds no pairs: is it the right file?");
    assert_eq!(refused(b"\n \n"), "f.jsonl holds no pairs: is it the right file?");
    assert_eq!(after(r#"{"chosen": "x"}"#), "f.jsonl:3: missing field `rejected` at column 15");
    assert_eq!(
        after(r#"{"chosen": 5, "rejected": "x"}"#),
        "f.jsonl:3: chosen: invalid type: integer `5`, expected a string at column 12"
    );
    assert_eq!(
        after(r#"{"chosen": "x", "#),
        "f.jsonl:3: EOF while parsing a value: the line breaks off"
    );
    assert_eq!(
        after(r#"{"chosen": "", "rejected": ""} {}"#),
        "f.jsonl:3: more than one JSON value on the line: write one object per line"
    );
    let text = r#""\n\nHuman: Hi\n\nAssistant: Hello""#;
    let bad = after(&format!(r#"{{"chosen": {text}, "rejected": "Hello"}}"#));
    assert!(bad.starts_with("f.jsonl:3: rejected does not open with \"\\n\\nHuman: \": write"), "{bad}");
    let bad = after(&format!(r#"{{"chosen": "\n\nHuman: Hi", "rejected": {text}}}"#));
    assert!(bad.starts_with("f.jsonl:3: chosen ends with a Human turn"), "{bad}");
    let bad = after(r#"{"prompt": " ", "chosen": "x", "rejected": "y"}"#);
    assert_eq!(bad, "f.jsonl:3: prompt is empty: leave the field out or fill it");
    assert_eq!(
        refused(b"{\"chosen\": \"caf\xe9\"}"),
        "f.jsonl:1: not UTF-8 from byte 16 of the line on: save the file as UTF-8"
    );
    let mut cut = zipped(TEA.as_bytes());
    cut.truncate(cut.len() / 2);
    assert!(refused(&cut).starts_with("cannot read f.jsonl: "));
    assert!(refused(b"\x1f\x8bnonsense").starts_with("cannot read f.jsonl: "));
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
        "f.jsonl:1: score: 'score' is no finite number (a header line must go)"
    );
    assert!(refused("1\tinf\ttext").starts_with("f.jsonl:1: score: 'inf'"));
    assert_eq!(refused("1\t2\t "), "f.jsonl:1: text is empty: there is nothing to score");
    assert!(refused("{\"text\": \"a\", \"score\": 1}\n1\t2\tx").starts_with("f.jsonl:2: "));
}

#[test]
fn files_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let message = read_pairs(folder.path()).unwrap_err().to_string();
    assert!(message.ends_with("it is a folder; name a file"), "{message}");
    let message = read_rated(&folder.path().join("absent")).unwrap_err().to_string();
    assert!(
        message.starts_with("cannot read ") && message.contains("absent: No such file"),
        "{message}"
    );
}
