//! Value heads and heads for a policy on a server, by the hidden states of a second server: here one of `stackelberg serve` is both.
#![cfg(unix)]

use std::fs;
use std::path::Path;

use serde_json::json;
use stackelberg_learning::rollouts::{Dataset, Shard};

use crate::common::{refused, succeed};
use crate::remote_policy::{Served, texts};
use crate::serve::{ask, start};

/// The policy on the server with its states, in the form of options.
fn with_states(served: &Served) -> Vec<String> {
    let [_, remote] = served.policies();
    let states = ["--states".to_owned(), remote[1].clone()];
    [remote, states.to_vec()].concat()
}

fn rollouts(served: &Served, policy: &[String], out: &str, more: &[&str]) -> Vec<Shard> {
    let (prompts, reward, out) = (served.text("prompts.jsonl"), served.reward(), served.text(out));
    let mut args = vec!["rollout", "--prompts", &prompts, "--out", &out, "--reward", &reward];
    args.extend(["--max-new-tokens", "10", "--prompt-format", "raw"]);
    args.extend(policy.iter().map(String::as_str));
    succeed(&[&args[..], more].concat());
    Dataset::open(Path::new(&out)).unwrap().iter().map(Result::unwrap).collect()
}

#[test]
fn rollouts_have_the_states_of_the_local_model() {
    let served = Served::new();
    let ([local, _], remote) = (served.policies(), with_states(&served));
    let greedy = ["--temperature", "0", "--samples", "1", "--prompts-per-shard", "2"];
    let here = rollouts(&served, &local, "here", &greedy);
    let there = rollouts(&served, &remote, "there", &greedy);
    assert_eq!((here.len(), there.len()), (3, 3));
    let mut numbers = 0;
    for (here, there) in here.iter().zip(&there) {
        let (own, asked) = (here.hidden().unwrap(), there.hidden().unwrap());
        numbers += own.states.len();
        assert_eq!(here.rows, there.rows);
        assert_eq!(own, asked);
    }
    assert!(numbers > 0);
    let manifest = fs::read_to_string(served.at("there").join("manifest.json")).unwrap();
    assert!(manifest.contains("; states of policy on stackelberg"), "{manifest}");
    // A shard that is missing is drawn again, and is the same.
    let folder = served.at("there");
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let names = fs::read_dir(&folder).unwrap().map(|entry| name(entry.unwrap()));
    let of_one: Vec<String> = names.filter(|name| name.contains("00001")).collect();
    assert!(!of_one.is_empty());
    of_one.iter().for_each(|name| fs::remove_file(folder.join(name)).unwrap());
    let again = rollouts(&served, &remote, "there", &greedy);
    assert_eq!((&again[1].rows, again[1].hidden().unwrap()), (&here[1].rows, here[1].hidden().unwrap()));
}

#[test]
fn value_heads_are_trained_and_guide() {
    let served = Served::new();
    let ([local, plain], remote) = (served.policies(), with_states(&served));
    rollouts(&served, &remote, "data", &["--samples", "4", "--temperature", "1"]);
    let (data, head) = (served.text("data"), served.text("v.safetensors"));
    succeed(&["train", "value", &data, "--out", &head, "--epochs", "2", "--validation", "0.3"]);
    let blocks = ["--method", "blockwise", "--samples", "3", "--block", "4", "--value", &head];
    let drawn = [&blocks[..], &["--temperature", "1"]].concat();
    let lines = served.generate(&remote, "drawn.jsonl", &drawn);
    assert_eq!(lines.len(), 5);
    for line in &lines {
        let fingerprint = line["settings"]["model_fingerprint"].as_str().unwrap();
        assert!(fingerprint.contains("; states of policy on stackelberg"), "{fingerprint}");
    }
    let particles = ["--method", "particles", "--samples", "3", "--block", "4", "--value", &head];
    assert_eq!(served.generate(&remote, "particles.jsonl", &particles).len(), 5);
    // Blocks that are as good as greedy, by a head of the model in this process: the answers are the local ones.
    rollouts(&served, &local, "local", &["--samples", "4", "--temperature", "1"]);
    let (data, own) = (served.text("local"), served.text("own.safetensors"));
    succeed(&["train", "value", &data, "--out", &own, "--epochs", "2", "--validation", "0.3"]);
    let greedy = [
        "--method",
        "blockwise",
        "--samples",
        "3",
        "--block",
        "4",
        "--value",
        &own,
        "--temperature",
        "0.00001",
    ];
    let here = served.generate(&local, "here.jsonl", &greedy);
    let (there, said) = served.generated(&remote, "there.jsonl", &greedy);
    assert_eq!(texts(&here), texts(&there));
    assert!(
        said.contains("warning: ") && said.contains("the server runs these cannot be checked"),
        "{said}"
    );

    // What does not fit is refused in one line.
    let (reward, w) = (served.reward(), "w1 w2");
    let options = |policy: &[String], more: &[&str]| -> String {
        let mut args = vec!["generate", w, "--prompt-format", "raw", "--reward", &reward];
        args.extend(more);
        args.extend(policy.iter().map(String::as_str));
        refused(&args)
    };
    let nowhere = [&plain[..], &["--states", "http://127.0.0.1:9/v1"].map(str::to_owned)].concat();
    let here = [&local[..], &["--states".to_owned(), remote[1].clone()]].concat();
    let cd = ["--method", "cd", "--value", &head];
    for (policy, more, problem) in [
        (&plain, &blocks[..], "name a server that gives them with --states"),
        (&local, &blocks, "was trained on the model policy on"),
        (&nowhere, &blocks, "http://127.0.0.1:9/v1: "),
        (&here, &blocks, "only given for a model on a server"),
        (&remote, &cd, "the hidden states of candidates, which the method cd reads"),
    ] {
        let said = options(policy, more);
        assert_eq!(said.trim().lines().count(), 1, "{said}");
        assert!(said.contains(problem), "{said} lacks {problem}");
    }
}

#[test]
fn experiments_and_servers_have_value_heads_by_states() {
    let served = Served::new();
    let (remote, reward) = (with_states(&served), served.reward());
    let experiment = format!(
        "name = \"x\"\nembedder = \"none\"\n[policy]\nmodel = {}\ntokenizer = {}\nstates = {}\nprompt_format = \"raw\"\n\
         [rewards]\nguide = {}\n[[prompts]]\nfrom = \"prompts.jsonl\"\n[decoding]\nmax_new_tokens = 6\ntemperature = 1.0\n\
         [values]\nprompts = [{{ from = \"others.jsonl\" }}]\nmax_new_tokens = 6\nsamples = 4\nepochs = 1\nvalidation = 0.3\n\
         [[methods]]\nmethod = \"blockwise\"\nsamples = 2\nblock = 3\nvalue = \"raw\"\n",
        json!(remote[1]),
        json!(remote[3]),
        json!(remote[5]),
        json!(reward)
    );
    let others = ["w1 w1", "w3 w8 w3", "w11 w5", "w17 w2"]
        .map(|prompt| format!("{}\n", json!({"prompt": prompt})));
    fs::write(served.at("others.jsonl"), others.concat()).unwrap();
    let file = served.at("x.toml");
    fs::write(&file, &experiment).unwrap();
    succeed(&["experiment", "run", file.to_str().unwrap(), "--out", &served.text("x")]);
    assert!(served.at("x").join("report.html").is_file());
    let cd =
        format!("{experiment}[[methods]]\nmethod = \"cd\"\nshapings = [\"raw\"]\nstrengths = [1]\n");
    fs::write(&file, cd).unwrap();
    let said = refused(&["experiment", "run", file.to_str().unwrap(), "--out", &served.text("y")]);
    assert!(said.contains("cd reads the hidden states of candidates"), "{said}");

    // A server in front.
    let heads = fs::read_dir(served.at("x").join("values")).unwrap().map(|entry| entry.unwrap().path());
    let head = heads.map(|folder| folder.join("raw.safetensors")).find(|head| head.is_file()).unwrap();
    let (words, value) = (format!("words={reward}"), format!("v={}", head.display()));
    let mut args: Vec<&str> = remote.iter().map(String::as_str).collect();
    args.extend(["--reward", &words, "--value", &value]);
    let (mut child, address, _stderr) = start(&args, None);
    let guidance =
        json!({"method": "blockwise", "reward": "words", "value": "v", "samples": 3, "block": 4});
    let body = json!({"prompt": "w1 w2 w3", "max_tokens": 10, "guidance": guidance});
    let (status, answer) = ask(&address, "/v1/completions", "", Some(&body));
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = ask(&address, "/pooling", "", Some(&json!({"input": [1, 2]})));
    assert_eq!(status, 400, "{answer}");
    assert!(answer.to_string().contains("the policy runs on a server"), "{answer}");
    child.kill().unwrap();
    child.wait().unwrap();
}
