//! Rewards that read text, on the command line: what guides, what scores and what evaluates are one.
#![cfg(unix)]

mod common;

use std::fs;
use std::path::Path;

use common::{output, refused, rewards, succeed};
use serde_json::Value;

/// Counts the commas of an answer, and once the words of the text, to tell formats apart.
const COMMAS: &str = "
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    print(json.dumps({'reward': asked['response'].count(',') + 0.001 * len(asked['text'].split())}), flush=True)
";

fn program(folder: &Path) -> String {
    let script = folder.join("commas.py");
    fs::write(&script, COMMAS).unwrap();
    format!("program:python3 {}", script.display())
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_program_guides_scores_and_evaluates() {
    let folder = tempfile::tempdir().unwrap();
    let prompts = folder.path().join("prompts.jsonl");
    fs::write(
        &prompts,
        "{\"id\": \"a\", \"prompt\": \"Name three fruits.\"}\n{\"id\": \"b\", \"prompt\": \"Hi\"}\n",
    )
    .unwrap();
    let reward = program(folder.path());
    let generate = |out: &str, more: &[&str]| {
        let out = folder.path().join(out);
        let args = ["generate", "--max-new-tokens", "12"];
        let files = ["--prompts", prompts.to_str().unwrap(), "--out", out.to_str().unwrap()];
        succeed(&[&args[..], &files, more].concat());
        lines(&out)
    };
    let strong = ["--reward", &reward, "--shaping", "raw", "--strength", "4", "--no-skip"];
    let guided = generate("guided.jsonl", &strong);
    let base = generate("base.jsonl", &["--reward", &reward, "--method", "base"]);
    for (guided, base) in guided.iter().zip(&base) {
        let commas = |line: &Value| line["response"].as_str().unwrap().matches(',').count();
        assert!(commas(guided) > commas(base), "{guided} {base}");
        assert_eq!(guided["reward_calls"], 12);
    }
    // The same reward of the same texts, whoever asks.
    let written = fs::read_to_string(folder.path().join("guided.jsonl")).unwrap();
    let scored = rewards(&output(&["score", "--reward", &reward], &written));
    let recorded: Vec<f64> = guided.iter().map(|line| line["reward"].as_f64().unwrap()).collect();
    assert_eq!(scored, recorded);
    // Without the prompt the text is shorter.
    let answers = rewards(&output(&["score", "--reward", &format!("answer:{reward}")], &written));
    assert!(answers.iter().zip(&scored).all(|(answer, whole)| answer < whole), "{answers:?} {scored:?}");

    let trace = folder.path().join("trace.jsonl");
    let ahead = ["--score-every", "4", "--trace", trace.to_str().unwrap()];
    let segments = generate("segments.jsonl", &[&strong[..], &ahead].concat());
    assert!(segments.iter().all(|line| line["reward_calls"] == 3), "{segments:?}");
    for (number, step) in lines(&trace).iter().enumerate() {
        // What the three rewards are of is told where a segment begins.
        let begins = number % 4 == 0;
        assert_eq!(step["rewards"].is_array(), begins);
        assert_eq!(step["continuations"].as_array().map(Vec::len), begins.then_some(10));
    }
    let unsure = generate("unsure.jsonl", &[&strong[..], &["--min-entropy", "1"]].concat());
    let calls = |line: &Value| line["reward_calls"].as_u64().unwrap();
    assert!(unsure.iter().all(|line| (1..12).contains(&calls(line))), "{unsure:?}");
    let never = generate("never.jsonl", &[&strong[..], &["--min-entropy", "2.3"]].concat());
    assert_eq!(
        never.iter().map(|line| &line["response"]).collect::<Vec<_>>(),
        base.iter().map(|line| &line["response"]).collect::<Vec<_>>()
    );
}

#[test]
fn what_cannot_be_is_said_in_one_line() {
    let hi = |more: &[&str]| refused(&[&["generate", "Hi", "--max-new-tokens", "2"], more].concat());
    assert!(
        hi(&["--reward", "answer:harmless"])
            .contains("answer:harmless: it reads the policy's own tokens")
    );
    let ended = hi(&["--reward", "program:true"]);
    assert!(ended.contains("the program 'true' ended (exit status: 0) before it had scored"), "{ended}");
    assert!(
        hi(&["--reward", "http://127.0.0.1:9/embed"]).contains("must end with one of /classify, /score")
    );
    let gone = hi(&["--reward", "http://127.0.0.1:9/score"]);
    assert!(
        gone.contains("http://127.0.0.1:9/score: Connection refused") && gone.contains("after 5 tries"),
        "{gone}"
    );
    assert!(hi(&["--score-every", "0"]).contains("score-every is 0: it must be at least 1"));
    assert!(
        hi(&["--min-entropy", "9"])
            .contains("min-entropy is 9: it must be between 0 and ln of the candidates")
    );
    assert!(
        hi(&["--method", "best-of-n", "--score-every", "2"])
            .contains("have no effect with --method best-of-n")
    );
}
