//! Rewards that read text, on the command line: what guides, what scores and what evaluates are one.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use crate::common::{command, output, refused, rewards, said, succeed};
use crate::tiny::Tiny;
use serde_json::{Value, json};

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

/// Files of a folder, as arguments.
fn paths<const N: usize>(folder: &Path, names: [&str; N]) -> [String; N] {
    names.map(|name| folder.join(name).to_str().unwrap().to_owned())
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
    // What the command holds of a server's secrets is not recorded.
    let secret = format!("{reward} http://me:secret@host/score?api_key=secret");
    let recorded = generate("secret.jsonl", &["--reward", &secret, "--method", "base"]);
    let shown = format!("{reward} http://***@host/score?api_key=***");
    assert_eq!(recorded[0]["settings"]["reward"], shown.as_str());
    assert!(!recorded[0].to_string().contains("secret@"), "{}", recorded[0]);
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
    let unsure = generate("unsure.jsonl", &[&strong[..], &["--entropy-gate", "1"]].concat());
    let calls = |line: &Value| line["reward_calls"].as_u64().unwrap();
    assert!(unsure.iter().all(|line| (1..12).contains(&calls(line))), "{unsure:?}");
    let never = generate("never.jsonl", &[&strong[..], &["--entropy-gate", "2.3"]].concat());
    // Answers are written in the order in which they end.
    let by_id = |lines: &[Value]| -> BTreeMap<String, Value> {
        lines.iter().map(|line| (line["id"].to_string(), line["response"].clone())).collect()
    };
    assert_eq!(by_id(&never), by_id(&base));
}

/// A combination is its parts put together, whoever asks, and each part is told apart.
#[test]
fn several_rewards_make_up_one() {
    let folder = tempfile::tempdir().unwrap();
    let [prompts, out, trace] = paths(folder.path(), ["prompts.jsonl", "out.jsonl", "trace.jsonl"]);
    fs::write(&prompts, "{\"prompt\": \"Name three fruits.\"}\n{\"prompt\": \"Hi\"}\n").unwrap();
    let commas = program(folder.path());
    let reward = format!("lex(\"{commas}\">=0, min(harmless, sentiment)*0.5+\"{commas}\"*2)");
    let parts = [commas.as_str(), "harmless", "sentiment"];
    let whole = |of: &dyn Fn(&str) -> f64| {
        (of("harmless").min(of("sentiment")) * 0.5 + of(&commas) * 2.0).clamp(-10.0, 10.0)
    };
    let args =
        ["generate", "--max-new-tokens", "8", "--no-skip", "--prompts", &prompts, "--reward", &reward];
    succeed(&[&args[..], &["--out", &out, "--trace", &trace]].concat());
    let answers = lines(out.as_ref());
    for line in &answers {
        let found = line["reward"].as_f64().unwrap();
        assert_eq!(found, whole(&|name| line["rewards"][name].as_f64().unwrap()), "{line}");
        assert_eq!(line["rewards"].as_object().unwrap().len(), 3);
    }
    let steps = lines(trace.as_ref());
    assert_eq!(steps.len(), 16);
    for step in &steps {
        for (i, reward) in step["rewards"].as_array().unwrap().iter().enumerate() {
            assert_eq!(*reward, whole(&|name| step["parts"][name][i].as_f64().unwrap()));
        }
    }
    let written = fs::read_to_string(&out).unwrap();
    let scored = output(&["score", "--reward", &reward], &written);
    for (scored, line) in scored.lines().zip(&answers) {
        let scored: Value = serde_json::from_str(scored).unwrap();
        assert_eq!((&scored["reward"], &scored["rewards"]), (&line["reward"], &line["rewards"]));
    }
    for part in parts {
        let alone = rewards(&output(&["score", "--reward", part], &written));
        for (alone, line) in alone.iter().zip(&answers) {
            assert_eq!(line["rewards"][part], *alone);
        }
    }
    let table = succeed(&["evaluate", &out, "--reward", &reward, "--no-embeddings", "--format", "csv"]);
    assert!(parts.iter().all(|part| table.contains(&part.replace('"', "\"\""))), "{table}");
    let shown =
        succeed(&["generate", "Hi", "--max-new-tokens", "4", "--reward", "harmless+sentiment*2"]);
    assert!(shown.contains(" (harmless ") && shown.contains(", sentiment "), "{shown}");
    // Two parts that swapped their weights are another reward.
    let other = reward.replace("*0.5", "*0.25");
    let again = refused(&[&args[..7], &[&other, "--out", &out, "--resume"]].concat());
    assert!(again.contains("written with reward_hash "), "{again}");
}

/// Conversations and content in parts are what a prompt and a response are, plain or gzipped.
#[test]
fn messages_are_scored_and_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let reward = program(folder.path());
    let rows = [
        json!({"prompt": [{"role": "user", "content": "Name fruits."}], "response": "figs, plums, pears"}),
        json!({"messages": [{"role": "user", "content": "Name fruits."},
            {"role": "assistant", "content": "figs, plums, pears"}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "Name "},
            {"type": "text", "text": "fruits."}]}], "response": "figs, plums, pears"}),
    ];
    let input: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let scored = rewards(&output(&["score", "--reward", &reward], &input));
    assert!(scored[0] > 2.0 && scored.iter().all(|reward| *reward == scored[0]), "{scored:?}");
    let [zipped, each] = paths(folder.path(), ["rows.jsonl.gz", "each.jsonl"]);
    let file = fs::File::create(&zipped).unwrap();
    let mut gzip = std::process::Command::new("gzip");
    gzip.arg("-c").stdout(file).stdin(std::process::Stdio::piped());
    let mut child = gzip.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(rewards(&output(&["score", &zipped, "--reward", &reward], "")), scored);
    succeed(&["evaluate", &zipped, "--reward", &reward, "--no-embeddings", "--each", &each]);
    assert_eq!(rewards(&fs::read_to_string(&each).unwrap()), scored);
    let shaped = output(
        &["shape", "-"],
        "{\"id\": 1, \"rewards\": [0.5, 2.0], \"model\": \"m\", \"digits\": 1.10, \"n\": {\"b\": 1, \"a\": 2}}",
    );
    let others = r#","model":"m","digits":1.10,"n":{"b": 1, "a": 2}}"#;
    assert!(shaped.trim_end().ends_with(others), "{shaped}");
    assert!(!shaped.contains("\"rewards\""), "{shaped}");
}

/// A file of answers is continued with the same prompts, rewards, templates and value heads only.
#[test]
fn what_has_changed_is_not_continued() {
    let folder = tempfile::tempdir().unwrap();
    let [policy, reward, prompts, out] =
        paths(folder.path(), ["policy", "reward", "p.jsonl", "o.jsonl"]);
    let template = |folder: &str, text: &str| {
        let source = format!("{text}{{% for m in messages %}} {{{{ m.content }}}}{{% endfor %}} ");
        fs::write(Path::new(folder).join("chat_template.jinja"), source).unwrap();
    };
    Tiny::default().write(Path::new(&policy));
    let write = |seed| {
        Tiny { seed, labels: Some(1), last_word: "odd", ..Tiny::default() }.write(Path::new(&reward));
    };
    write(3);
    template(&policy, "w1");
    template(&reward, "w2");
    let ask = |text: &str| {
        let lines = [("a", text), ("b", "w8 w9")]
            .map(|(id, text)| json!({"id": id, "prompt": text}).to_string());
        fs::write(&prompts, lines.join("\n")).unwrap();
    };
    ask("w5 w6");
    let files =
        ["generate", "--prompts", &prompts, "--out", &out, "--model", &policy, "--reward", &reward];
    let args = [&files[..], &["--dtype", "f32", "--max-new-tokens", "4"]].concat();
    let again = [&args[..], &["--resume"]].concat();
    succeed(&args);
    let whole = fs::read_to_string(&out).unwrap();
    assert_eq!(lines(Path::new(&out))[0]["settings"]["prompt_format"], "chat");
    succeed(&again);
    // Another prompt under the same id.
    ask("w5 w7");
    let said = refused(&again);
    let why = "o.jsonl:1: id: 'a' answers the prompt \"w5 w6\", this run has \"w5 w7\" under it: give the changed";
    assert!(said.contains(why), "{said}");
    ask("w5 w6");
    // Another template, of the policy or of the reward.
    for (folder, text) in [(&policy, "w1"), (&reward, "w2")] {
        template(folder, "w4");
        let said = refused(&again);
        assert!(said.contains("o.jsonl:1: written with another chat template"), "{said}");
        template(folder, text);
    }
    // Another reward under the same name.
    write(4);
    let said = refused(&again);
    assert!(said.contains("o.jsonl:1: written with reward_hash "), "{said}");
    write(3);
    succeed(&again);
    assert_eq!(fs::read_to_string(&out).unwrap(), whole);
}

/// A reward whose context is shorter than the policy's limits answers, or fails the prompts that do not fit, but no others.
#[test]
fn a_short_context_of_a_reward_ends_no_run() {
    let folder = tempfile::tempdir().unwrap();
    let [policy, own, foreign, prompts, out] =
        paths(folder.path(), ["policy", "own", "foreign", "prompts.jsonl", "out.jsonl"]);
    let context = |tokens: usize| json!({"max_position_embeddings": tokens});
    Tiny::default().write(Path::new(&policy));
    let short = || Tiny { seed: 3, labels: Some(1), config: context(12), ..Tiny::default() };
    short().write(Path::new(&own));
    Tiny { last_word: "odd", ..short() }.write(Path::new(&foreign));
    let long = "w5 ".repeat(20);
    let lines_of = |texts: [&str; 3]| {
        let line = |(id, text)| format!("{}\n", json!({"id": id, "prompt": text}));
        ["a", "b", "c"].into_iter().zip(texts).map(line).collect::<String>()
    };
    fs::write(&prompts, lines_of(["w5 w6 w7", &long, "w8 w9"])).unwrap();
    let args = |reward: &str, most: &str| {
        let files =
            ["generate", "--prompts", &prompts, "--out", &out, "--model", &policy, "--reward", reward];
        let how = ["--dtype", "f32", "--no-eos", "--max-new-tokens", most, "--prompt-format", "raw"];
        [files.map(str::to_owned).to_vec(), how.map(str::to_owned).to_vec()].concat()
    };
    let run = |reward: &str, most: &str, more: &[&str]| {
        let args = args(reward, most);
        let args: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
        refused(&args)
    };
    // The reward reads the policy's tokens: its limit is known before.
    let said = run(&own, "16", &[]);
    let limits = format!("warning: the context of the reward {own} limits 2 answers");
    assert!(said.contains(&limits), "{said}");
    let why = format!("prompt b: {own}: 21 tokens do not fit this reward's context of 12");
    assert!(said.contains(&format!("failed: {why}")), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.starts_with(&format!("error: 1 of 3 prompts failed, the first: {why}")), "{said}");
    assert!(last.ends_with(&format!("try them again with --resume --out {out}")), "{said}");
    let answers = lines(Path::new(&out));
    let ids: Vec<&Value> = answers.iter().map(|line| &line["id"]).collect();
    assert_eq!(ids, ["a", "c"]);
    for (answer, tokens) in answers.iter().zip([9, 10]) {
        assert_eq!((&answer["tokens"], &answer["finish_reason"]), (&json!(tokens), &json!("length")));
    }
    // What failed is done again, and nothing else.
    assert!(run(&own, "16", &["--resume"]).contains("1 of 3 prompts failed"));
    assert_eq!(lines(Path::new(&out)).len(), 2);
    // Another tokenizer: only the text that is read says whether it fits.
    fs::remove_file(&out).unwrap();
    let said = run(&format!("raw:{foreign}"), "4", &[]);
    let why = format!("prompt b: {foreign}: 21 tokens do not fit this reward's context of 12");
    assert!(said.lines().last().unwrap().contains(&why), "{said}");
    assert_eq!(lines(Path::new(&out)).len(), 2);
}

/// Rewards that read text score rollouts too, and rollouts brought in.
#[test]
fn rollouts_are_scored_by_what_reads_text() {
    let folder = tempfile::tempdir().unwrap();
    let [prompts, out, again, generated] =
        paths(folder.path(), ["prompts.jsonl", "out", "again", "generated.jsonl"]);
    fs::write(&prompts, "{\"prompt\": \"Name three fruits.\"}\n{\"prompt\": \"Hi\"}\n").unwrap();
    let reward = format!("\"{}\"*2+harmless", program(folder.path()));
    let short = ["--samples", "2", "--max-new-tokens", "10", "--reward", &reward];
    succeed(&[&["rollout", "--prompts", &prompts, "--out", &out][..], &short].concat());
    let said = succeed(&["rollout", "merge", &out]);
    assert!(said.contains("complete: 2 prompts, 4 samples") && said.contains("mean reward"), "{said}");
    // The samples as lines of their own, scored once more.
    let line = |prompt: &str, response: &str| {
        serde_json::json!({"prompt": prompt, "response": response}).to_string() + "\n"
    };
    fs::write(&generated, line("Hi", "One, two, three") + &line("Hi", "One")).unwrap();
    succeed(&["rollout", "import", &generated, "--out", &again, "--reward", &reward, "--no-hidden"]);
    let said = succeed(&["rollout", "merge", &again]);
    let written = fs::read_to_string(&generated).unwrap();
    let scored = rewards(&output(&["score", "--reward", &reward], &written));
    let mean = format!("mean reward {:+.4}", scored.iter().sum::<f64>() / 2.0);
    assert!(said.contains(&mean), "{said} {mean}");
}

/// A reward model of the policy's tokenizer, of two labels: the difference of its logits, of the policy's tokens or of
/// text laid out otherwise.
#[test]
fn labels_and_formats_are_part_of_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    Tiny::default().write(&at("policy"));
    Tiny { seed: 5, labels: Some(2), ..Tiny::default() }.write(&at("labels"));
    let [policy, labels] = paths(folder.path(), ["policy", "labels"]);
    let row = "{\"prompt\": \"w5 w6\", \"response\": \" w7 w8\"}";
    let score = |format: &str, label: &str| {
        let reward = format!("{format}{labels}{label}");
        rewards(&output(&["score", "--dtype", "f32", "--model", &policy, "--reward", &reward], row))[0]
    };
    let difference = score("", "#LABEL_1-LABEL_0");
    assert!((difference - (score("", "#LABEL_1") - score("", "#LABEL_0"))).abs() < 1e-5);
    assert_eq!(score("", "#LABEL_1*2"), 2.0 * score("", "#LABEL_1"));
    let formats = ["raw:", "hh:", "answer:"].map(|format| score(format, "#LABEL_1"));
    assert_eq!(formats[0], score("", "#LABEL_1"));
    assert!(formats[0] != formats[1] && formats[0] != formats[2], "{formats:?}");
    let refused = |reward: &str| refused(&["generate", "w5", "--model", &policy, "--reward", reward]);
    let unnamed = refused(&labels);
    assert!(unnamed.contains("has the labels LABEL_0, LABEL_1: choose one behind a '#'"), "{unnamed}");
    let odd = refused(&format!("{labels}#LABEL_2"));
    assert!(odd.contains("has no label 'LABEL_2': it has LABEL_0, LABEL_1"), "{odd}");
}

#[test]
fn layouts_that_differ_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let (reward, [out]) = (program(folder.path()), paths(folder.path(), ["out.jsonl"]));
    succeed(&["generate", "Hi", "--max-new-tokens", "2", "--reward", &reward, "--out", &out]);
    let evaluate = |reward: &str| succeed(&["evaluate", &out, "--no-embeddings", "--reward", reward]);
    assert!(!evaluate(&format!("hh:{reward}")).contains("warning"));
    let warned = evaluate(&format!("harmless+answer:{reward}"));
    assert!(warned.contains("read hh text when it guided, but reads answer text here"), "{warned}");
    // A prompt that brings what the model's layout begins with.
    let raw = ["generate", "--prompt-format", "raw", "--max-new-tokens", "2", "--method", "base"];
    let twice = succeed(&[&raw[..], &["<|im_start|><|im_start|>user"]].concat());
    assert!(
        twice.contains("warning: 1 prompt begins with <|im_start|> twice: remove it from its text"),
        "{twice}"
    );
    assert!(!succeed(&[&raw[..], &["no no"]].concat()).contains("twice"));
}

/// Texts that begin with a token twice or spell control tokens are told once per run, wherever texts are tokenized.
#[test]
fn odd_texts_are_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["one.jsonl", "two.jsonl", "pairs.jsonl", "head.safetensors", "samples"];
    let [one, two, pairs, head, samples] = paths(folder.path(), names);
    let twice = json!({"prompt": "<|im_start|><|im_start|>user", "response": "a"});
    let spells = json!({"prompt": "Hi<|im_end|>", "response": "b"});
    let raw = |mut row: Value| {
        row["settings"] = json!({"prompt_format": "raw"});
        format!("{row}\n")
    };
    fs::write(&one, raw(twice.clone()) + &raw(spells)).unwrap();
    fs::write(&two, raw(twice)).unwrap();
    let warnings = |args: &[&str]| {
        let said = succeed(args);
        said.lines().filter(|line| line.starts_with("warning: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let begin = |texts: &str, their: &str| {
        format!(
            "warning: {texts} with <|im_start|> twice: remove it from {their} text, or use another prompt format"
        )
    };
    let spell = |texts: &str| {
        format!(
            "warning: {texts} control tokens such as <|im_end|>, which are read as such in the prompt format raw: use \
             the format chat if they are no part of a layout"
        )
    };
    let rewards = ["--no-embeddings", "--reward", "harmless", "--reward", "harmless*2"];
    let evaluated = warnings(&[&["evaluate", &one, &two, "--unpaired"], &rewards[..]].concat());
    assert_eq!(evaluated, [begin("2 texts begin", "their"), spell("1 text spells")]);
    let import = ["rollout", "import", &one, "--out", &samples, "--no-reward", "--prompt-format", "raw"];
    assert_eq!(warnings(&import), [begin("1 prompt begins", "its"), spell("1 prompt spells")]);

    let pair = |i: usize| {
        let said = |answer: &str| format!("\n\nHuman: Question {i}?\n\nAssistant: {answer}");
        let end = if i == 0 { "<|im_end|>" } else { "" };
        format!("{}\n", json!({"chosen": said(&format!("Gladly {i}.{end}")), "rejected": said("No.")}))
    };
    fs::write(&pairs, (0..6).map(pair).collect::<String>()).unwrap();
    let train =
        ["train", "reward", "--folds", "2", "--pairs", &pairs, "--held-out", &pairs, "--out", &head];
    // The same text is in both files.
    let raw = warnings(&[&train[..], &["--text-format", "raw"]].concat());
    assert_eq!(raw, [spell("2 texts spell")]);
    assert_eq!(warnings(&[&train[..], &["--text-format", "chat"]].concat()), [""; 0]);
}

/// A reward server whose scores are behind a sigmoid, whatever it is asked for. It runs until the tests end.
fn sigmoid_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/classify", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while stream.read_line(&mut line).unwrap_or(0) > 2 {
                let number =
                    line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned);
                length = number.map_or(length, |number| number.trim().parse().unwrap());
                line.clear();
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            let row =
                |text: &Value| json!({"probs": [1.0 / (1.0 + text.as_str().unwrap().len() as f64)]});
            let rows: Vec<Value> = body["input"].as_array().unwrap().iter().map(row).collect();
            let text = json!({"data": rows}).to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                text.len()
            );
            let _ = stream.get_mut().write_all((head + &text).as_bytes());
        }
    });
    address
}

/// Reward servers are checked when they are loaded, and a warning is given once.
#[test]
fn a_sigmoid_of_a_server_is_warned_of() {
    let address = sigmoid_server();
    let checked = succeed(&["models", "check", &address]);
    let warning = format!("warning: {address}: seems to apply a sigmoid or softmax");
    assert_eq!(checked.matches(&warning).count(), 1, "{checked}");
    assert!(checked.contains("the protocol of vLLM, scores 0."), "{checked}");
    let both = format!("\"{address},{address}\"*2+\"{address}\"");
    let mut score = command(&["score", "--reward", &both]);
    let mut child =
        score.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{\"text\": \"four\"}\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = said(&output);
    assert_eq!(said.matches(&warning).count(), 1, "{said}");
    let found = rewards(&String::from_utf8(output.stdout).unwrap());
    assert!((found[0] - 3.0 / 5.0).abs() < 1e-12, "{said}");
}

#[test]
fn what_cannot_be_is_said_in_one_line() {
    let hi = |more: &[&str]| refused(&[&["generate", "Hi", "--max-new-tokens", "2"], more].concat());
    assert!(
        hi(&["--reward", "answer:harmless"])
            .contains("answer:harmless: a head reads the policy's own tokens")
    );
    let ended = hi(&["--reward", "program:true"]);
    assert!(ended.contains("the program 'true' ended (exit status: 0) before it had scored"), "{ended}");
    // A run whose prompts all fail alike is given up, and says how it goes on.
    let folder = tempfile::tempdir().unwrap();
    let (prompts, out) = (folder.path().join("p.jsonl"), folder.path().join("o.jsonl"));
    let lines = ["a", "b", "c", "d", "e", "f", "g", "h"]
        .map(|id| format!("{{\"id\":\"{id}\",\"prompt\":\"Hi\"}}\n"));
    fs::write(&prompts, lines.concat()).unwrap();
    let files = ["--prompts", prompts.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let short = ["generate", "--max-new-tokens", "2", "--reward", "program:true"];
    let given_up = said(&command(&[&short[..], &files].concat()).output().unwrap());
    let end = format!(
        "given up after 3 such failures in a row, with 0 of 8 prompts answered; continue with --resume --out {}",
        out.display()
    );
    assert!(given_up.trim_end().ends_with(&end), "{given_up}");
    assert!(
        hi(&["--reward", "http://127.0.0.1:9/embed"]).contains("must end with one of /classify, /score")
    );
    let gone = hi(&["--reward", "http://127.0.0.1:9/score"]);
    assert!(
        gone.starts_with("error: http://127.0.0.1:9/score: ")
            && gone.contains("Connection refused")
            && gone.contains("after 5 tries"),
        "{gone}"
    );
    let odd = hi(&["--reward", "harmless*x"]);
    assert!(odd.contains("a finite weight, as in a*0.7, is expected before 'x'"), "{odd}");
    let unknown = hi(&["--reward", "harmless+helpful"]);
    assert!(unknown.contains("unknown reward 'helpful': known are harmless,"), "{unknown}");
    assert!(unknown.contains("must be in double quotes"), "{unknown}");
    assert!(hi(&["--score-every", "0"]).contains("between 1 and 4096"));
    assert!(
        hi(&["--entropy-gate", "9"])
            .contains("entropy-gate is 9: it must be between 0 and ln of the candidates")
    );
    assert!(
        hi(&["--method", "best-of-n", "--score-every", "2"])
            .contains("--score-every has no effect with --method best-of-n")
    );
}
