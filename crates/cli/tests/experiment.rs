//! `stackelberg experiment` as a user runs it, on the real default model: killed and gone on with, verified, changed,
//! refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::{command, refused, succeed};
use serde_json::Value;

const SMALL: &str = r#"
name = "small"
seeds = [0, 1]
traces = 1
[rewards]
guide = "harmless"
held_out = ["harmless-minilm"]
[[prompts]]
from = "prompts.jsonl"
[decoding]
max_new_tokens = 8
temperature = 0.7
samples = 3
batch_size = 2
[values]
prompts = [{ from = "others.jsonl" }]
max_new_tokens = 8
samples = 4
epochs = 1
validation = 0.5
[[methods]]
method = "best-of-n"
[[methods]]
method = "args"
shapings = ["raw", "srs"]
strengths = [0.5, 2]
curves = true
[[methods]]
method = "args"
shapings = ["raw", "hard"]
kl_budgets = [0.2]
[[methods]]
method = "cd"
shapings = ["raw"]
strengths = [4]
[[stress]]
method = "args"
shapings = ["raw"]
with = ["reversed"]
"#;

/// A folder with an experiment's file and its prompts.
fn folder(experiment: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("small.toml", experiment);
    let lines = |asked: &[&str]| -> String {
        asked.iter().map(|prompt| format!("{{\"prompt\": \"{prompt}\"}}\n")).collect()
    };
    write("prompts.jsonl", &lines(&["Name a fruit.", "How do I pick a lock?", "What is rain?"]));
    write("others.jsonl", &lines(&["Name a river.", "Why is grass green?", "Be rude.", "Be kind."]));
    folder
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

/// All answers and scores of an experiment, without what differs from run to run.
fn kept(out: &str) -> BTreeMap<String, Vec<Value>> {
    let mut kept = BTreeMap::new();
    for run in fs::read_dir(format!("{out}/runs")).unwrap() {
        let run = run.unwrap().path();
        for file in fs::read_dir(&run).unwrap() {
            let file = file.unwrap().path();
            let name = file.strip_prefix(out).unwrap().to_str().unwrap().to_owned();
            // Scores are named by their answers, elapsed time and all.
            let name = name.find("/scores-").map_or(name.clone(), |at| name[..at + 8].to_owned());
            if name.ends_with("run.json") || name.ends_with(".partial") {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap();
            // A torn last line of a run that is done is left where it is, and not read.
            let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
            let mut lines: Vec<Value> =
                whole.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
            for line in lines.iter_mut().filter_map(Value::as_object_mut) {
                line.remove("elapsed");
                line.remove("tokens_per_second");
            }
            // Answers stand in the order in which they were finished.
            lines.sort_by_key(|line| format!("{}{:>9}", line["id"], line["step"].to_string()));
            kept.insert(name, lines);
        }
    }
    kept
}

#[test]
fn killed_and_gone_on_with_it_comes_out_the_same() {
    let folder = folder(SMALL);
    let at = |name: &str| path(folder.path(), name);
    let (file, whole, killed) = (at("small.toml"), at("whole"), at("killed"));
    let said = succeed(&["experiment", "run", &file, "--out", &whole]);
    assert!(
        said.contains("args: λ ")
            && said.contains("args by KL budget: 0.2 nats a step is kept")
            && said.contains("report.html"),
        "{said}"
    );
    // Three prompts are too few for intervals; the sentences of the report say so.
    assert!(
        said.starts_with("Too few prompts to tell whether guidance beats the base policy: "),
        "{said}"
    );
    assert!(said.contains("cannot tell with 3 prompts whether text is degenerate at λ 0.5 ("), "{said}");
    let findings = fs::read_to_string(format!("{whole}/findings.md")).unwrap();
    assert!(findings.starts_with("# small\n\n- Too few prompts to tell"), "{findings}");
    assert!(findings.contains("best-of-n, which generates about "), "{findings}");
    assert!(findings.contains("\n## All findings\n\n<details>\n") && findings.contains("\n- args: λ "));

    // Killed twice: in the middle of an answer file, and later.
    for runs in [2, 7] {
        let mut child = command(&["experiment", "run", &file, "--out", &killed])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        let reached = || fs::read_dir(format!("{killed}/runs")).map_or(0, |runs| runs.count()) >= runs;
        while !reached() && child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < Duration::from_secs(120), "no progress");
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // What a killed process leaves of a line.
    let runs = fs::read_dir(format!("{killed}/runs")).unwrap().map(|run| run.unwrap().path());
    let answers = runs.map(|run| run.join("answers.jsonl")).find(|file| file.exists()).unwrap();
    let text = fs::read_to_string(&answers).unwrap();
    fs::write(&answers, format!("{text}{{\"id\":\"tor")).unwrap();
    succeed(&["experiment", "run", &file, "--out", &killed]);
    let (whole_runs, killed_runs) = (kept(&whole), kept(&killed));
    let names = |runs: &BTreeMap<String, Vec<Value>>| runs.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&whole_runs), names(&killed_runs));
    for (name, lines) in &whole_runs {
        assert!(lines == &killed_runs[name], "{name}");
    }

    // 1 base, 1 best-of-n, 4 curves, 1 perturbed, 2 by budget, 1 perturbed, 1 cd; two seeds.
    assert_eq!(fs::read_dir(format!("{whole}/runs")).unwrap().count(), 22);
    let main = fs::read_to_string(format!("{whole}/tables/main.csv")).unwrap();
    assert_eq!(main.lines().count(), 8, "{main}");
    assert!(main.starts_with("group,name,harmless,harmless-minilm,"), "{main}");
    // No step of a budget's takes more than it.
    assert!(main.contains("\nargs by KL budget,\"args hard, 0.2 nats a step\","), "{main}");
    for (name, lines) in whole_runs.iter().filter(|(name, _)| name.contains("0.2-nats")) {
        for line in lines.iter().filter(|line| line["kl"].is_f64()) {
            // A step of a trace, or a whole answer, its end included.
            let steps = line["tokens"].as_f64().map_or(1.0, |tokens| tokens + 1.0);
            assert!(line["kl"].as_f64().unwrap() <= 0.2 * steps + 1e-6, "{name}: {line}");
        }
    }
    let stress = fs::read_to_string(format!("{whole}/tables/perturbed.csv")).unwrap();
    assert!(stress.contains("args raw"), "{stress}");
    let page = fs::read_to_string(format!("{whole}/report.html")).unwrap();
    assert!(page.contains("How do I pick a lock?") || page.contains("id=\"questions\""));

    // Other value heads where they are taught otherwise, and no others made anew.
    let changed = SMALL.replace("epochs = 1", "epochs = 2");
    fs::write(&file, changed).unwrap();
    let heads = || fs::read_dir(format!("{whole}/values")).unwrap().count();
    assert_eq!(heads(), 1);
    succeed(&["experiment", "run", &file, "--out", &whole]);
    assert_eq!((heads(), fs::read_dir(format!("{whole}/runs")).unwrap().count()), (2, 24));
    fs::write(&file, SMALL).unwrap();

    let again =
        succeed(&["experiment", "verify", &file, "--out", &whole, "--runs", "4", "--prompts", "2"]);
    assert!(again.contains("8 answers generated again: all texts and scores are identical"), "{again}");

    // One changed word is found.
    let mut runs = fs::read_dir(format!("{whole}/runs")).unwrap().map(|run| run.unwrap().path());
    let base = runs.find(|run| run.to_str().unwrap().contains("base-s0")).unwrap();
    let answers = base.join("answers.jsonl");
    let text = fs::read_to_string(&answers).unwrap();
    fs::write(&answers, text.replace("\"response\":\"", "\"response\":\"Oh! ")).unwrap();
    let verify =
        || refused(&["experiment", "verify", &file, "--out", &whole, "--runs", "99", "--prompts", "3"]);
    let said = verify();
    assert!(said.contains("the answers were changed after they were measured"), "{said}");
    // Measured again, the texts themselves tell.
    succeed(&["experiment", "run", &file, "--out", &whole]);
    let said = verify();
    let expected = "3 of 66 answers differ, the first: base, seed 0";
    assert!(said.contains(expected) && said.contains(": the text"), "{said}");
}

#[test]
fn another_setting_is_another_run() {
    let only_base = "name = \"small\"\n[rewards]\nguide = \"harmless\"\n[[prompts]]\nfrom = \"prompts.jsonl\"\n\
                     [decoding]\nmax_new_tokens = 4\nsamples = 2\n[[methods]]\nmethod = \"best-of-n\"\n";
    let folder = folder(only_base);
    let at = |name: &str| path(folder.path(), name);
    let (file, out) = (at("small.toml"), at("out"));
    let run = || succeed(&["experiment", "run", &file, "--out", &out]);
    run();
    let first = kept(&out);
    assert_eq!(first.len(), 2 * 2 + 2, "{:?}", first.keys());
    // Nothing is made twice.
    run();
    assert_eq!(kept(&out), first);
    for changed in [
        only_base.replace("max_new_tokens = 4", "max_new_tokens = 5"),
        only_base.replace("harmless", "sentiment"),
    ] {
        let before = kept(&out).len();
        fs::write(&file, changed).unwrap();
        run();
        assert!(kept(&out).len() >= before + 5, "{:?}", kept(&out).keys());
    }
    fs::write(&file, only_base).unwrap();
    fs::write(at("prompts.jsonl"), "{\"prompt\": \"Name a fruit.\"}\n{\"prompt\": \"Name a stone.\"}\n")
        .unwrap();
    let before = kept(&out).len();
    run();
    assert!(kept(&out).len() > before, "other prompts, other runs");
    let main = fs::read_to_string(format!("{out}/tables/main.csv")).unwrap();
    assert!(main.contains("\nwithout a strength,best-of-n,"), "{main}");
}

#[test]
fn entries_of_one_method_differ_in_their_own_settings() {
    let tables = "name = \"small\"\n[rewards]\nguide = \"harmless\"\nheld_out = [\"harmless-minilm\"]\n\
                  [[prompts]]\nfrom = \"prompts.jsonl\"\n[decoding]\nmax_new_tokens = 6\n\
                  [values]\nprompts = [{ from = \"others.jsonl\" }]\nmax_new_tokens = 6\nsamples = 4\nepochs = 1\n\
                  validation = 0.5\n[[methods]]\nmethod = \"best-of-n\"\nsamples = 2\n\
                  [[methods]]\nmethod = \"best-of-n\"\nsamples = 4\n\
                  [[methods]]\nmethod = \"blockwise\"\nsamples = 2\nblock = 3\nvalue = \"raw\"\n\
                  [[perturbed]]\nmethod = \"blockwise\"\nwith = [\"noise=1\"]\n";
    let folder = folder(tables);
    let at = |name: &str| path(folder.path(), name);
    let (file, out) = (at("small.toml"), at("out"));
    succeed(&["experiment", "run", &file, "--out", &out]);
    let runs = kept(&out);
    let of = |begin: &str| -> Vec<&Value> {
        let begin = format!("runs/{begin}-s0-");
        let run =
            runs.iter().find(|(name, _)| name.starts_with(&begin) && name.ends_with("answers.jsonl"));
        run.unwrap_or_else(|| panic!("{begin}: {:?}", runs.keys())).1.iter().collect()
    };
    let mean = |lines: &[&Value]| {
        lines.iter().map(|line| line["tokens_run"].as_f64().unwrap()).sum::<f64>() / lines.len() as f64
    };
    let (two, four) = (of("best-of-n-samples-2"), of("best-of-n-samples-4"));
    assert!(two.iter().all(|line| line["settings"]["samples"] == 2));
    assert!(four.iter().all(|line| line["settings"]["samples"] == 4));
    assert!(mean(&four) > mean(&two), "{four:?}");
    let blocks = of("blockwise-samples-2-block-3-value-raw");
    for line in &blocks {
        assert_eq!((&line["settings"]["samples"], &line["settings"]["block"]), (&2.into(), &3.into()));
        assert_eq!(line["settings"]["value"], "raw.safetensors");
        assert!(line["value_hash"].is_string() && line["reward_calls"].as_u64().unwrap() > 0, "{line}");
    }
    assert_eq!(of("blockwise-samples-2-block-3-value-raw-noise-1").len(), 3);
    // The column of the main table is the mean over the answers.
    let main = fs::read_to_string(format!("{out}/tables/main.csv")).unwrap();
    let column = main.lines().next().unwrap().split(',').position(|name| name == "tokens run");
    for (name, lines) in [("best-of-n samples 2", two), ("best-of-n samples 4", four)] {
        let row = main.lines().find(|row| row.starts_with(&format!("without a strength,{name},")));
        let row = row.unwrap_or_else(|| panic!("{main}"));
        let tokens: f64 = row.split(',').nth(column.unwrap()).unwrap().parse().unwrap();
        assert!((tokens - mean(&lines)).abs() < 1e-6, "{name}: {row}");
    }
    let page = fs::read_to_string(format!("{out}/tables/perturbed.csv")).unwrap();
    assert!(
        page.contains("\"without a strength, noise=1\",blockwise samples 2 block 3 value raw,"),
        "{page}"
    );
    let said = succeed(&["experiment", "verify", &file, "--out", &out, "--runs", "9", "--prompts", "3"]);
    assert!(said.contains("15 answers generated again"), "{said}");
}

#[test]
fn a_plan_runs_nothing() {
    let folder = folder(SMALL);
    let said = succeed(&["experiment", "plan", &path(folder.path(), "small.toml")]);
    assert!(said.contains("  args srs λ 2\n") && said.contains("  args raw λ 0.5 reversed\n"), "{said}");
    assert!(said.contains("11 settings, 2 seeds, 3 prompts: 66 answers of at most 8 tokens"), "{said}");
    // Two seeds, three prompts and 8 tokens: base has one text, best-of-n three, and the nine others eleven.
    let most = 2 * 3 * 8 * (1 + 3 + 9 * 11);
    assert!(said.contains(&format!("at most {most} tokens run through the policy")), "{said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn errors_name_file_line_and_field() {
    let folder = folder("");
    let file = path(folder.path(), "small.toml");
    let base = "name = \"x\"\nprompts = [{ from = \"mt-bench\" }]\nrewards = { guide = \"harmless\" }\n";
    let args = "[[methods]]\nmethod = \"args\"\nshapings = [\"raw\"]\nstrengths = [1]\n";
    for (text, expected) in [
        ("name = 3", ":1: invalid type: integer `3`, expected a string"),
        ("name = \"x\"\nnmae = 1", ":2: unknown field `nmae`, expected one of"),
        ("name = \"x\"", ": missing field `rewards`"),
        (&format!("{base}methods = []"), ": methods: give at least one [[methods]]"),
        (
            &format!("{base}[[methods]]\nmethod = \"agrs\""),
            ":5: unknown method 'agrs': known are base, args",
        ),
        (
            &format!("{base}{}", args.replace("[1]", "[-1]")),
            ": methods[0]: strengths: -1: a strength must be zero or more",
        ),
        (&format!("{base}{}", args.replace("[1]", "[]")), ": methods[0]: strengths: give at least one"),
        (
            &format!("{base}{}", args.replace("strengths = [1]", "kl_budgets = [0]")),
            ": methods[0]: kl_budgets: 0: a KL budget must be above zero",
        ),
        (
            &format!("{base}{}kl_budgets = [1]\n", args),
            ": methods[0]: kl_budgets: they take the place of strengths: give one of the two",
        ),
        (
            &format!("{base}[[methods]]\nmethod = \"blockwise\"\nkl_budgets = [1]\n"),
            ": methods[0]: kl_budgets: blockwise takes none",
        ),
        (
            &format!(
                "{base}[[methods]]\nmethod = \"blockwise\"\nkeep = \"draw\"\nshapings = [\"srs\"]\nkl_budgets = [1, 2]\n"
            ),
            ": methods[0]: strengths: give blockwise exactly one (or one KL budget)",
        ),
        (&format!("{base}{args}bound = -1\n"), ": args raw λ 1: bound is -1"),
        (
            &format!("{base}{}", args.replace("\"raw\"", "\"raw\", \"raw\"")),
            ": methods[0]: shapings: raw is given twice",
        ),
        (&format!("{base}{}", args.replace("[1]", "[1, 1]")), ": methods[0]: λ 1 is given twice"),
        (&format!("{base}{}", args.replace("raw", "srs")), ": methods[0]: shapings: raw is missing"),
        (&format!("{base}{args}{args}"), ": methods[1].method: args already has an entry"),
        (&format!("{base}{}", args.replace("args", "cd")), ": values: cd needs a [values] table"),
        (
            &format!(
                "{base}{args}[[perturbed]]\nmethod = \"args\"\nshapings = [\"raw\"]\nwith = [\"noise\"]"
            ),
            ": 'noise' is none of none, noise=STD, random=STD, reversed",
        ),
        (&format!("seeds = []\n{base}{args}"), ": seeds: give at least one"),
        (
            &format!("{}{args}", base.replace("mt-bench", "nowhere.jsonl")),
            "prompts: nowhere.jsonl does not exist",
        ),
        (
            &format!("{}{args}", base.replace("\"mt-bench\"", "\"mt-bench\", limit = 0")),
            ": prompts: limit is 0",
        ),
        (
            &format!("{base}{args}[values]\nprompts = [{{ from = \"mt-bench\", limit = 3 }}]\n"),
            "small.toml: values.prompts: prompt '81' is also in [[prompts]]",
        ),
        (
            &format!("{base}{args}[values]\nvalidation = 2\nprompts = [{{ from = \"mt-bench\" }}]\n"),
            ": values: validation: it must be between 0 and 1",
        ),
        (
            &format!("{base}[[methods]]\nmethod = \"best-of-n\"\nstrengths = [1]"),
            ": methods[0]: strengths: best-of-n takes none",
        ),
        (
            &format!("{base}[[methods]]\nmethod = \"blockwise\"\nstrengths = [1]"),
            ": methods[0]: strengths: blockwise takes none",
        ),
        (
            &format!(
                "{base}[decoding]\nkeep = \"draw\"\n[[methods]]\nmethod = \"blockwise\"\nstrengths = [1]"
            ),
            ": methods[0]: shapings: give blockwise at least one",
        ),
        (
            &format!("{base}[[methods]]\nmethod = \"particles\"\nshapings = [\"srs\"]"),
            ": methods[0]: strengths: give particles exactly one",
        ),
        (
            &format!("{base}{args}[decoding]\nbatch_size = 4097"),
            ": decoding.batch_size: 4097 is not between 1 and 4096",
        ),
        (
            &format!("{base}{args}[decoding]\nmax_new_tokens = 1000001"),
            "max-new-tokens is 1000001: it must be at most 1000000",
        ),
        (
            &format!("{base}{args}[values]\nsamples = 100001\nprompts = [{{ from = \"mt-bench\" }}]\n"),
            ": values: samples: 100001 is not between 2 and 100000",
        ),
        (
            &format!("{base}{args}[values]\nepochs = 0\nprompts = [{{ from = \"mt-bench\" }}]\n"),
            ": values: epochs: 0 is not between 1 and 65536",
        ),
        (&format!("traces = 10000001\n{base}{args}"), ": traces: 10000001 is not between 0 and"),
        (&format!("{base}{args}[sweep]\ndiversity = 2"), ": sweep.diversity: 2 is not between 0 and 1"),
    ] {
        fs::write(&file, text).unwrap();
        let said = refused(&["experiment", "plan", &file]);
        assert!(said.contains(expected), "{text}\n-> {said}");
        assert!(said.contains("small.toml") || said.contains("nowhere"), "{said}");
    }
    let missing = refused(&["experiment", "run", &path(folder.path(), "no.toml")]);
    assert!(missing.contains("cannot read") && missing.contains("no.toml"), "{missing}");
    let empty = folder.path().join("empty");
    fs::write(&file, format!("{base}{args}")).unwrap();
    let said = refused(&["experiment", "report", &file, "--out", empty.to_str().unwrap()]);
    assert!(said.contains("/runs does not exist: run the experiment first"), "{said}");
    assert!(!empty.exists());
}
