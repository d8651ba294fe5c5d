//! Counts on the command line have limits, which are checked before anything starts.

use std::time::{Duration, Instant};

use crate::common::refused;

#[test]
fn every_count_has_a_limit() {
    let train = ["train", "value", "d", "--out", "v.safetensors"];
    let reward = ["train", "reward", "--pairs", "p", "--out", "r.safetensors"];
    let rollout = ["rollout", "--prompts", "p", "--out", "o"];
    let import = ["rollout", "import", "f", "--out", "o"];
    let judge = ["judge", "a", "b", "--judge-model", "m", "--out", "o"];
    let verify = ["experiment", "verify", "e.toml"];
    let cases: &[(&[&str], &str, u64, &str)] = &[
        (&["generate", "Hi"], "--threads", 100_000, "1 and "),
        (&["generate", "Hi"], "--batch-size", 4097, "1 and 4096"),
        (&["generate", "Hi"], "--cache-mb", 1_048_577, "0 and 1048576"),
        (&["generate", "Hi"], "--candidates", 4097, "1 and 4096"),
        (&["generate", "Hi"], "--beams", 1025, "1 and 1024"),
        (&["generate", "Hi"], "--samples", 100_001, "1 and 100000"),
        (&["generate", "Hi"], "--block", 1_000_001, "1 and 1000000"),
        (&["generate", "Hi"], "--max-new-tokens", u64::MAX, "1 and 1000000"),
        (&["generate", "Hi"], "--score-every", 4097, "1 and 4096"),
        (&["score", "--reward", "harmless"], "--threads", 100_000, "1 and "),
        (&["evaluate", "f"], "--threads", 100_000, "1 and "),
        (&["models", "check", "m"], "--threads", 100_000, "1 and "),
        (&["experiment", "run", "e.toml"], "--threads", 100_000, "1 and "),
        (&["serve"], "--drain", 86_401, "0 and 86400"),
        (&["serve"], "--queue", 1_000_001, "0 and 1000000"),
        (&["serve"], "--max-requests", 0, "1 and 4096"),
        (&verify, "--runs", 0, "1 and 100000"),
        (&verify, "--prompts", 100_001, "1 and 100000"),
        (&rollout, "--batch-size", 4097, "1 and 4096"),
        (&rollout, "--prompts-per-shard", 0, "1 and 65536"),
        (&rollout, "--samples", 100_001, "1 and 100000"),
        (&rollout, "--max-new-tokens", 1_000_001, "1 and 1000000"),
        (&import, "--prompts-per-shard", 65_537, "1 and 65536"),
        (&import, "--batch-size", 4097, "1 and 4096"),
        (&train, "--threads", 100_000, "1 and "),
        (&train, "--memory", 1_048_577, "0 and 1048576"),
        (&train, "--batch-size", 65_537, "1 and 65536"),
        (&train, "--epochs", 65_537, "1 and 65536"),
        (&train, "--patience", 65_537, "1 and 65536"),
        (&train, "--width", 65_537, "1 and 65536"),
        (&train, "--second-width", 0, "1 and 65536"),
        (&reward, "--folds", 1, "2 and 100"),
        (&reward, "--folds", 101, "2 and 100"),
        (&reward, "--threads", 100_000, "1 and "),
        (&judge, "--concurrency", 257, "1 and 256"),
        (&judge, "--retries", 101, "0 and 100"),
        (&judge, "--ask-again", 101, "0 and 100"),
        (&judge, "--max-tokens", 1_000_001, "1 and 1000000"),
        (&["bench"], "--threads", 100_000, "1 and "),
        (&["bench"], "--length", 1_048_577, "24 and 1048576"),
        (&["bench"], "--concurrent", 1025, "1 and 1024"),
    ];
    let began = Instant::now();
    for (command, flag, value, limits) in cases {
        let value = value.to_string();
        let said = refused(&[command, &[*flag, &value][..]].concat());
        let names = format!("error: invalid value '{value}' for '{flag} <");
        assert!(said.starts_with(&names), "{flag}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(&format!("it must be a whole number between {limits}")), "{flag}: {said}");
    }
    assert!(began.elapsed() < Duration::from_secs(60));
    let shard = refused(&[&rollout[..], &["--shard", "0/65537"]].concat());
    assert!(shard.contains("'--shard <I/N>': N must be at most 65536"), "{shard}");
}
