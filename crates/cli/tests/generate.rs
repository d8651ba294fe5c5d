//! `stackelberg generate`, `score`, `models` on the real default model, as a user runs them.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use serde_json::{Value, json};

fn run(args: &[&str], input: &str) -> Output {
    let mut command = Command::cargo_bin("stackelberg").unwrap();
    command.args(args).write_stdin(input).output().unwrap()
}

#[track_caller]
fn succeed(args: &[&str], input: &str) -> String {
    let output = run(args, input);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn refused(args: &[&str], input: &str) -> String {
    let output = run(args, input);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(output.stdout.is_empty());
    error.lines().last().unwrap_or_default().to_owned()
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const SHORT: [&str; 2] = ["--max-new-tokens", "6"];

#[test]
fn compare_shows_both_answers_with_their_rewards() {
    let out = succeed(&[&["generate", "What is the moon?", "--compare"], &SHORT[..]].concat(), "");
    let titles: Vec<&str> = out.lines().filter(|l| l.starts_with("──")).collect();
    assert_eq!(titles, ["── base", "── args srs, guided by sentiment"]);
    assert_eq!(out.matches("[reward ").count(), 2);
    assert_eq!(out.matches("| 6 tokens |").count(), 2);
    assert!(!out.contains('\x1b'), "no colours where there is no terminal");
    // Best-of-n shapes nothing.
    let best = ["--method", "best-of-n", "--samples", "2"];
    let out =
        succeed(&[&["generate", "What is the moon?", "--compare"], &SHORT[..], &best].concat(), "");
    assert!(out.contains("── best-of-n, guided by sentiment\n"), "{out}");
}

#[test]
fn answers_and_steps_are_recorded_and_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let (prompts, out, trace) =
        (folder.path().join("p.jsonl"), folder.path().join("o.jsonl"), folder.path().join("t.jsonl"));
    let conversation = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Tell me a joke."}]);
    let input = json!([{"id": "a", "prompt": "Name a colour."}, {"instruction": "Name a number."},
        {"id": "c", "messages": conversation}]);
    fs::write(&prompts, input.to_string()).unwrap();
    let (prompts, out_name) = (prompts.to_str().unwrap(), out.to_str().unwrap());
    let srs = ["--bound", "8"];
    let base = ["generate", "--prompts", prompts, "--max-new-tokens", "6", "--out", out_name];
    let base = [&base[..], &srs].concat();
    succeed(&[&base[..], &["--trace", trace.to_str().unwrap()]].concat(), "");

    let answers = lines(&out);
    assert_eq!(answers.len(), 3);
    let ids: Vec<&str> = answers.iter().map(|a| a["id"].as_str().unwrap()).collect();
    assert_eq!((ids[0], ids[1].len(), ids[2]), ("a", 12, "c"));
    assert_eq!(answers[2]["prompt"], conversation);
    for answer in &answers {
        for key in ["response", "method", "finish_reason"] {
            assert!(answer[key].is_string(), "{key}");
        }
        for key in ["tokens", "reward", "elapsed", "seed", "steered", "reward_calls", "skipped"] {
            assert!(answer[key].is_number(), "{key}");
        }
        assert_eq!(answer["settings"]["shaping"], "srs");
    }
    let steps = lines(&trace);
    let first: Vec<&Value> = steps.iter().filter(|s| s["id"] == "a").collect();
    assert_eq!(first.len(), 6);
    for step in first {
        let scored = step["skipped"] == false;
        assert_eq!(step["candidates"].as_array().unwrap().len(), 10);
        assert_eq!(step["tokens"].as_array().unwrap().len(), 10);
        assert_eq!(step["rewards"].is_array(), scored);
        assert_eq!(
            step["shaped"].is_array() && step["threshold"].is_number() && step["bound"].is_number(),
            scored
        );
        assert!(step["candidates"].as_array().unwrap().contains(&step["chosen"]));
    }

    // The steps of an answer that did not finish are dropped.
    let whole_trace = fs::read_to_string(&trace).unwrap();
    fs::write(&trace, format!("{whole_trace}{}", "{\"id\":\"x\",\"step\":0}\n{\"id")).unwrap();

    // Nothing is overwritten; a broken last line is answered again, a whole one is not.
    assert!(refused(&base, "").contains("exists: add --resume"));
    let whole = fs::read_to_string(&out).unwrap();
    fs::write(&out, &whole[..whole.len() - 20]).unwrap();
    succeed(&[&base[..], &["--resume", "--trace", trace.to_str().unwrap()]].concat(), "");
    let ids = |text: &str| text.lines().filter(|l| l.contains("\"id\":\"c\"")).count();
    let resumed = fs::read_to_string(&trace).unwrap();
    assert_eq!(
        (resumed.lines().count(), ids(&resumed)),
        (whole_trace.lines().count(), ids(&whole_trace))
    );
    let strip = |mut answers: Vec<Value>| {
        answers.iter_mut().for_each(|a| a["elapsed"] = json!(0));
        answers
    };
    assert_eq!(strip(lines(&out)), strip(answers));
    // The context ends before the most tokens.
    let long =
        run(&["generate", "Hi", "--method", "base", "--max-new-tokens", "8192", "--stop", " "], "");
    let long = String::from_utf8_lossy(&long.stderr).into_owned();
    assert!(
        long.contains("the context of the model limits 1 answer: prompt and answer end at 8192"),
        "{long}"
    );
    let other = refused(&[&base[..], &["--resume", "--strength", "3"]].concat(), "");
    assert!(other.contains(":1: written with strength 1.0, this run has 3.0"), "{other}");
}

/// How many prompts are answered together changes no answer and no step.
#[test]
fn batches_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let prompts = ["Name a colour.", "Tell me about the moon.", "Hi", "Why?"];
    let prompts: String = prompts.iter().map(|p| json!({ "prompt": p }).to_string() + "\n").collect();
    fs::write(file("p"), prompts).unwrap();
    for method in ["args", "best-of-n", "blockwise", "particles"] {
        let answers = ["1", "3"].map(|size| {
            let (out, trace) = (file(&format!("{method}{size}")), file(&format!("{method}{size}t")));
            let prompts = file("p");
            let samples: &[&str] = match method {
                "args" => &[],
                "best-of-n" => &["--samples", "3"],
                _ => &["--samples", "3", "--block", "2"],
            };
            succeed(
                &[
                    &["generate", "--prompts", &prompts, "--method", method][..],
                    samples,
                    &["--max-new-tokens", "6", "--batch-size", size, "--out", &out, "--trace", &trace],
                ]
                .concat(),
                "",
            );
            let mut answers = lines(Path::new(&out));
            answers.iter_mut().for_each(|a| a["elapsed"] = json!(0));
            let all = answers.into_iter().chain(lines(Path::new(&trace)));
            let mut all: Vec<String> = all.map(|line| line.to_string()).collect();
            all.sort();
            all
        });
        assert!(answers[0].len() > 8 && answers[0] == answers[1], "{method}");
    }
    let first = ["generate", "--limit", "1", "--max-new-tokens", "2", "--method", "base", "--prompts"];
    assert_eq!(succeed(&[&first[..], &[&file("p")]].concat(), "").lines().count(), 1);
    let none = refused(&["generate", "Hi", "--batch-size", "0"], "");
    assert!(none.contains("'--batch-size <N>': it must be a whole number between 1 and 4096"), "{none}");
}

/// Best-of-n gives the sample with the highest reward, with its own steps, and so does a follower of great strength. The
/// first sample is the base policy's answer under the same seed.
#[test]
fn methods_that_choose_among_answers() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, out) = (folder.path().join("t.jsonl"), folder.path().join("o.jsonl"));
    let answer = |more: &[&str]| {
        let args = ["generate", "Name a colour.", "--temperature", "0.7", "--top-p", "0.9"];
        let _ = (fs::remove_file(&trace), fs::remove_file(&out));
        let files = ["--out", out.to_str().unwrap(), "--trace", trace.to_str().unwrap()];
        succeed(&[&args[..], &["--max-new-tokens", "5"], more, &files].concat(), "");
        let (answer, steps) = (lines(&out).remove(0), lines(&trace));
        let tokens: String = steps.iter().map(|step| step["chosen"].to_string() + " ").collect();
        // The first step has all samples with their rewards.
        let block = &steps[0]["block"];
        if block.is_null() {
            assert_eq!(answer["method"], "base");
        } else {
            let chosen = block["chosen"].as_u64().unwrap() as usize;
            assert_eq!(
                (&block["texts"][chosen], &block["scores"][chosen]),
                (&answer["response"], &answer["reward"])
            );
            assert_eq!(json!(block["scores"].as_array().unwrap().len()), answer["reward_calls"]);
        }
        (answer["response"].as_str().unwrap().to_owned(), answer["reward"].as_f64().unwrap(), tokens)
    };
    let two = ["--method", "best-of-n", "--samples", "2"];
    let best = answer(&two);
    let worst = answer(&[&two[..], &["--perturb-rewards", "reversed"]].concat());
    let base = answer(&["--method", "base"]);
    assert!(best.1 > worst.1, "{best:?} {worst:?}");
    assert!(base == best || base == worst, "{base:?} {best:?} {worst:?}");
    let follower = |strength: &str| {
        let shaping = ["--shaping", "raw", "--budget", "reference", "--strength", strength];
        answer(&[&["--method", "follower", "--samples", "2"][..], &shaping].concat())
    };
    assert_eq!(follower("1000"), best);
    assert!([&best, &worst].contains(&&follower("0")));
}

/// Blocks are in the trace, what they cost in the answer; a value head may score them.
#[test]
fn blocks_are_traced_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (out, trace, head) = (file("o.jsonl"), file("t.jsonl"), file("value.safetensors"));
    let metadata = json!({"shaping": "raw"});
    value_head(head.as_ref(), metadata);
    let args = ["generate", "Name a colour.", "--method", "blockwise", "--samples", "3", "--block", "4"];
    let more = ["--max-new-tokens", "8", "--no-eos", "--out", &out, "--trace", &trace];
    for value in [&[][..], &["--value", &head]] {
        succeed(&[&args[..], &more, value].concat(), "");
        let (answer, steps) = (lines(Path::new(&out)).remove(0), lines(Path::new(&trace)));
        assert_eq!((&answer["tokens"], &answer["tokens_run"]), (&json!(8), &json!(24)));
        // Values score all blocks, and the reward the finished answers.
        let scored = if value.is_empty() { 24 } else { 48 };
        assert_eq!(answer["tokens_scored"], json!(scored));
        let bound = 2.0 * (3f64.ln() - 2.0 / 3.0);
        let last = if value.is_empty() { bound } else { 0.5 * bound + 3f64.ln() };
        assert!((answer["kl_bound"].as_f64().unwrap() - last).abs() < 1e-9, "{answer}");
        let blocks: Vec<&Value> = steps.iter().map(|step| &step["block"]).collect();
        let begins: Vec<usize> = (0..8).filter(|&number| !blocks[number].is_null()).collect();
        assert_eq!(begins, [0, 4]);
        for start in begins {
            let (block, chosen) = (blocks[start], blocks[start]["chosen"].as_u64().unwrap() as usize);
            let tokens: Vec<&Value> = (start..start + 4).map(|step| &steps[step]["chosen"]).collect();
            assert_eq!(json!(tokens), block["continuations"][chosen]);
            assert_eq!(block["texts"].as_array().unwrap().len(), 3);
            assert_eq!(block["shaped"], Value::Null);
        }
        fs::remove_file(&out).unwrap();
        fs::remove_file(&trace).unwrap();
    }
    let said = |more: &[&str]| refused(&[&args[..], more].concat(), "");
    assert_eq!(
        said(&["--beta", "2"]),
        "error: --beta has no effect if the best continuation is kept: leave it out, or use --keep draw"
    );
    assert_eq!(
        said(&["--max-new-tokens", "3"]),
        "error: block is 4: it must be at most the maximum number of new tokens"
    );
    succeed(
        &[&args[..], &["--max-new-tokens", "4", "--keep", "draw", "--kl-budget", "0.5"]].concat(),
        "",
    );
}

/// Best-of-n drops samples, resumes, and refuses what does not go with it. Its lines are those of plain best-of-n otherwise.
#[test]
fn samples_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (prompts, out, trace) = (file("p.jsonl"), file("o.jsonl"), file("t.jsonl"));
    fs::write(&prompts, "{\"prompt\": \"Name a colour.\"}\n{\"prompt\": \"Why?\"}\n").unwrap();
    let args = ["generate", "--prompts", &prompts, "--method", "best-of-n"];
    let more = ["--samples", "4", "--max-new-tokens", "6", "--no-eos", "--out", &out];
    let reject = ["--reject", "0.5", "--block", "2"];
    let args = [&args[..], &more].concat();
    succeed(&[&args[..], &reject, &["--trace", &trace]].concat(), "");
    let answers = lines(Path::new(&out));
    for answer in &answers {
        // Four samples have 2 tokens, two have 4, and one has 6.
        let count = |name: &str| answer[name].as_u64().unwrap();
        assert_eq!(["tokens_run", "tokens_saved", "tokens_scored"].map(count), [14, 10, 14]);
        assert_eq!((count("reward_calls"), &answer["reward_lost"]), (7, &json!(0.0)));
        assert!((answer["kl_bound"].as_f64().unwrap() - 4f64.ln()).abs() < 1e-12, "{answer}");
        let settings = (&answer["settings"]["reject"], &answer["settings"]["block"]);
        assert_eq!(settings, (&json!(0.5), &json!(2)));
    }
    let blocks: Vec<Value> =
        lines(Path::new(&trace)).into_iter().map(|step| step["block"].clone()).collect();
    let lengths: Vec<usize> = blocks[0]["continuations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tokens| tokens.as_array().unwrap().len())
        .collect();
    let mut sorted = lengths.clone();
    sorted.sort_unstable();
    assert_eq!((sorted, lengths[blocks[0]["chosen"].as_u64().unwrap() as usize]), (vec![2, 2, 4, 6], 6));

    // An answer that was cut off is written again.
    let whole = fs::read_to_string(&out).unwrap();
    fs::write(&out, &whole[..whole.len() - 20]).unwrap();
    succeed(&[&args[..], &reject, &["--resume"]].concat(), "");
    let strip = |mut answers: Vec<Value>| {
        answers.iter_mut().for_each(|a| a["elapsed"] = json!(0));
        answers
    };
    assert_eq!(strip(lines(Path::new(&out))), strip(answers));
    let said = |more: &[&str]| refused(&[&args[..], more].concat(), "");
    let other = said(&["--resume", "--reject", "0.25", "--block", "2"]);
    assert!(other.contains("reject 0.5, this run has 0.25"), "{other}");
    for (more, error) in [
        (&["--reject", "1"][..], "reject is 1: it must be at least 0 and below 1"),
        (&["--reject", "-0.5"], "reject is -0.5: it must be at least 0 and below 1"),
        (&["--reject", "0.5", "--token-price", "1"], "reject is 0.5: it must be 0 with a token price"),
        (
            &["--reject", "0.5", "--perturb-rewards", "reversed"],
            "reject is 0.5: it must be 0 where rewards are perturbed",
        ),
        (
            &["--block", "2"],
            "--block has no effect with --method best-of-n without --reject: leave it out, or use --reject",
        ),
    ] {
        assert_eq!(said(more), format!("error: {error}"));
    }
    for method in ["follower", "blockwise"] {
        assert_eq!(
            refused(&["generate", "Hi", "--method", method, "--reject", "0.5"], ""),
            format!("error: --reject has no effect with --method {method}: leave it out")
        );
    }
}

/// A value head for the default model, 576 to 2 to 2 to 1.
fn value_head(path: &Path, metadata: Value) {
    let (mut header, mut data) = (json!({"__metadata__": metadata}), Vec::new());
    for (name, shape) in [
        ("0.weight", vec![2, 576]),
        ("0.bias", vec![2]),
        ("2.weight", vec![2, 2]),
        ("2.bias", vec![2]),
        ("4.weight", vec![1, 2]),
        ("4.bias", vec![1]),
    ] {
        let start = data.len();
        for i in 0..shape.iter().product::<usize>() {
            data.extend((0.3 * (i as f32).sin()).to_le_bytes());
        }
        header[name] = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
    }
    let header = header.to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    fs::write(path, bytes).unwrap();
}

#[test]
fn controlled_decoding_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (head, out, trace) = (at("value.safetensors"), at("o.jsonl"), at("t.jsonl"));
    value_head(
        head.as_ref(),
        json!({"format": "stackelberg-value", "bound": "2", "text_format": "raw"}),
    );
    let cd = ["generate", "The moon is", "--method", "cd", "--value", &head, "--max-new-tokens", "4"];
    let mut command = Command::cargo_bin("stackelberg").unwrap();
    let output = command.args(cd).args(["--no-eos", "--out", &out, "--trace", &trace]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("warning: the value head does not state which model it was trained on"),
        "{said}"
    );

    let answer = &lines(out.as_ref())[0];
    assert_eq!((&answer["method"], answer["reward"].is_number()), (&json!("cd"), true));
    let settings = &answer["settings"];
    assert_eq!((&settings["value"], &settings["prompt_format"]), (&json!(head), &json!("raw")));
    assert_eq!((&settings["strength"], &settings["policy_temperature"]), (&json!(4.0), &json!(0.7)));
    let steps = lines(trace.as_ref());
    assert_eq!(steps.len(), 4);
    for step in steps {
        assert!(step["logits"].is_null() && step["rewards"].is_null());
        assert!(step["log_probs"][0].as_f64().unwrap() < 0.0);
        assert_eq!(step["values"].is_array(), step["skipped"] == false);
    }
    let searched =
        succeed(&[&cd[..], &["--beams", "2", "--length-penalty", "0", "--no-eos"]].concat(), "");
    assert!(!searched.trim().is_empty());
    let compared = succeed(&[&cd[..], &["--compare"]].concat(), "");
    assert!(compared.contains(&format!("── cd, guided by {head}")), "{compared}");
    assert_eq!(compared.matches(" steps skipped | ").count(), 1, "{compared}");

    let others = |more: &[&str]| refused(&[&["generate", "Hi"][..], more].concat(), "");
    assert_eq!(
        others(&["--method", "cd"]),
        "error: --method cd needs --value FILE, the value head that guides"
    );
    assert_eq!(
        others(&["--value", &head]),
        "error: --value has no effect with --method args: use cd, blockwise or particles"
    );
    let shaped = others(&["--method", "cd", "--value", &head, "--shaping", "hard"]);
    assert!(shaped.contains("give it to `train value`, which shapes the targets"), "{shaped}");
    for (options, name) in [
        (&["--method", "cd", "--value", &head, "--bound", "3"][..], "--bound"),
        (&["--method", "cd", "--value", &head, "--shaping", "hard"], "--shaping"),
        (&["--method", "best-of-n", "--strength", "2"], "--strength"),
        (&["--method", "best-of-n", "--beta", "2"], "--beta"),
        (&["--method", "best-of-n", "--no-skip"], "--no-skip"),
        (&["--method", "best-of-n", "--beams", "2"], "--beams"),
        (&["--top-p", "0.5"], "--top-p"),
        (&["--top-k", "5"], "--top-k"),
        (&["--min-p", "0.1"], "--min-p"),
        (&["--samples", "5"], "--samples"),
        (&["--block", "5"], "--block"),
        (&["--keep", "best"], "--keep"),
        (&["--method", "particles", "--kl-budget", "1"], "--kl-budget"),
        (&["--method", "blockwise", "--candidates", "5", "--no-skip"], "--no-skip"),
        (&["--policy-temperature", "1"], "--policy-temperature"),
        (&["--method", "base", "--stress", "reversed"], "--perturb-rewards"),
    ] {
        let said = others(options);
        assert!(said.starts_with(&format!("error: {name} has no effect with --method")), "{said}");
    }
    let cold = others(&["--method", "cd", "--value", &head, "--policy-temperature", "0"]);
    assert_eq!(cold, "error: policy-temperature is 0: it must be between 0.000001 and 1000000");
    value_head(head.as_ref(), json!({"base": "abc"}));
    let other = others(&["--method", "cd", "--value", &head]);
    assert!(other.contains("value.safetensors: was trained on the model abc"), "{other}");
    assert!(
        others(&["--method", "cd", "--value", "no-such.safetensors"]).contains("no-such.safetensors")
    );
}

#[test]
fn score_agrees_with_generate() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("o.jsonl");
    let args = [
        "generate",
        "Name a colour.",
        "--max-new-tokens",
        "6",
        "--method",
        "base",
        "--out",
        out.to_str().unwrap(),
    ];
    succeed(&args, "");
    let answer = &lines(&out)[0];
    let rows = [
        json!({"id": 7, "prompt": "Name a colour.", "response": answer["response"]}),
        json!({"text": "I hate you."}),
        answer.clone(),
        json!({"prompt": [{"role": "user", "content": "Name a colour."}], "response": answer["response"]}),
    ];
    let input: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let scored = succeed(&["score", "--reward", "sentiment"], &input);
    let scored: Vec<Value> = scored.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((scored.len(), &scored[0]["id"]), (4, &json!(7)));
    assert_eq!(scored[2]["reward"], scored[0]["reward"]);
    assert_eq!(scored[3]["reward"], scored[0]["reward"]);
    assert!(scored[1].get("id").is_none());
    // Sums may differ with the number of rows that are read together.
    let (found, expected) = (scored[0]["reward"].as_f64().unwrap(), answer["reward"].as_f64().unwrap());
    assert!((found - expected).abs() < 1e-3, "{found} is not {expected}");
    assert!(
        refused(&["score", "--reward", "harmless"], "{\"prompt\":\"x\"}")
            .ends_with("<stdin>:1: give text, or prompt and response")
    );
}

#[test]
fn the_references_budget_and_logs() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("o.jsonl");
    let args = [
        "generate",
        "Hi",
        "--max-new-tokens",
        "2",
        "--budget",
        "reference",
        "--out",
        out.to_str().unwrap(),
    ];
    let mut command = Command::cargo_bin("stackelberg").unwrap();
    let output = command.args(args).env("RUST_LOG", "info").output().unwrap();
    assert_eq!(lines(&out)[0]["settings"]["budget"], "reference-step");
    let logged = String::from_utf8(output.stderr).unwrap();
    assert!(logged.contains("loaded the policy") && !logged.contains('\x1b'), "{logged:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_and_ctrl_c() {
    let full = refused(&["generate", "Hi", "--max-new-tokens", "2", "--out", "/dev/full"], "");
    assert!(full.contains("cannot write /dev/full: No space left on device"), "{full}");

    // Ctrl-C keeps finished lines, and the resumed run appends to them.
    let folder = tempfile::tempdir().unwrap();
    let (prompts, out) = (folder.path().join("p.jsonl"), folder.path().join("o.jsonl"));
    let many: String =
        (0..40).map(|i| json!({ "prompt": format!("Count to {i}.") }).to_string() + "\n").collect();
    fs::write(&prompts, many).unwrap();
    // The terminal interrupts a group of processes. The program with the reward is in another one.
    let program = "program:python3 -uc 'import sys\nfor line in sys.stdin: print(len(line))'";
    let args = ["generate", "--prompts", prompts.to_str().unwrap(), "--max-new-tokens", "8", "--out"];
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("stackelberg"));
    command.args(args).arg(&out).args(["--reward", program]).stderr(std::process::Stdio::piped());
    let mut child = std::os::unix::process::CommandExt::process_group(&mut command, 0).spawn().unwrap();
    while fs::read_to_string(&out).unwrap_or_default().lines().count() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let group = format!("-{}", child.id());
    std::process::Command::new("kill").args(["-INT", "--", &group]).status().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert!(said.contains("interrupted after") && !said.contains("Traceback"), "{said}");
    let kept = lines(&out);
    assert!(kept.len() >= 2 && kept.len() < 40);
    assert!(kept.iter().all(|answer| answer["tokens"] == 8 || answer["finish_reason"] == "stop"));
}

#[test]
fn models_and_completions() {
    let listed = succeed(&["models"], "");
    for name in
        ["smollm2-135m", "all-minilm-l6-v2", "mt-bench", "realtoxicity", "harmless", "Apache-2.0"]
    {
        assert!(listed.contains(name), "{name}");
    }
    assert!(succeed(&["completions", "bash"], "").contains("_stackelberg"));

    let checked = succeed(&["models", "check", "smollm2-135m"], "");
    for said in [
        "architecture     llama\n",
        "parameters       134.5 million\n",
        "9 heads of 64, 3 KV heads\n",
        "context          8192 tokens\n",
        "end-of-text      <|endoftext|>, <|im_end|>\n",
        "tokens for 'Hi'\n",
        "The capital of France is Paris",
    ] {
        assert!(checked.contains(said), "{said} is not in {checked}");
    }
    let checked = succeed(&["models", "check", "harmless-minilm"], "");
    assert!(
        checked.contains("reads text in the format hh") && checked.contains(": prefers the kind one")
    );
    assert!(
        succeed(&["models", "check", "harmless"], "")
            .contains("hidden states of width 576 of smollm2-135m")
    );
    assert!(refused(&["models", "check", "/no/such"], "").contains("/no/such does not exist"));
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    assert_eq!(refused(&["generate", " "], ""), "error: the prompt is empty");
    assert!(
        refused(&["generate", "Hi", "--strength", "-1"], "")
            .ends_with("strength is -1: it must be zero or more, and finite")
    );
    assert!(
        refused(&["generate", "Hi", "--temperature", "-1"], "")
            .ends_with("temperature is -1: it must be 0, or between 0.000001 and 1000000")
    );
    assert!(refused(&["generate", "Hi", "--stop", ""], "").contains("the length of a stop text is 0"));
    assert!(refused(&["generate", "Hi", "--candidates", "0"], "").contains("between 1 and 4096"));
    assert!(refused(&["generate", "Hi", "--candidates", "60000"], "").contains("between 1 and 4096"));
    assert!(
        refused(&["generate", "Hi", "--reward", "kind"], "")
            .starts_with("error: unknown reward 'kind': known are harmless")
    );
    assert!(refused(&["generate", "Hi", "--model", "no-such-model"], "").contains("no-such-model"));
    let bad = file("bad.jsonl", "{\"prompt\": \"x\"}\n{\"prompt\": }\n");
    assert!(refused(&["generate", "--prompts", &bad], "").contains("bad.jsonl:2:"));
    let empty = file("empty.jsonl", "{\"prompt\": \"\"}\n");
    assert!(refused(&["generate", "--prompts", &empty], "").contains("empty.jsonl:1"));
    let cut = file("cut.gguf", "GGUF");
    assert!(
        refused(&["generate", "Hi", "--model", &cut], "").contains("cut.gguf: not a whole GGUF file")
    );
    let head = file("head.safetensors", "x");
    assert!(
        refused(&["generate", "Hi", "--reward", &head], "")
            .contains("head.safetensors: not a whole safetensors file")
    );
    let long = "word ".repeat(9000);
    assert!(refused(&["generate", &long], "").contains("do not fit the model's context of 8192"));
    assert!(
        refused(&["generate", "Hi", "--out", "no/such/folder/o.jsonl"], "")
            .contains("cannot write no/such/folder/o.jsonl")
    );
}

/// Told where it runs only if that is not the CPU; a device that is not there is one line.
#[test]
fn a_device_is_recorded_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("o.jsonl");
    let base = ["generate", "What is the moon?", "--max-new-tokens", "3"];
    let answer = |device: &[&str], name: &str| {
        let out = out.with_file_name(name);
        let to = ["--dtype", "f32", "--out", out.to_str().unwrap()];
        succeed(&[&base[..], &to, device].concat(), "");
        lines(&out).remove(0)
    };
    let (cpu, candle) = (answer(&[], "cpu"), answer(&["--device", "candle"], "candle"));
    assert_eq!(
        (&cpu["settings"]["device"], &candle["settings"]["device"]),
        (&Value::Null, &"candle".into())
    );
    assert_eq!(cpu["response"], candle["response"]);
    if cfg!(not(any(feature = "cuda", feature = "metal"))) {
        let said = refused(&[&base[..], &["--device", "cuda"]].concat(), "");
        let hint = "cuda: not in this build: make one with `cargo build --release --features cuda`";
        assert!(said.ends_with(hint), "{said}");
    }
    let said = refused(&[&base[..], &["--device", "candle", "--dtype", "int8"]].concat(), "");
    assert!(
        said.ends_with("weights in int8 are for the device cpu: give the dtype bf16 or f32"),
        "{said}"
    );
}

#[test]
fn a_prompt_comes_from_one_place() {
    let short = ["--method", "base", "--max-new-tokens", "3"];
    let typed = succeed(&[&["generate", "-"][..], &short].concat(), "Name a colour.\n");
    assert_eq!(typed, succeed(&[&["generate", "Name a colour."][..], &short].concat(), ""));
    assert_ne!(typed, succeed(&[&["generate", "Hi"][..], &short].concat(), ""));
    assert_eq!(refused(&["generate", "-"], " \n"), "error: the prompt is empty");
    let nothing = refused(&["generate"], "");
    assert!(
        nothing.starts_with("error: give a prompt") && nothing.contains("--prompts FILE"),
        "{nothing}"
    );
    assert_eq!(nothing.lines().count(), 1, "{nothing}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.jsonl");
    let messages =
        json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]);
    fs::write(&file, json!({"id": "a", "messages": messages}).to_string()).unwrap();
    let prompts = ["generate", "--prompts", file.to_str().unwrap()];
    let twice = refused(&[&prompts[..], &["--system", "Be polite."]].concat(), "");
    assert_eq!(
        twice,
        "error: prompt a: the messages have a system message already: leave out --system, or remove that message"
    );
    let one = succeed(&[&prompts[..], &["--max-new-tokens", "1"]].concat(), "");
    assert_eq!(serde_json::from_str::<Value>(&one).unwrap()["tokens"], 1);
    let output = run(&["generate", "Hi", "--max-new-tokens", "1", "--method", "base"], "");
    assert!(String::from_utf8(output.stderr).unwrap().contains(" 1 token | "));
}

#[test]
fn a_run_ends_with_a_summary() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("p.jsonl"), folder.path().join("o.jsonl"));
    fs::write(&file, "{\"prompt\":\"Hi\"}\n{\"prompt\":\"Name a colour.\"}\n").unwrap();
    let (file, path) = (file.to_str().unwrap(), out.to_str().unwrap());
    let args = ["generate", "--prompts", file, "--max-new-tokens", "4", "--out", path, "--resume"];
    let output = run(&args, "");
    let answers = lines(&out);
    let sum = |field: &str| answers.iter().map(|answer| answer[field].as_f64().unwrap()).sum::<f64>();
    let expected = format!(
        "{path}: 2 answers, mean reward {:+.3}, {} of {} tokens steered\n",
        sum("reward") / 2.0,
        sum("steered"),
        sum("tokens")
    );
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.ends_with(&expected), "{said:?} does not end with {expected:?}");
    let again = run(&args, "");
    assert_eq!(String::from_utf8(again.stderr).unwrap(), format!("{path}: no new answers\n"));
}

#[test]
fn folds_and_commands_of_reward_heads() {
    let folder = tempfile::tempdir().unwrap();
    let (file, head) = (folder.path().join("p.jsonl"), folder.path().join("h.safetensors"));
    let kind =
        ["Of course, I can help.", "Thank you, friend.", "With pleasure!", "That is kind of you."];
    let rude = ["Go away.", "You are a fool.", "I hate this.", "Be quiet, idiot."];
    let pairs = kind.iter().zip(rude).enumerate().map(|(i, (kind, rude))| {
        let text = |answer: &str| format!("\n\nHuman: Question {i}?\n\nAssistant: {answer}");
        json!({"chosen": text(kind), "rejected": text(rude)}).to_string() + "\n"
    });
    fs::write(&file, pairs.collect::<String>()).unwrap();
    let args = ["train", "reward", "--pairs", file.to_str().unwrap(), "--out", head.to_str().unwrap()];
    let few = refused(&args, "");
    assert_eq!(
        few,
        "error: 4 groups of rows cannot be split into 5 folds: give more data, or fewer folds with --folds"
    );
    succeed(&[&args[..], &["--folds", "2", "--about", "is polite"]].concat(), "");
    let card = fs::read_to_string(head.with_extension("md")).unwrap();
    assert!(card.contains("--folds 2 --about 'is polite'\n"), "{card}");
    assert!(card.contains("2 folds, seed 0"), "{card}");
    let neither = refused(&["train", "reward", "--out", "h.safetensors"], "");
    assert!(neither.contains("--pairs FILE") && neither.contains("--rated FILE"), "{neither}");

    // The commands of the built-in rewards: what they are about is one argument.
    let cards = Path::new(env!("CARGO_MANIFEST_DIR")).join("../registry/rewards");
    for name in ["harmless", "harmless-judge", "harmless-minilm", "sentiment"] {
        let card = fs::read_to_string(cards.join(format!("{name}.md"))).unwrap();
        let line = card.lines().find(|line| line.starts_with("    stackelberg ")).unwrap();
        let printed =
            Command::new("sh").args(["-c", &format!("printf '%s\\n' {line}")]).output().unwrap();
        let printed = String::from_utf8(printed.stdout).unwrap();
        let arguments: Vec<&str> = printed.lines().collect();
        assert_eq!(arguments[arguments.len() - 2], "--about", "{name}: {line}");
    }
}
