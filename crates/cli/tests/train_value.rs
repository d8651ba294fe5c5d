//! `stackelberg train value` as a user runs it: from rollouts of the real default model to guided text; stopped,
//! gone on with, refused, with little memory and no disk.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{command, refused, said, succeed};
use serde_json::{Value, json};
use stackelberg_learning::rollouts::{Dataset, Hidden, Identity, Manifest, Prompts, Row};

/// A dataset of so many shards, each of four samples for each of two prompts; a sample has 128 hidden states of
/// width 512, a megabyte a shard, and its reward is what they all say.
fn made_up(folder: &Path, shards: usize) {
    let (width, tokens) = (512, 128);
    let ids: Vec<String> = (0..2 * shards).map(|i| format!("p{i}")).collect();
    let identity = |name: &str| Identity { name: name.to_owned(), hash: name.to_owned() };
    let manifest = Manifest {
        format: Manifest::FORMAT.to_owned(),
        version: "0".to_owned(),
        model: identity("model"),
        reward: Some(identity("reward")),
        hidden: Some(width),
        samples: Some(4),
        settings: serde_json::Map::new(),
        prompts_per_shard: 2,
        prompts: Prompts::new(ids.iter().map(|id| (id.as_str(), id.as_str()))),
    };
    let dataset = Dataset::create(folder, manifest).unwrap();
    for shard in 0..shards {
        let mut hidden = Hidden::new(width);
        let mut rows = Vec::new();
        for i in 0..8 {
            let reward = f64::from(((8 * shard + i) * 37 % 23) as u32) / 23.0;
            hidden.states.extend(vec![half::f16::from_f64(reward); tokens * width]);
            hidden.offsets.push((i + 1) * tokens);
            rows.push(Row {
                prompt_id: ids[2 * shard + i / 4].clone(),
                sample: i as u32 % 4,
                prompt: ids[2 * shard + i / 4].clone(),
                response: "answer".to_owned(),
                tokens: vec![1; tokens],
                reward: Some(reward),
                finish_reason: "stop".to_owned(),
                seed: 0,
            });
        }
        dataset.write(shard, &rows, &hidden).unwrap();
    }
}

/// The three commands: rollouts, a value head, text that it guides.
#[test]
fn from_prompts_to_guided_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (prompts, data, head) = (path("p.jsonl"), path("data"), path("kind.safetensors"));
    let line = |i| json!({"id": format!("p{i}"), "prompt": format!("Say {i} kind words.")}).to_string();
    fs::write(&prompts, (2..10).map(|i| line(i) + "\n").collect::<String>()).unwrap();
    let drawing = ["--samples", "3", "--max-new-tokens", "8", "--prompts-per-shard", "4"];
    succeed(&[&["rollout", "--prompts", &prompts, "--out", &data], &drawing[..]].concat());
    let told = succeed(&["train", "value", &data, "--out", &head, "--epochs", "2", "--shaping", "srs"]);
    assert!(
        told.contains("train: 21 samples (7 prompts), validation: 3 samples (1 prompt); targets srs"),
        "{told}"
    );
    assert!(told.contains("epoch 2: loss ") && told.contains("wrote "), "{told}");
    // At the last token, the reward read so far is the final reward.
    let row = told.lines().find(|line| line.trim_start().starts_with("0  ")).unwrap_or_default();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!((cells[1], cells[2], cells[4], cells[5]), ("3", "1", "1.000", "-"), "{told}");
    assert!(told.contains("the validation set has fewer than 10 prompts"), "{told}");
    for (name, part) in [
        ("kind.md", "![losses](kind.svg)"),
        ("kind.md", "![correlation with the final reward](kind-foresight.svg)"),
        ("kind.svg", "</svg>"),
        ("kind-foresight.svg", "reward read so far"),
    ] {
        assert!(fs::read_to_string(path(name)).unwrap().contains(part), "{name}");
    }
    assert!(!Path::new(&path("kind.training")).exists());
    let out = path("a.jsonl");
    let cd = ["--method", "cd", "--value", &head, "--max-new-tokens", "6", "--out", &out];
    succeed(&[&["generate", "--prompts", &prompts], &cd[..]].concat());
    let answers = fs::read_to_string(&out).unwrap();
    let answer: Value = serde_json::from_str(answers.lines().next().unwrap()).unwrap();
    assert_eq!((answers.lines().count(), &answer["method"]), (8, &json!("cd")));
    assert_eq!(answer["settings"]["value"], json!(head));
    // A head that was trained on another model's states.
    made_up(folder.path().join("other").as_ref(), 2);
    succeed(&["train", "value", &path("other"), "--out", &path("o.safetensors"), "--epochs", "1"]);
    let said = refused(&["generate", "Hi", "--method", "cd", "--value", &path("o.safetensors")]);
    assert!(said.contains("reads hidden states of width 512, the policy's have 576"), "{said}");
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (data, head) = (path("data"), path("v.safetensors"));
    made_up(data.as_ref(), 3);
    let train =
        |data: &str, more: &[&str]| refused(&[&["train", "value", data, "--out", &head], more].concat());
    assert!(train(&path("none"), &[]).contains("none: not a dataset of rollouts"));
    assert!(train(&data, &["--kl-budget", "1"]).contains("--kl-budget: values are trained for a bound"));
    assert!(train(&data, &["--alpha", "0"]).contains("alpha is 0"));
    assert!(train(&data, &["--coef", "-1"]).contains("coef is -1"));
    assert!(train(&data, &["--width", "99999999999"]).contains("between 1 and 65536"));
    assert!(train(&data, &["--resume"]).contains("v.training to continue"));
    assert!(train(&data, &["--threads", "0"]).contains("between 1 and "));
    assert!(refused(&["train", "value", &data, "--out", "v.pt"]).contains("ends in .safetensors"));
    let shard = folder.path().join("data/rollouts-00001.parquet");
    let bytes = fs::read(&shard).unwrap();
    fs::write(&shard, &bytes[..bytes.len() / 2]).unwrap();
    let said = train(&data, &[]);
    assert!(said.contains("rollouts-00001.parquet: not a whole Parquet file"), "{said}");
    assert!(said.contains("delete the file and run the same rollout again"), "{said}");
    assert!(!Path::new(&head).exists());
}

/// Ctrl-C leaves a checkpoint; gone on with, the head is that of a run that was never stopped.
#[cfg(unix)]
#[test]
fn ctrl_c_and_resume() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (data, head, whole) = (path("data"), path("v.safetensors"), path("w.safetensors"));
    made_up(data.as_ref(), 12);
    let args = |head| ["train", "value", &data, "--out", head, "--epochs", "12", "--patience", "12"];
    succeed(&args(&whole));
    let mut child = command(&args(&head)).stderr(Stdio::null()).spawn().unwrap();
    while !Path::new(&path("v.training")).exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    // On a fast machine it may be over already.
    if child.wait().unwrap().code() == Some(130) {
        assert!(!Path::new(&head).exists());
        let said = refused(&args(&head));
        assert!(said.contains("a stopped run left this file: continue the run with --resume"), "{said}");
        let other = refused(&[&args(&head)[..], &["--resume", "--lr", "0.5"]].concat());
        assert!(other.contains("v.training: begun with lr 0.0001, this run has 0.5"), "{other}");
        succeed(&[&args(&head)[..], &["--resume"]].concat());
    }
    assert_eq!(fs::read(&head).unwrap(), fs::read(&whole).unwrap());
    assert!(!Path::new(&path("v.training")).exists());
}

/// 160 MB of hidden states in 130 MB of memory, the program included; and files that cannot grow stand for a
/// full disk.
#[cfg(target_os = "linux")]
#[test]
fn little_memory_and_no_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (data, head) = (path("data"), path("v.safetensors"));
    made_up(data.as_ref(), 160);
    let limited = |limit: &str, more: &[&str]| {
        let script = format!("trap '' XFSZ; ulimit {limit}; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command
            .env("MALLOC_ARENA_MAX", "1")
            .args(["-c", &script])
            .arg(assert_cmd::cargo::cargo_bin("stackelberg"));
        let narrow = ["--width", "16", "--second-width", "8", "--epochs", "2", "--threads", "1"];
        command.args(["train", "value", &data, "--out", &head]).args(narrow).args(more).output().unwrap()
    };
    let output = limited("-v 133120", &["--memory", "10"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("epoch 2: loss "), "{}", said(&output));
    let output = limited("-v 133120", &["--memory", "1000"]);
    assert!(!output.status.success(), "the limit is none: {}", said(&output));

    fs::remove_file(&head).unwrap();
    let output = limited("-f 16", &["--memory", "10"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("cannot write") && said(&output).contains("v.training"));
    let left = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_str().unwrap().ends_with("partial")).collect();
    assert!(left.is_empty() && !Path::new(&head).exists(), "{left:?}");
}
