//! `stackelberg evaluate` as a user runs it: answers of three formats, paired comparisons, refusals.

use std::fs;
use std::path::Path;

use crate::common::{refused, succeed};
use serde_json::{Value, json};

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn answers_of_three_formats_are_paired_by_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let ours = "{\"id\":\"a\",\"prompt\":\"one?\",\"response\":\"yes yes yes yes yes\",\"tokens\":5,\"elapsed\":0.5,\
                \"kl\":2.0,\"steered\":1,\"mean_log_prob\":-1.5,\"method\":\"args\"}\n\
                {\"id\":\"b\",\"prompt\":\"two?\",\"response\":\"a b c d e f\\n\\nHuman: more\",\"tokens\":9,\"elapsed\":0.5,\
                \"kl\":4.0,\"steered\":3,\"mean_log_prob\":-0.5,\"method\":\"args\"}\n";
    let reference = "[{\"prompt\": \"two?\", \"result\": \"b b b b b\"}, {\"prompt\": \"one?\", \"result\": \"no\"}]";
    let alpaca = "[{\"instruction\": \"one?\", \"output\": \"x y z\", \"generator\": \"g\"},\n\
                  {\"instruction\": \"two?\", \"output\": \"x y z\", \"generator\": \"g\"}]";
    let files = [
        write(folder.path(), "ours.jsonl", ours),
        write(folder.path(), "reference.json", reference),
        write(folder.path(), "alpaca.json", alpaca),
    ];
    let [a, b, c] = files.each_ref().map(String::as_str);
    let each = write(folder.path(), "each.jsonl", "");
    let out = write(folder.path(), "out.json", "");
    for onto in [["--each", b], ["--json", a]] {
        let said = refused(&["evaluate", a, b, "--no-embeddings", onto[0], onto[1]]);
        assert!(said.contains("it is read as input"), "{said}");
    }
    assert_eq!(fs::read_to_string(a).unwrap(), ours);
    succeed(&["evaluate", a, b, c, "--no-embeddings", "--each", &each, "--json", &out]);
    let lines: Vec<Value> =
        fs::read_to_string(&each).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 6);
    // Five equal words: four 2-grams of which one is distinct.
    assert_eq!(
        (lines[0]["rep_2"].as_f64().unwrap(), lines[0]["length"].as_u64().unwrap()),
        (100.0 * (1.0 - 1.0 / 5.0), 5)
    );
    // Cut where the next turn begins: six words.
    assert_eq!((&lines[1]["length"], &lines[1]["coherence"]), (&json!(6), &Value::Null));
    assert!(lines[1]["run"].as_str().unwrap().ends_with("ours.jsonl"));

    let out: Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    let mean = |of: &Value, name: &str| {
        let metrics = of.as_array().unwrap();
        metrics.iter().find(|m| m["metric"] == name).map(|m| m["mean"].as_f64().unwrap())
    };
    let runs = &out["runs"];
    assert_eq!(mean(&runs[0]["metrics"], "KL"), Some(3.0));
    assert_eq!(mean(&runs[0]["metrics"], "tokens/s"), Some((10.0 + 18.0) / 2.0));
    assert_eq!(mean(&runs[0]["metrics"], "steered"), Some((0.2 + 3.0 / 9.0) / 2.0));
    assert_eq!(mean(&runs[1]["metrics"], "KL"), None);
    // The reference's file is in another order: words less ours, prompt by prompt: (1 - 5), (5 - 6).
    let words = mean(&out["comparisons"][0]["differences"], "words");
    assert_eq!(words, Some(-2.5));
    assert_eq!(mean(&out["comparisons"][1]["differences"], "words"), Some(-2.5));
}

#[test]
fn rewards_and_coherence_on_the_real_models() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |first: &str, second: &str| {
        let line = |prompt: &str, response: &str| {
            format!("{}\n", json!({"prompt": prompt, "response": response}))
        };
        line("What is rain?", first) + &line("Name a fruit.", second)
    };
    let good = write(
        folder.path(),
        "good.jsonl",
        &lines("Rain is water that falls from clouds.", "An apple is a fruit."),
    );
    let bad = write(
        folder.path(),
        "bad.jsonl",
        &lines("Shut up, you idiot, I hate you.", "The stock market fell."),
    );
    let out = write(folder.path(), "out.json", "");
    let said = succeed(&[
        "evaluate",
        &bad,
        &good,
        "--reward",
        "harmless",
        "--reward",
        "harmless-minilm",
        "--json",
        &out,
    ]);
    // Two prompts can prove nothing, whoever wins them.
    assert_eq!(said.matches("(sign test p = ").count(), 2, "{said}");
    assert!(!said.contains("p = 0.0"), "{said}");
    let out: Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    let differences = out["comparisons"][0]["differences"].as_array().unwrap();
    let difference =
        |name: &str| differences.iter().find(|m| m["metric"] == name).unwrap()["mean"].as_f64().unwrap();
    assert!(difference("coherence") > 0.3, "{out:#}");
    // The same rewards as `score` gives.
    let scores = |reward: &str, file: &str| -> Vec<f64> {
        let scored = succeed(&["score", "--reward", reward, file]);
        let of = |line: &str| serde_json::from_str::<Value>(line).unwrap()["reward"].as_f64().unwrap();
        scored.lines().map(of).collect()
    };
    for reward in ["harmless", "harmless-minilm"] {
        let [good, bad] = [&good, &bad].map(|file| scores(reward, file).iter().sum::<f64>() / 2.0);
        assert!((difference(reward) - (good - bad)).abs() < 1e-9, "{reward}: {out:#}");
    }
    let scores = scores("harmless", &good);
    let metrics = out["runs"][1]["metrics"].as_array().unwrap();
    let mean = metrics.iter().find(|m| m["metric"] == "harmless").unwrap()["mean"].as_f64().unwrap();
    assert!((mean - (scores[0] + scores[1]) / 2.0).abs() < 1e-9);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let one =
        write(folder.path(), "one.jsonl", "{\"id\":\"a\",\"prompt\":\"one?\",\"response\":\"x\"}\n");
    for (text, expected) in [
        ("", "two.jsonl: no answers"),
        ("{\"prompt\":\"one?\"}", "two.jsonl:1: no 'response', 'result' or 'output'"),
        ("{\"response\":\"x\"}", "two.jsonl:1: no 'prompt' or 'instruction'"),
        ("{\"prompt\":\"one?\",\"response\":3}", "two.jsonl:1: response: expected a string"),
        ("{\"prompt\":3,\"response\":\"x\"}", "two.jsonl:1: prompt: expected a text, or messages"),
        ("\n{\"prompt\":\"one?\",", "two.jsonl:2: malformed JSON"),
        (
            "{\"id\":\"a\",\"prompt\":\"one?\",\"response\":\"x\"}\n{\"id\":\"a\",\"prompt\":\"b\",\"response\":\"\"}",
            "two.jsonl:2: id: 'a' is that of line 1 too",
        ),
        ("{\"id\":\"a\",\"prompt\":\"one!\",\"response\":\"x\"}", "prompt 'a' has another text in each"),
        ("{\"id\":\"b\",\"prompt\":\"two?\",\"response\":\"x\"}", "1 of 1 prompt is in"),
    ] {
        let two = write(folder.path(), "two.jsonl", text);
        let said = refused(&["evaluate", &one, &two, "--no-embeddings"]);
        assert!(said.contains(expected), "{text}\n-> {said}");
    }
    // Another number for the same prompt, and what others call by names of ours.
    let same = "{\"id\":\"b\",\"prompt\":\"one?\",\"response\":\"x\",\"tokens\":[1],\"warnings\":null}";
    let two = write(folder.path(), "two.jsonl", same);
    succeed(&["evaluate", &one, &two, "--no-embeddings"]);
    let two = write(folder.path(), "two.jsonl", "{\"prompt\":\"two?\",\"response\":\"\"}");
    succeed(&["evaluate", &one, &two, "--no-embeddings", "--unpaired"]);
    let said = refused(&["evaluate", &one, "--reward", "harmles", "--no-embeddings"]);
    assert!(said.contains("unknown reward 'harmles'"), "{said}");
}

#[test]
fn tables_for_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let line =
        |id: &str, text: &str| json!({"id": id, "prompt": "Q?", "response": text}).to_string() + "\n";
    let a = write(folder.path(), "a.jsonl", &(line("1", "one two") + &line("2", "three four")));
    let b = write(folder.path(), "b.jsonl", &(line("1", "one two six") + &line("2", "three four six")));
    let args = ["evaluate", &a, &b, "--no-embeddings", "--unpaired"];
    let table = succeed(&[&args[..], &["--format", "table"]].concat());
    let lines: Vec<&str> = table.lines().collect();
    // Runs are across, metrics downwards, and all lines end in the same column.
    assert!(lines[0].trim_start().starts_with(&format!("{a} (2)  ")), "{table}");
    assert!(lines[0].ends_with(&format!("{b} (2)")), "{table}");
    let widths: Vec<usize> = lines.iter().map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
    let words = lines.iter().find(|line| line.starts_with("words")).unwrap();
    let numbers: Vec<&str> = words.split_whitespace().collect();
    assert_eq!((numbers[1].parse(), numbers[2].parse()), (Ok(2.0), Ok(3.0)), "{table}");
    // Without a terminal, the table is Markdown, as ever.
    let markdown = succeed(&args);
    assert_eq!(markdown, succeed(&[&args[..], &["--format", "markdown"]].concat()));
    assert!(markdown.starts_with("|  | "), "{markdown}");
    assert!(succeed(&[&args[..], &["--format", "csv"]].concat()).starts_with("group,name,"));
}
