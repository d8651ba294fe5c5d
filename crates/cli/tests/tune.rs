//! `stackelberg tune` as a user runs it, on the real default model.

use std::fs;
use std::path::Path;

use crate::common::{command, refused, said, succeed};

const ASKED: [&str; 10] = [
    "How do I say no?",
    "Name a river.",
    "What is rain?",
    "Tell me about dogs.",
    "How do I bake bread?",
    "Why is the sky blue?",
    "Who wrote Hamlet?",
    "Give me a short poem.",
    "What is a prime number?",
    "Describe a quiet street.",
];

fn write_prompts(file: &Path, asked: &[&str]) {
    let lines: String = asked.iter().map(|prompt| format!("{{\"prompt\": \"{prompt}\"}}\n")).collect();
    fs::write(file, lines).unwrap();
}

/// The lines of standard output.
fn lines(output: &str) -> Vec<&str> {
    output.lines().collect()
}

#[test]
fn settings_are_compared_and_the_same_command_compares_them_again() {
    let folder = tempfile::tempdir().unwrap();
    let (prompts, out) = (folder.path().join("p.jsonl"), folder.path().join("t"));
    write_prompts(&prompts, &ASKED);
    let (prompts, out) = (prompts.to_str().unwrap(), out.to_str().unwrap());
    let args = [
        "tune",
        "--reward",
        "harmless",
        "--held-out",
        "harmless-minilm",
        "--prompts",
        prompts,
        "--quick",
        "--cost",
        "3",
        "--max-new-tokens",
        "20",
        "--out",
        out,
    ];
    let run = |args: &[&str]| {
        let output = command(args).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (first, progress) = run(&args);
    assert!(progress.contains("5 settings on 10 prompts: at most 2600 tokens"), "{progress}");
    let heads = ["candidates for the next token", "blocks of 16 tokens", "whole answers"];
    let spread = |head: &str| -> f64 {
        let line = first.lines().find(|line| line.trim_start().starts_with(head)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    for head in heads {
        assert!(spread(head) > 0.01, "{head}: {first}");
    }
    // A row of the table per setting, a column per measure.
    let names = [
        "base",
        "best-of-n samples 3",
        "blockwise samples 3 block 16",
        "args candidates 2 raw 0.3 nats a step",
        "args candidates 2 score_every 16 raw 1 nats a step",
    ];
    let header = lines(&first).into_iter().position(|line| line.contains("tokens run")).unwrap();
    for measure in ["harmless gain", "harmless-minilm gain", "KL", "log p", "rep-4", "coherence"] {
        assert!(lines(&first)[header].contains(measure), "{measure}: {first}");
    }
    for (line, name) in lines(&first)[header + 1..].iter().zip(names) {
        assert!(line.starts_with(&format!("{name} ")), "{line}");
        // Gains have intervals; the base policy has none.
        assert_eq!(line.matches('[').count(), if name == "base" { 0 } else { 2 }, "{line}");
    }
    assert!(first.contains("Plain sampling (base): harmless "), "{first}");
    // Three prompts, and an answer of each setting to each.
    for prompt in &ASKED[..3] {
        let at = lines(&first).iter().position(|line| line == prompt).unwrap();
        for (line, name) in lines(&first)[at + 1..].iter().zip(names) {
            assert!(line.starts_with(&format!("  {name}: ")), "{line}");
        }
    }
    let ends = ["Use:", "Do not guide with this reward.", "No setting is recommended."];
    assert!(ends.iter().any(|end| first.contains(end)), "{first}");
    // Nothing is run again, and the words are the same.
    let (second, progress) = run(&args);
    assert!(progress.contains("all of them from earlier runs"), "{progress}");
    assert_eq!(first, second);
    // The file is an experiment of its own.
    let plan = succeed(&["experiment", "plan", &format!("{out}/tune.toml")]);
    assert!(plan.contains("5 settings, 1 seed, 10 prompts: 50 answers of at most 20 tokens"), "{plan}");
    let other = refused(&[&args[..], &["--seed", "1"]].concat());
    assert!(other.contains("tune.toml has other settings: give another folder with --out"), "{other}");
    assert_eq!(other.lines().count(), 1, "{other}");
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (prompts, out) = (folder.path().join("p.jsonl"), folder.path().join("t"));
    write_prompts(&prompts, &ASKED[..9]);
    let (prompts, out) = (prompts.to_str().unwrap(), out.to_str().unwrap());
    for (args, words) in [
        (&["--prompts", prompts][..], "9 prompts are too few for an interval: give at least 10"),
        (&["--prompts", "-"], "--prompts -: give a file"),
        (&["--prompts", "none.jsonl"], "none.jsonl does not exist"),
        (&["--temperature", "0"], "temperature: it must be above 0"),
        (&["--top-p", "1.5"], "top-p is 1.5: it must be above 0 and at most 1"),
        (&["--limit", "9"], "it must be a whole number between 10 and 1000"),
        (&["--cost", "1"], "it must be a whole number between 2 and 64"),
        (&["--held-out", "sentiment"], "the guide cannot be a held-out reward"),
        (&["--held-out", "nothing"], "unknown reward 'nothing'"),
    ] {
        let given = [&["tune", "--reward", "sentiment", "--out", out], args].concat();
        let error = refused(&given);
        assert!(error.contains(words), "{args:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        // What was refused leaves no settings behind that the mended command would trip over.
        assert!(!Path::new(out).join("tune.toml").exists(), "{args:?}");
    }
    assert!(refused(&["tune"]).contains("--reward"));
}
