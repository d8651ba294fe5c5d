//! `stackelberg rollout import` on the real default model, as a user runs it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::rollout::{command, refused, succeed};
use crate::common::{files, said};
use serde_json::{Value, json};

fn manifest(folder: &str) -> Value {
    serde_json::from_slice(&fs::read(Path::new(folder).join("manifest.json")).unwrap()).unwrap()
}

fn lines(path: &str, lines: &[Value]) {
    fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

/// What `rollout` wrote comes back with the same bytes of hidden states.
#[test]
fn there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (prompts, out, back) = (path("p.jsonl"), path("out"), path("back"));
    let prompt = |i| json!({"id": format!("p{i}"), "prompt": format!("Count to {i}.")});
    lines(&prompts, &[prompt(3), prompt(4), prompt(5)]);
    for format in ["chat", "raw"] {
        let (out, back) = (format!("{out}-{format}"), format!("{back}-{format}"));
        succeed(&[
            "--prompts",
            &prompts,
            "--out",
            &out,
            "--samples",
            "2",
            "--max-new-tokens",
            "9",
            "--prompts-per-shard",
            "2",
            "--prompt-format",
            format,
        ]);
        let shards = [0, 1].map(|i| format!("{out}/rollouts-0000{i}.parquet"));
        let args = ["import", &shards[0], &shards[1], "--out", &back, "--prompts-per-shard", "2"];
        let report = succeed(&args);
        assert!(report.contains("6 samples of 3 prompts\n"), "{report}");
        for name in ["hidden-00000.safetensors", "hidden-00001.safetensors"] {
            assert!(files(out.as_ref())[name] == files(back.as_ref())[name], "{name}, {format}");
        }
        let (was, is) = (manifest(&out), manifest(&back));
        assert_eq!(was["prompts"], is["prompts"]);
        assert_eq!(is["settings"]["prompt_format"], format);
        assert_eq!((&is["reward"]["name"], &is["samples"]), (&json!("imported"), &json!(2)));
        // The built-in reward scores them as it did.
        let again = format!("{back}-again");
        let args =
            ["import", &shards[0], &shards[1], "--out", &again, "--reward", "sentiment", "--no-hidden"];
        succeed(&args);
        let checked = |folder: &str| succeed(&["merge", folder]);
        assert_eq!(checked(&again), checked(&back));
    }
}

#[test]
fn foreign_files_with_and_without_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (file, out) = (path("f.jsonl"), path("out"));
    // Rewards alone: no model is looked for.
    lines(&file, &[json!({"prompt": "Hi", "responses": ["Hello.", "Go away."], "rewards": [1, -1]})]);
    let mut bare = command(&["import", &file, "--out", &out, "--no-hidden"]);
    let output =
        bare.env("HF_HUB_OFFLINE", "1").env("STACKELBERG_CACHE", path("none")).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(manifest(&out)["model"], json!({"name": "elsewhere", "hash": ""}));
    let checked = succeed(&["merge", &out]);
    assert!(checked.contains("1 prompt, 2 samples, 0 tokens"), "{checked}");
    assert!(checked.contains("mean reward +0.0000"), "{checked}");
    assert!(refused(&["import", &file, "--out", &out]).contains("begun with hidden null"));
    lines(&file, &[json!({"prompt": "Hi", "responses": ["Hello.", "Go away."], "rewards": [1, -2]})]);
    let other = refused(&["import", &file, "--out", &out, "--no-hidden"]);
    assert!(other.contains("begun with reward.hash"), "{other}");

    // OpenAI's batch, and prompts beside it; chat, as the model has a template.
    let (input, batch, chats) = (path("in.jsonl"), path("batch.jsonl"), path("chats"));
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    lines(
        &input,
        &[json!({"custom_id": "q1", "method": "POST", "url": "/v1/chat/completions",
                 "body": {"model": "m", "messages": [turn("user", "Hi")]}})],
    );
    let choice = |content: &str| json!({"message": turn("assistant", content), "finish_reason": "stop"});
    lines(
        &batch,
        &[json!({"custom_id": "q1", "error": null,
                 "response": {"status_code": 200, "body": {"choices": [choice("Hello."), choice("")]}}})],
    );
    let report = succeed(&["import", &batch, "--prompts", &input, "--out", &chats, "--no-reward"]);
    assert!(report.contains("2 samples of 1 prompt; 2 had no tokens and were tokenized"), "{report}");
    let about = manifest(&chats);
    assert_eq!(about["settings"]["prompt_format"], "chat");
    assert_eq!((&about["prompts"]["ids"], &about["hidden"]), (&json!(["q1"]), &json!(576)));
    let checked = succeed(&["merge", &chats]);
    assert!(checked.contains("1 prompt, 2 samples, 2 tokens"), "{checked}");

    // Refused, with nothing written.
    let none = path("new");
    let bad = refused(&["import", &batch, "--out", &none]);
    assert!(
        bad.ends_with("batch.jsonl:1: prompt: missing: give a file of prompts with the id 'q1'"),
        "{bad}"
    );
    let bad = refused(&["import", &batch, "--prompts", &input, "--out", &none]);
    assert!(bad.contains("no sample has a reward: score them with --reward NAME"), "{bad}");
    lines(&file, &[json!({"prompt": "Hi", "response": "word ".repeat(9000)})]);
    let bad = refused(&["import", &file, "--out", &none, "--no-reward"]);
    assert!(
        bad.contains("f.jsonl:1: sample 0 of prompt") && bad.contains("more than the context of 8192"),
        "{bad}"
    );
    assert!(refused(&["import", "--out", &none]).contains("<FILE>..."));
    assert!(refused(&["import", &path("no.jsonl"), "--out", &none]).contains("cannot read"));
    assert!(!Path::new(&none).exists());
}

/// Ctrl-C keeps what is written, and the same command resumes.
#[cfg(unix)]
#[test]
fn ctrl_c_and_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (file, out, whole) = (path("f.jsonl"), path("out"), path("whole"));
    let line = |i| json!({"prompt": format!("Count to {i}."), "response": "One, two, three. ".repeat(20), "reward": i});
    lines(&file, &(0..40).map(line).collect::<Vec<_>>());
    let args = ["import", &file, "--prompts-per-shard", "1", "--out"];
    let mut child = command(&[&args[..], &[&out]].concat()).stderr(Stdio::null()).spawn().unwrap();
    while fs::read_dir(&out).map_or(0, Iterator::count) < 5 {
        std::thread::sleep(Duration::from_millis(10));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(files(out.as_ref()).len() < 81);
    succeed(&[&args[..], &[&out]].concat());
    succeed(&[&args[..], &[&whole, "--batch-size", "7"]].concat());
    assert!(files(out.as_ref()) == files(whole.as_ref()));
    assert_eq!(files(out.as_ref()).len(), 81);
}
