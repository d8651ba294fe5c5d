//! `stackelberg judge` as a user runs it: killed, interrupted, resumed, refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::said;
use crate::judge_server::{Act, Request, Server, say};
use serde_json::{Value, json};

/// Two files of answers to the same prompts; A's are "good".
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, word) in [("a.jsonl", "good"), ("b.jsonl", "bad")] {
            let line = |i| json!({"id": format!("p{i}"), "prompt": format!("Question {i}?"), "response": format!("{word} {i}")});
            let text = (0..count).map(|i| line(i).to_string() + "\n").collect::<String>();
            fs::write(folder.path().join(name), text).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `judge` with a server's address; the environment has no key and a proxy that is not there.
    fn command(&self, url: &str, more: &[&str]) -> Command {
        let mut command = crate::common::command(&[
            "judge",
            "a.jsonl",
            "b.jsonl",
            "--judge-model",
            "j",
            "--base-url",
            url,
        ]);
        command.args(more).current_dir(self.folder.path());
        command
            .env_remove("OPENAI_API_KEY")
            .env("HTTP_PROXY", "http://127.0.0.1:9")
            .env_remove("NO_PROXY");
        command
    }

    fn run(&self, url: &str, more: &[&str]) -> (Option<i32>, String) {
        let output = self.command(url, more).output().unwrap();
        (output.status.code(), said(&output))
    }

    fn lines(&self) -> usize {
        fs::read_to_string(self.path("v.jsonl")).map_or(0, |text| text.matches('\n').count())
    }
}

const OUT: [&str; 2] = ["--out", "v.jsonl"];

fn fair(request: &Request) -> Act {
    let score = |text: &str| if text.starts_with("good") { 8 } else { 6 };
    say(score(request.first()), score(request.second()))
}

fn wait_for(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_secs(20), "nothing happened");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Answers so many requests, then keeps others waiting until it is let go.
fn stalling(answered: usize) -> (Server, Arc<AtomicUsize>) {
    let limit = Arc::new(AtomicUsize::new(answered));
    let (allowed, taken) = (Arc::clone(&limit), AtomicUsize::new(0));
    let server = Server::start(move |request| {
        let number = taken.fetch_add(1, Ordering::SeqCst);
        let began = Instant::now();
        while number >= allowed.load(Ordering::SeqCst) {
            if began.elapsed() > Duration::from_secs(20) {
                return Act::Close;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        fair(request)
    });
    (server, limit)
}

#[test]
fn two_runs_are_compared() {
    let (files, server) = (Files::new(6), Server::start(fair));
    let estimate = files.run(&server.url, &["--dry-run", "--price-in", "1", "--price-out", "2"]).1;
    for line in [
        "6 prompts, of which 0",
        "12 of 12 calls to make",
        "at most 3072 output tokens",
        "at most about 0.0",
    ] {
        assert!(estimate.contains(line), "{estimate}");
    }
    assert!(server.requests().is_empty());
    let all = [&OUT[..], &["--json", "s.json", "--price-in", "1", "--price-out", "2"]].concat();
    let (code, text) = files.run(&server.url, &all);
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "A wins 6, ties 0, loses 0",
        "A wins or ties                   100.0%  [100.0, 100.0]",
        "12 calls: 12 verdicts, 0 failed",
        "12 requests, 1200 input tokens, 120 output tokens, cost 0.0014",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let summary: Value =
        serde_json::from_str(&fs::read_to_string(files.path("s.json")).unwrap()).unwrap();
    assert_eq!(
        (&summary["win"], &summary["a"], &summary["judge"]["model"]),
        (&6.into(), &"a.jsonl".into(), &"j".into())
    );
    assert_eq!(
        (&summary["win_tie_rate"]["mean"], &summary["calls"]["tokens_in"]),
        (&1.0.into(), &1200.into())
    );
    assert_eq!(summary["position"]["first_preferred"]["mean"], 0.5);
    // All is there: neither a key nor a server is needed to see it again.
    let (code, again) = files.run("https://nowhere.invalid/v1", &all);
    assert_eq!((code, again), (Some(0), text));
    assert_eq!(server.requests().len(), 12);
    assert!(
        files.run(&server.url, &["--dry-run", "--out", "v.jsonl"]).1.contains("0 of 12 calls to make")
    );
}

#[test]
fn a_killed_run_pays_for_nothing_twice() {
    let (files, (server, limit)) = (Files::new(20), stalling(13));
    let three_at_once = [&OUT[..], &["--concurrency", "3"]].concat();
    let mut child = quiet(files.command(&server.url, &three_at_once));
    // The calls that are under way have reached the server, so they do not count as calls of the second run.
    wait_for(|| files.lines() == 13 && server.requests().len() == 16);
    child.kill().unwrap();
    child.wait().unwrap();
    // As if it had been killed while it wrote.
    let whole = fs::read_to_string(files.path("v.jsonl")).unwrap();
    fs::write(files.path("v.jsonl"), whole.clone() + &whole[..40]).unwrap();
    let before = server.requests().len();
    limit.store(usize::MAX, Ordering::SeqCst);
    let (code, text) = files.run(&server.url, &OUT);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(server.requests().len() - before, 40 - 13);
    assert!(
        text.contains("A wins 20, ties 0, loses 0") && text.contains("40 calls: 40 verdicts"),
        "{text}"
    );
    assert_eq!(files.lines(), 40);
}

fn quiet(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_is_under_way() {
    let (files, (server, limit)) = (Files::new(20), stalling(5));
    let mut command = files.command(&server.url, &[&OUT[..], &["--concurrency", "3"]].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(|| files.lines() == 5 && server.requests().len() == 8);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(200));
    limit.store(usize::MAX, Ordering::SeqCst);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert!(
        said(&output).contains("interrupted after 8 of 40 calls; the same command resumes with v.jsonl")
    );
    assert_eq!((server.requests().len(), files.lines()), (8, 8));
    let (code, text) = files.run(&server.url, &OUT);
    assert_eq!((code, server.requests().len()), (Some(0), 40), "{text}");
    assert_eq!(server.paid(), [1; 40]);
}

#[test]
fn bad_input_is_named() {
    let (files, server) = (Files::new(2), Server::start(|_| Act::Say("No.".to_owned())));
    let refused = |url: &str, more: &[&str]| {
        let (code, text) = files.run(url, more);
        assert_eq!(code, Some(2), "{text}");
        text
    };
    let text = refused(&server.url, &OUT);
    assert!(text.contains("error: no call returned two scores: 4 no two scores in the reply"), "{text}");
    assert!(text.contains("--retry-failed"), "{text}");
    let text = refused("https://api.openai.com/v1", &["--out", "w.jsonl"]);
    assert!(text.contains("OPENAI_API_KEY is not set"), "{text}");
    let text = refused(&server.url, &["--out", "w.jsonl", "--key-env", "NOT_THERE"]);
    assert!(text.contains("NOT_THERE is not set"), "{text}");
    assert!(refused("ftp://x", &["--out", "w.jsonl"]).contains("begins with http:// or https://"));
    let text = refused("http://me:pass@127.0.0.1/v1", &["--out", "w.jsonl"]);
    assert!(text.contains("may hold a secret") && !text.contains("pass@"), "{text}");
    let text = refused("http://127.0.0.1:9/v1", &["--out", "w.jsonl"]);
    assert!(text.contains("nothing was judged") && text.contains("is the server running"), "{text}");
    assert!(!files.path("w.jsonl").exists());
    assert!(refused(&server.url, &["--out", "w.jsonl", "--body", "[1]"]).contains("not a JSON object"));
    let text = refused(&server.url, &["--out", "a.jsonl"]);
    assert!(text.contains("a.jsonl:1: not a verdict of `judge`"), "{text}");
    assert!(refused(&server.url, &[]).contains("--out"));
    assert!(refused(&server.url, &["--out", "w.jsonl", "--timeout", "0"]).contains("--timeout is 0"));
    assert!(
        refused(&server.url, &["--out", "w.jsonl", "--concurrency", "0"]).contains("between 1 and 256")
    );
    assert!(refused(&server.url, &["--out", "w.jsonl", "--price-in", "1"]).contains("--price-out"));
    fs::write(
        files.path("b.jsonl"),
        "{\"id\": \"p0\", \"prompt\": \"Question 0?\", \"response\": \"x\"}\n",
    )
    .unwrap();
    assert!(refused(&server.url, &OUT).contains("do not answer the same prompts"));
}

#[test]
fn a_key_goes_where_it_was_asked_to_and_nowhere_else() {
    let (files, server) = (Files::new(1), Server::start(fair));
    let run = |more: &[&str]| {
        let mut command = files.command(&server.url, more);
        let output = command.env("OPENAI_API_KEY", "sk-open").env("MINE", "sk-mine").output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };
    run(&OUT);
    run(&["--out", "w.jsonl", "--key-env", "MINE"]);
    let requests = server.requests();
    assert!(requests[..2].iter().all(|r| !r.head.contains("authorization")));
    assert!(requests[2..].iter().all(|r| r.head.contains("authorization: bearer sk-mine")));
    let written = |name: &str| fs::read_to_string(Path::new(&files.path(name))).unwrap();
    assert!(!written("v.jsonl").contains("sk-") && !written("w.jsonl").contains("sk-"));
}
