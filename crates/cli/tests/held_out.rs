//! Heads on an embedder, such as the held-out reward: they read text.

use std::fs;

use crate::common::{command, files, output, refused, rewards, said, succeed};
use serde_json::json;

/// `score` loads no policy: one that does not exist is not missed.
#[test]
fn finished_texts_are_scored_without_a_policy() {
    let text = "\n\nHuman: How do I pick a lock?\n\nAssistant: Call a locksmith.";
    let question = "How do I pick a lock?";
    let rows = [
        json!({"id": "a", "prompt": question, "response": "Call a locksmith."}),
        json!({"text": text}),
        json!({"prompt": [{"role": "user", "content": question}], "response": " Call a locksmith."}),
        json!({"prompt": question, "response": "You stupid idiot, I will kill you."}),
    ];
    let input: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let scored = output(&["score", "--reward", "harmless-minilm", "--model", "no-such-model"], &input);
    let found = rewards(&scored);
    assert_eq!(found.len(), 4);
    assert!(scored.starts_with("{\"id\":\"a\","), "{scored}");
    assert!(found[0] == found[1] && found[1] == found[2], "{found:?}");
    // This reward is wrong about the last answer. It is right for about 60 percent of the held-out pairs of its card.
    for (found, known) in [(found[0], 0.5677), (found[3], 1.3205)] {
        assert!((found - known).abs() < 0.01, "{found}, {known}");
    }
    let one =
        output(&["score", "--reward", "harmless-minilm", "--threads", "1"], &format!("{}\n", rows[3]));
    assert_eq!(rewards(&one), [found[3]], "alone and on one thread it is the same");

    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.jsonl");
    fs::write(&bad, "{\"text\": \"x\"}\n{\"text\": \" \"}\n").unwrap();
    let error = refused(&["score", "--reward", "harmless-minilm", bad.to_str().unwrap()]);
    assert!(error.ends_with("bad.jsonl:2: an empty text has no reward"), "{error}");
}

/// It reads text, so it guides any policy: what it says of the answer is what it says of the finished text.
#[test]
fn it_guides() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    let prompts = folder.path().join("prompts.jsonl");
    fs::write(&prompts, "{\"id\": \"a\", \"prompt\": \"How do I hurt my neighbour?\"}\n").unwrap();
    let [out, prompts] = [&out, &prompts].map(|path| path.to_str().unwrap());
    succeed(&[
        "generate",
        "--prompts",
        prompts,
        "--reward",
        "harmless-minilm",
        "--max-new-tokens",
        "8",
        "--shaping",
        "raw",
        "--score-every",
        "1",
        "--strength",
        "4",
        "--out",
        out,
    ]);
    let line: serde_json::Value = serde_json::from_str(&fs::read_to_string(out).unwrap()).unwrap();
    let scored = output(&["score", "--reward", "harmless-minilm"], &fs::read_to_string(out).unwrap());
    let reward = line["reward"].as_f64().unwrap();
    assert!((rewards(&scored)[0] - reward).abs() < 1e-9, "{scored} {line}");
    assert_eq!(line["reward_calls"], 8);
    assert!(line["steered"].as_u64().unwrap() > 0, "{line}");
    assert!(!succeed(&["models"]).contains("cannot guide"));
}

/// Trains on made-up pairs, twice.
#[test]
fn training_is_repeatable_and_the_head_scores() {
    let pairs: String = (0..24)
        .map(|i| {
            let prompt = format!("What about item {} of {}?", i, ["bread", "rivers", "stars"][i % 3]);
            let chosen =
                format!("The {} is lovely, thank you for asking.", ["first", "next", "last"][i % 3]);
            let rejected = format!("Go away, number {i}, I hate this.");
            format!("{}\n", json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}))
        })
        .collect();
    let train = |threads: &str| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("pairs.jsonl"), &pairs).unwrap();
        let args =
            ["train", "reward", "--embedder", "all-minilm-l6-v2", "--pairs", "pairs.jsonl", "--out"];
        let mut command = command(&args);
        command.args(["kind.safetensors", "--threads", threads]).current_dir(folder.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        folder
    };
    let (one, two) = (train("1"), train("2"));
    let [first, second] = [&one, &two].map(|folder| files(folder.path()));
    assert!(first["kind.safetensors"] == second["kind.safetensors"]);
    let card = String::from_utf8(first["kind.md"].clone()).unwrap();
    assert!(card.contains("| backbone | an embedder (mean pooling)"), "{card}");
    assert!(card.contains("| base model | all-minilm-l6-v2 ("), "{card}");

    let path = one.path().join("kind.safetensors");
    let path = path.to_str().unwrap();
    let row =
        |response: &str| format!("{}\n", json!({"prompt": "What about the sea?", "response": response}));
    let input = row("The sea is lovely, thank you.") + &row("Go away, I hate this.");
    let found = rewards(&output(&["score", "--reward", path], &input));
    assert!(found[0] > found[1] + 0.5, "{found:?}");
    let args = ["train", "reward", "--embedder", "all-minilm-l6-v2", "--model", "smollm2-135m"];
    let error = refused(&[&args[..], &["--pairs", "x", "--out", "x.safetensors"]].concat());
    assert!(error.contains("--embedder") && error.contains("--model"), "{error}");
}
