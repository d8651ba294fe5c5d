//! Preference pairs: every accepted form, and every rejected line.

use stackelberg_data::{group_ids, read_pairs};

use crate::common::{file, refused, turns, zipped};

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

/// The conversational forms of TRL: with the prompt in both, or in a field of its own.
#[test]
fn pairs_of_messages() {
    let lines = r#"{"chosen": [{"role": "user", "content": "Name a bird."}, {"role": "assistant", "content": "A wren."}], "rejected": [{"role": "user", "content": "Name a bird."}, {"role": "assistant", "content": "No."}]}
{"prompt": [{"role": "user", "content": [{"type": "text", "text": "Name a bird."}]}], "chosen": [{"role": "assistant", "content": "A wren."}], "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "N"}, {"type": "text", "text": "o."}]}]}
{"prompt": "Name a bird.", "chosen": [{"role": "assistant", "content": "A wren."}], "rejected": [{"role": "assistant", "content": "No."}]}
{"prompt": [{"role": "user", "content": "Name a bird."}], "chosen": "A wren.", "rejected": "No."}"#;
    let (_folder, path) = file("pairs.jsonl", lines.as_bytes());
    let pairs = read_pairs(&path).unwrap();
    assert_eq!(pairs.len(), 4);
    for pair in pairs {
        assert_eq!(turns(&pair.chosen), [("user", "Name a bird."), ("assistant", "A wren.")]);
        assert_eq!(turns(&pair.rejected), [("user", "Name a bird."), ("assistant", "No.")]);
        assert_eq!(pair.chosen.raw, "\n\nHuman: Name a bird.\n\nAssistant: A wren.");
        assert_eq!(pair.group, "Name a bird.");
    }
    let open = r#"{"chosen": [{"role": "user", "content": "Hi"}], "rejected": "x"}"#;
    let said = refused(read_pairs, open.as_bytes());
    assert!(
        said.starts_with("f.jsonl:1: chosen does not end with a message of the assistant"),
        "{said}"
    );
    let said = refused(read_pairs, br#"{"chosen": [{"role": "user"}], "rejected": "x"}"#);
    assert!(said.starts_with("f.jsonl:1: chosen[0]: missing field `content`"), "{said}");
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
    assert!(
        bad.starts_with("f.jsonl:3: rejected does not begin with \"\\n\\nHuman: \": write"),
        "{bad}"
    );
    let bad = after(&format!(r#"{{"chosen": "\n\nHuman: Hi", "rejected": {text}}}"#));
    assert!(bad.starts_with("f.jsonl:3: chosen ends with a Human turn"), "{bad}");
    let bad = after(r#"{"prompt": " ", "chosen": "x", "rejected": "y"}"#);
    assert_eq!(bad, "f.jsonl:3: prompt is empty: remove the field or fill it");
    assert_eq!(
        refused(b"{\"chosen\": \"caf\xe9\"}"),
        "f.jsonl:1: not UTF-8 from byte 16 of the line on: save the file as UTF-8"
    );
    let mut cut = zipped(TEA.as_bytes());
    cut.truncate(cut.len() / 2);
    assert!(refused(&cut).starts_with("cannot read f.jsonl: "));
    assert!(refused(b"\x1f\x8bnonsense").starts_with("cannot read f.jsonl: "));
}
