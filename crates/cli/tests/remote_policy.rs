//! A policy on a server, here one of `stackelberg serve`: answers are those of the same model in this process.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

use serde_json::{Value, json};

use crate::common::{refused, succeed};
use crate::serve::{ask, start};
use crate::tiny::Tiny;

/// A reward of the words of an answer.
const WORDS: &str = "
import json, sys
for line in sys.stdin:
    words = json.loads(line)['response'].split()
    print(sum(int(word[1:]) * 7 % 11 for word in words if word[1:].isdigit()) / 10, flush=True)
";

/// A tiny policy, and a server that runs it.
pub struct Served {
    folder: tempfile::TempDir,
    child: Child,
    address: String,
    /// Keeps the server's standard error open.
    _stderr: std::io::BufReader<std::process::ChildStderr>,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("policy");
        Tiny::default().write(&model);
        fs::write(folder.path().join("words.py"), WORDS).unwrap();
        let prompts = ["w1 w2 w3", "w9", "w4 w4 w8 w7 w5", "w20 w21", "w6 w7"];
        let lines = prompts.iter().map(|prompt| format!("{}\n", json!({"prompt": prompt})));
        fs::write(folder.path().join("prompts.jsonl"), lines.collect::<String>()).unwrap();
        let (child, address, stderr) = start(&["--model", model.to_str().unwrap()], None);
        Self { folder, child, address, _stderr: stderr }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    pub fn reward(&self) -> String {
        format!("program:python3 {}", self.text("words.py"))
    }

    /// Options of the policy in this process, and of the same one on the server.
    pub fn policies(&self) -> [Vec<String>; 2] {
        let local = ["--model", &self.text("policy"), "--dtype", "f32"].map(str::to_owned);
        let address = format!("http://{}/v1#policy", self.address);
        let remote = ["--model", &address, "--tokenizer", &self.text("policy")].map(str::to_owned);
        [local.to_vec(), remote.to_vec()]
    }

    pub fn generate(&self, policy: &[String], out: &str, more: &[&str]) -> Vec<Value> {
        self.generated(policy, out, more).0
    }

    /// The answers, and what was said.
    pub fn generated(&self, policy: &[String], out: &str, more: &[&str]) -> (Vec<Value>, String) {
        let (prompts, reward, out) = (self.text("prompts.jsonl"), self.reward(), self.text(out));
        let mut args = vec!["generate", "--prompts", &prompts, "--reward", &reward, "--out", &out];
        args.extend(["--max-new-tokens", "14", "--prompt-format", "raw"]);
        args.extend(policy.iter().map(String::as_str));
        let said = succeed(&[&args[..], more].concat());
        (lines(Path::new(&out)), said)
    }
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Prompt, answer and reward of each line, in the order of the prompts.
pub fn texts(lines: &[Value]) -> Vec<(String, String, String)> {
    let of = |line: &Value, key: &str| line[key].to_string();
    let mut texts: Vec<_> = lines
        .iter()
        .map(|line| (of(line, "prompt"), of(line, "response"), of(line, "reward")))
        .collect();
    texts.sort();
    texts
}

#[test]
fn greedy_answers_are_the_local_ones() {
    let served = Served::new();
    let [local, remote] = served.policies();
    for (name, options) in [
        ("base", &["--method", "base"][..]),
        ("args", &["--method", "args", "--strength", "3", "--shaping", "raw"]),
        ("segments", &["--method", "args", "--score-every", "3", "--strength", "3", "--shaping", "raw"]),
    ] {
        let more = [options, &["--temperature", "0"]].concat();
        let [here, there] = [&local, &remote].map(|policy| {
            let place = if policy == &local { "local" } else { "remote" };
            served.generate(policy, &format!("{name}-{place}.jsonl"), &more)
        });
        assert_eq!(texts(&here), texts(&there), "{name}");
        assert_eq!(here.len(), 5);
        if name != "base" {
            assert!(there.iter().any(|line| line["steered"].as_u64().unwrap() > 0), "{name}");
        }
        let nll =
            |lines: &[Value]| lines.iter().map(|line| line["tail_nll"].as_f64().unwrap()).sum::<f64>();
        assert!((nll(&here) - nll(&there)).abs() < 1e-3, "{name}: {} {}", nll(&here), nll(&there));
        let settings = &there[0]["settings"];
        assert_eq!(settings["model"], format!("http://{}/v1#policy", served.address), "{settings}");
        assert!(settings["model_fingerprint"].as_str().unwrap().starts_with("policy on "), "{settings}");
    }
}

#[test]
fn what_a_server_can_do_is_shown() {
    let served = Served::new();
    let [_, remote] = served.policies();
    let said = succeed(&["models", "check", &remote[1], "--tokenizer", &remote[3]]);
    for name in [
        "server           policy on ",
        "up to 16 in a request",
        "end-of-text",
        "The capital of France is",
    ] {
        assert!(said.contains(name), "{name}: {said}");
    }
    let said = refused(&["models", "check", &remote[3], "--tokenizer", &remote[3]]);
    assert!(said.ends_with("leave out --tokenizer and --states"), "{said}");
}

#[test]
fn drawn_answers_are_resumed() {
    let served = Served::new();
    let [_, remote] = served.policies();
    for method in ["base", "best-of-n", "blockwise", "particles"] {
        let mut options = vec!["--method", method, "--temperature", "1", "--seed", "3"];
        if method != "base" {
            options.extend(["--samples", "4"]);
        }
        if method == "blockwise" || method == "particles" {
            options.extend(["--block", "5"]);
        }
        let whole = served.generate(&remote, "whole.jsonl", &options);
        // Two of the five answers are there.
        let kept: String = fs::read_to_string(served.at("whole.jsonl"))
            .unwrap()
            .lines()
            .take(2)
            .map(|line| format!("{line}\n"))
            .collect();
        fs::write(served.at("part.jsonl"), kept).unwrap();
        options.extend(["--resume", "--concurrency", "2"]);
        let (resumed, said) = served.generated(&remote, "part.jsonl", &options);
        assert_eq!(texts(&whole), texts(&resumed), "{method}");
        assert!(said.contains(": 2 answers kept, 3 new, mean reward"), "{said}");
        fs::remove_file(served.at("whole.jsonl")).unwrap();
    }
}

#[test]
fn rollouts_experiments_and_servers_take_it() {
    let served = Served::new();
    let [local, remote] = served.policies();
    let (prompts, reward, rollouts) =
        (served.text("prompts.jsonl"), served.reward(), served.text("rollouts"));
    let mut args = vec!["rollout", "--prompts", &prompts, "--out", &rollouts, "--reward", &reward];
    args.extend(["--samples", "3", "--max-new-tokens", "6", "--prompt-format", "raw"]);
    args.extend(remote.iter().map(String::as_str));
    let hidden = refused(&args);
    assert!(
        hidden.contains("a server gives no hidden states: add --no-hidden, or name one that gives"),
        "{hidden}"
    );
    args.push("--no-hidden");
    succeed(&args);
    assert!(succeed(&["rollout", "merge", &rollouts]).starts_with("complete: 5 prompts, 15 samples"));

    let experiment = format!(
        "name = \"x\"\nembedder = \"none\"\n[policy]\nmodel = {}\ntokenizer = {}\nprompt_format = \"raw\"\n[rewards]\n\
         guide = {}\n[[prompts]]\nfrom = \"prompts.jsonl\"\n[decoding]\nmax_new_tokens = 6\ntemperature = 1.0\n\
         [[methods]]\nmethod = \"best-of-n\"\nsamples = 3\n",
        json!(remote[1]),
        json!(remote[3]),
        json!(reward)
    );
    let file = served.at("x.toml");
    fs::write(&file, experiment).unwrap();
    succeed(&["experiment", "run", file.to_str().unwrap(), "--out", &served.text("x")]);
    assert!(served.at("x").join("report.html").is_file());

    // A server in front of a server: the answers are those of the model in this process.
    let with = format!("words={reward}");
    let (mut child, address, _stderr) =
        start(&[&remote[0], &remote[1], &remote[2], &remote[3], "--reward", &with], None);
    let body = json!({
        "prompt": "w1 w2 w3", "max_tokens": 14, "temperature": 0,
        "guidance": {"method": "args", "reward": "words", "strength": 3, "shaping": "raw"},
    });
    let (status, answer) = ask(&address, "/v1/completions", "", Some(&body));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["model"], "policy");
    let more = ["--method", "args", "--strength", "3", "--shaping", "raw", "--temperature", "0"];
    let here = served.generate(&local, "here.jsonl", &more);
    let first = here.iter().find(|line| line["prompt"] == "w1 w2 w3").unwrap();
    assert_eq!(answer["choices"][0]["text"], first["response"]);
    let body = json!({"prompt": "w1 w2", "max_tokens": 1, "prompt_logprobs": 1});
    let (status, answer) = ask(&address, "/v1/completions", "", Some(&body));
    assert_eq!(status, 400, "{answer}");
    assert!(answer.to_string().contains("the policy runs on a server"), "{answer}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    let served = Served::new();
    let [_, remote] = served.policies();
    let reward = served.reward();
    let (model, tokenizer) = (["--model", &remote[1]], ["--tokenizer", &remote[3]]);
    let own = ["--reward", &reward];
    let nobody = ["--model", "http://127.0.0.1:9/v1"];
    for (parts, problem) in [
        (
            vec![model, tokenizer, ["--reward", "sentiment"]],
            "sentiment reads the policy's hidden states",
        ),
        (vec![model, tokenizer, own, ["--repetition-penalty", "1.2"]], "penalties"),
        (
            vec![model, own],
            "serves 'policy', whose tokenizer is not known here: give the model's folder",
        ),
        (vec![nobody, tokenizer, own], "http://127.0.0.1:9/v1: "),
    ] {
        let said =
            refused(&[&["generate", "w1 w2", "--prompt-format", "raw"][..], &parts.concat()].concat());
        assert_eq!(said.trim().lines().count(), 1, "{said}");
        assert!(said.contains(problem), "{said} lacks {problem}");
    }
}
