//! `stackelberg rollout` on the real default model, as a user runs it: killed, split, merged, refused.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::rollout::{command, refused, succeed};
use crate::common::{files, said};
use serde_json::json;

fn write_prompts(path: &Path, count: usize) {
    let line = |i| json!({"id": format!("p{i}"), "prompt": format!("Count to {i}.")}).to_string() + "\n";
    fs::write(path, (0..count).map(line).collect::<String>()).unwrap();
}

const SHORT: [&str; 6] = ["--samples", "2", "--max-new-tokens", "5", "--prompts-per-shard", "2"];

#[test]
fn a_run_is_killed_resumed_split_and_merged() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (prompts, whole, killed) = (path("p.jsonl"), path("whole"), path("killed"));
    write_prompts(prompts.as_ref(), 9);
    let run = |out: &str, more: &[&str]| {
        let args = [&["--prompts", &prompts, "--out", out], &SHORT[..], more].concat();
        args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<String>>()
    };
    let strs = |args: &[String]| command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let go = |out: &str, more: &[&str]| {
        let output = strs(&run(out, more)).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    let estimate = go(&whole, &["--dry-run"]);
    for line in ["9 of 9 prompts to do, in 5 shards", "18 samples, at most 90 tokens", "on disk"] {
        assert!(estimate.contains(line), "{estimate}");
    }
    assert!(!Path::new(&whole).exists());
    let began = Instant::now();
    go(&whole, &[]);
    let took = began.elapsed();
    let expected = files(whole.as_ref());
    assert_eq!(expected.len(), 11);

    // Killed at ten moments spread over the time that a run takes, then left to finish.
    let mut state = 12345_u64;
    for _ in 0..10 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let part = (state >> 33) as f64 / (1_u64 << 31) as f64;
        // One text at a time takes longer, so that kills fall between shards too.
        let mut child = strs(&run(&killed, &["--batch-size", "1"]))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_secs_f64(part * 1.3 * took.as_secs_f64()));
        let _ = child.kill();
        child.wait().unwrap();
        if Path::new(&killed).exists() {
            let found = files(killed.as_ref());
            assert!(found.iter().all(|(name, bytes)| expected[name] == *bytes));
        }
    }
    go(&killed, &[]);
    assert_eq!(files(killed.as_ref()), expected);

    // Two machines, each with a folder of its own.
    let (one, two, both) = (path("one"), path("two"), path("both"));
    go(&one, &["--shard", "0/2"]);
    assert!(
        go(&two, &["--shard", "1/2", "--batch-size", "3"]).contains("missing: 3 shards of other parts")
    );
    assert!(refused(&["merge", &two]).contains("3 of 5 shards are not there yet"));
    let merged = succeed(&["merge", &both, &one, &two]);
    assert!(merged.contains("complete: 9 prompts, 18 samples"), "{merged}");
    assert_eq!(files(both.as_ref()), expected);

    // Without hidden states or rewards.
    let bare = path("bare");
    go(&bare, &["--no-hidden", "--no-reward"]);
    assert_eq!(files(bare.as_ref()).len(), 6);
    assert!(!succeed(&["merge", &bare]).contains("mean reward"));
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (prompts, out) = (path("p.jsonl"), path("out"));
    write_prompts(prompts.as_ref(), 3);
    let args = [&["--prompts", &prompts, "--out", &out], &SHORT[..]].concat();
    succeed(&args);
    let other = refused(&[&args[..], &["--seed", "7"]].concat());
    assert!(
        other.ends_with(
            "out: begun with settings.seed 0, this run has 7: use the same settings or another folder"
        ),
        "{other}"
    );
    let other = refused(&[&args[..], &["--reward", "harmless"]].concat());
    assert!(other.contains("begun with reward.hash"), "{other}");
    write_prompts(prompts.as_ref(), 2);
    assert!(refused(&args).contains("begun with prompts.hash"));
    assert!(
        refused(&["--prompts", &prompts, "--out", &out, "--samples", "0"])
            .contains("between 1 and 100000")
    );
    assert!(command(&["--prompts", &prompts]).output().unwrap().status.code() == Some(2));
    assert!(refused(&["--prompts", &prompts, "--out", &out, "--shard", "2/2"]).contains("give I/N"));
    fs::write(&prompts, "").unwrap();
    assert!(refused(&args).ends_with("p.jsonl: no prompts"));
    assert!(refused(&["merge", &path("none")]).contains("not a dataset of rollouts"));
}

/// A file size limit stands for a full disk. What was written stays, and the run resumes once there is space.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_and_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (prompts, out) = (path("p.jsonl"), path("out"));
    write_prompts(prompts.as_ref(), 40);
    let args =
        ["--prompts", &prompts, "--out", &out, "--max-new-tokens", "8", "--prompts-per-shard", "1"];
    let binary = assert_cmd::cargo::cargo_bin("stackelberg");
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\""]).arg(&binary).arg("rollout");
    let output = limited.args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(
        said(&output).contains("cannot write") && said(&output).contains("hidden-00000.safetensors")
    );
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "only the manifest");

    let mut child = command(&args).stderr(Stdio::null()).spawn().unwrap();
    while fs::read_dir(&out).unwrap().count() < 5 {
        std::thread::sleep(Duration::from_millis(20));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let shards = files(out.as_ref()).len() / 2;
    assert!((2..40).contains(&shards), "{shards}");
}
