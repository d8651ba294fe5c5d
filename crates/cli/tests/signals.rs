//! Signals that end a command, and pipes that nobody reads to the end.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{command, said};
use crate::judge_server::{Server, say};
use serde_json::json;

fn lines(file: &Path) -> usize {
    fs::read_to_string(file).map_or(0, |text| text.matches('\n').count())
}

fn wait_for(file: &Path, count: usize, child: &mut Child) {
    let began = Instant::now();
    while lines(file) < count {
        assert!(began.elapsed() < Duration::from_secs(120), "no {count} answers in {}", file.display());
        assert!(child.try_wait().unwrap().is_none(), "ended after {} answers", lines(file));
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn kill(child: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[cfg(target_os = "linux")]
#[test]
fn nohup_stays_and_sigterm_ends_with_143() {
    let folder = tempfile::tempdir().unwrap();
    let (prompts, out) = (folder.path().join("p.jsonl"), folder.path().join("o.jsonl"));
    let many: String =
        (0..30).map(|i| json!({ "prompt": format!("Count to {i}.") }).to_string() + "\n").collect();
    fs::write(&prompts, many).unwrap();
    let args = ["--method", "base", "--max-new-tokens", "6", "--batch-size", "1"];
    let start = |ignored: bool, more: &[&str]| {
        // What runs the tests may ignore the hangup itself.
        let disposition = if ignored { "--ignore-signal=HUP" } else { "--default-signal=HUP" };
        let mut shell = Command::new("env");
        shell.arg(disposition);
        shell.arg(assert_cmd::cargo::cargo_bin("stackelberg")).arg("generate").arg("--prompts");
        shell.arg(&prompts).args(args).arg("--out").arg(&out).args(more);
        shell.stderr(Stdio::piped()).spawn().unwrap()
    };
    // An ignored hangup stays ignored; SIGTERM ends the command.
    let mut child = start(true, &[]);
    wait_for(&out, 1, &mut child);
    kill(&child, "-HUP");
    wait_for(&out, lines(&out) + 2, &mut child);
    kill(&child, "-TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", said(&output));
    assert!(said(&output).contains("of 30 prompts; continue with --resume --out "), "{}", said(&output));
    // The state can be resumed. A hangup that is not ignored ends the command, too.
    let kept = lines(&out);
    let mut child = start(false, &["--resume"]);
    wait_for(&out, kept + 1, &mut child);
    kill(&child, "-HUP");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(129));
    assert!((kept + 1..30).contains(&lines(&out)));
}

/// Runs a command whose standard output, or error, is a pipe that was closed at the other end.
fn closed(mut command: Command, error: bool) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if error {
        command.stderr(writer)
    } else {
        command.stdout(writer)
    };
    let output = command.output().unwrap();
    (output.status.code(), said(&output))
}

#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let a = file("a.jsonl", "{\"id\":\"p\",\"prompt\":\"Q?\",\"response\":\"good\"}\n");
    let b = file("b.jsonl", "{\"id\":\"p\",\"prompt\":\"Q?\",\"response\":\"bad\"}\n");
    let rewards = file("r.jsonl", "{\"rewards\":[1,2,3]}\n");
    let out = folder.path().join("e.json");
    let json = out.to_str().unwrap();
    let experiment = file(
        "e.toml",
        "name = \"x\"\nprompts = [{ from = \"a.jsonl\" }]\nrewards = { guide = \"harmless\" }\n\
         [[methods]]\nmethod = \"args\"\nshapings = [\"raw\"]\nstrengths = [1]\n",
    );
    let server = Server::start(|_| say(8, 6));
    let verdicts = folder.path().join("v.jsonl");
    let judge = ["judge", &a, &b, "--judge-model", "j", "--base-url", &server.url, "--out"];
    let judge = [&judge[..], &[verdicts.to_str().unwrap()]].concat();
    for args in [
        &["completions", "bash"][..],
        &["completions", "zsh"],
        &["models"],
        &["models", "check", "harmless"],
        &["--help"],
        &["generate", "--help"],
        &["shape", &rewards],
        &["shape", "--summary", &rewards],
        &["evaluate", &a, &b, "--no-embeddings", "--json", json],
        &["judge", &a, &b, "--judge-model", "j", "--dry-run"],
        &judge,
        &["experiment", "plan", &experiment],
        &["generate", "Hi", "--max-new-tokens", "2"],
        &["generate", "Hi", "--max-new-tokens", "2", "--compare"],
    ] {
        let (code, said) = closed(command(args), false);
        assert_eq!(code, Some(0), "{args:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("error"), "{args:?}: {said}");
    }
    // Files are complete although nobody read the tables.
    assert!(fs::read_to_string(&out).unwrap().contains("\"comparisons\""));
    assert_eq!(lines(&verdicts), 2);
    // Nobody reads the messages: the exit code is the same as ever.
    for (args, expected) in [
        (&["generate", "Hi", "--max-new-tokens", "2"][..], 0),
        (&["shape", "nowhere.jsonl"], 2),
        (&["generate", "Hi", "--compare", "--method", "base"], 2),
    ] {
        assert_eq!(closed(command(args), true).0, Some(expected), "{args:?}");
    }
}
