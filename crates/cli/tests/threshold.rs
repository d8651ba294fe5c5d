//! `stackelberg threshold` on a dataset written here.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use stackelberg_learning::rollouts::{Dataset, Hidden, Identity, Manifest, Prompts, Row};
use stackelberg_shaping::Rule;

/// Writes a dataset, two prompts in a shard.
fn write(folder: &Path, rewards: &[&[f64]], scored: bool) -> Dataset {
    let identity = |name: &str| Identity { name: name.to_owned(), hash: name.to_owned() };
    let ids: Vec<String> = (0..rewards.len()).map(|i| format!("p{i}")).collect();
    let manifest = Manifest {
        format: Manifest::FORMAT.to_owned(),
        version: "0".to_owned(),
        model: identity("model"),
        reward: scored.then(|| identity("reward")),
        hidden: None,
        samples: None,
        settings: serde_json::Map::new(),
        prompts_per_shard: 2,
        prompts: Prompts::new(ids.iter().map(|id| (id.as_str(), "text"))),
    };
    let dataset = Dataset::create(folder, manifest).unwrap();
    for shard in 0..dataset.manifest().shards() {
        let prompts = dataset.manifest().prompts_of(shard);
        let row = |prompt: usize, sample: usize| Row {
            prompt_id: ids[prompt].clone(),
            sample: sample as u32,
            prompt: "text".to_owned(),
            response: "answer".to_owned(),
            tokens: vec![1, 2],
            reward: scored.then_some(rewards[prompt][sample]),
            finish_reason: "stop".to_owned(),
            seed: 0,
        };
        let rows = prompts.flat_map(|p| (0..rewards[p].len()).map(move |s| row(p, s)));
        dataset.write(shard, &rows.collect::<Vec<_>>(), &Hidden::new(1)).unwrap();
    }
    dataset
}

fn run(args: &[&str]) -> Output {
    Command::new(assert_cmd::cargo::cargo_bin("stackelberg")).args(args).output().unwrap()
}

#[track_caller]
fn shape(folder: &Path, args: &[&str]) -> (String, String) {
    let output = run(&[&["threshold", folder.to_str().unwrap()], args].concat());
    let said = |bytes| String::from_utf8(bytes).unwrap().replace(folder.to_str().unwrap(), "DIR");
    let (out, err) = (said(output.stdout), said(output.stderr));
    assert!(output.status.success(), "{err}");
    (out, err)
}

#[track_caller]
fn refused(folder: &Path, args: &[&str]) -> String {
    let output = run(&[&["threshold", folder.to_str().unwrap()], args].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap().trim_end().to_owned()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|p| (p.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(p).unwrap()))
        .collect()
}

const REWARDS: [&[f64]; 7] = [
    &[0.1, 2.3, -0.4, 0.9],
    &[1.0, 1.0, 2.0, -3.0],
    &[0.5, 0.5, 0.5, 0.5],
    &[1.5],
    &[-0.25, 0.75, 0.0, 4.0],
    &[3.0, 2.0, 1.0, 0.0],
    &[0.2, -0.7, 0.6, 1.1],
];

#[test]
fn a_dataset_is_shaped() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = write(folder.path(), &REWARDS, true);
    let (out, err) = shape(folder.path(), &["--beta", "1", "--bound", "2"]);
    // Margins are rounding.
    let line =
        |line: &str| line.split_once("margin ").map_or(line, |(before, _)| before).to_owned() + "\n";
    insta::assert_snapshot!(out.lines().map(line).collect::<String>());
    assert_eq!(err, "");
    let first = files(folder.path());
    for (name, title) in
        [("bound", "nothing beats hard (Theorem 1)"), ("kl", "nothing beats raw (Gibbs)")]
    {
        let svg = String::from_utf8(first[&format!("utility-by-{name}.svg")].clone()).unwrap();
        assert!(svg.contains(title) && svg.trim_end().ends_with("</svg>"));
        Rule::ALL.iter().for_each(|rule| assert!(svg.contains(&format!("\n{rule}\n")), "{rule}"));
    }
    shape(folder.path(), &["--beta", "1", "--bound", "2"]);
    assert_eq!(files(folder.path()), first, "equal input, equal bytes");

    let args = ["--shaping", "srs-std", "--budget", "reference", "--kl-budget", "0.5"];
    let (out, _) = shape(folder.path(), &args);
    assert!(out.contains("KL budget 0.5 nats") && out.contains("budget reference-offline"), "{out}");
    assert!(
        out.contains("columns written: shaped_srs_std, threshold_srs_std, threshold_srs_std_low"),
        "{out}"
    );
    let shard = dataset.read(0).unwrap();
    assert_eq!(shard.shaped.iter().map(|c| c.rule).collect::<Vec<_>>(), [Rule::Srs, Rule::SrsStd]);
    assert_eq!(shard.shaped(Rule::Srs).unwrap().settings["bound"], 2.0);
    assert_eq!(shard.shaped(Rule::SrsStd).unwrap().settings["kl_budget"], 0.5);
    assert!(run(&["rollout", "merge", folder.path().to_str().unwrap()]).status.success());
}

#[test]
fn nothing_to_shape_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = write(folder.path(), &[&[1.0, 1.0], &[2.0], &[0.5; 3]], true);
    let (out, err) = shape(folder.path(), &["--shaping", "hard"]);
    assert!(out.contains("all rewards equal, nothing to shape: 66.7% of prompts"), "{out}");
    assert!(out.contains("a single response, nothing to shape: 33.3% of prompts"), "{out}");
    assert_eq!(
        err,
        "warning: no prompt has two samples with different rewards: there is nothing to shape\n"
    );
    let thresholds = dataset.read(0).unwrap().shaped(Rule::Hard).unwrap().thresholds.clone().unwrap();
    assert_eq!(thresholds.values, [1.0, 1.0, 2.0]);
    assert_eq!(thresholds.low, [None; 3]);
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    assert!(
        refused(&at("none"), &[]).ends_with("none: not a dataset of rollouts: it has no manifest.json")
    );
    write(&at("bare"), &REWARDS, false);
    let bare = refused(&at("bare"), &[]);
    assert!(
        bare.ends_with("it has no rewards to shape: roll out with a reward into another folder"),
        "{bare}"
    );

    write(&at("whole"), &REWARDS, true);
    let before = files(&at("whole"));
    for (args, problem) in [
        (&["--bound", "-1"][..], "bound is -1: it must be zero or more, and finite"),
        (&["--level", "1"], "level is 1: it must be between 0.5 and 0.99"),
        (&["--shaping", "raw", "--kl-budget", "1"], "raw has no bound to solve for"),
        (&["--budget", "none"], "unknown budget 'none'"),
    ] {
        assert!(refused(&at("whole"), args).contains(problem), "{args:?}");
    }
    // The last shard is broken or missing: the others stay as they are.
    let last = at("whole").join("rollouts-00003.parquet");
    fs::write(&last, &before["rollouts-00003.parquet"][..99]).unwrap();
    let broken = refused(&at("whole"), &[]);
    assert!(broken.contains("rollouts-00003.parquet: not a whole Parquet file"), "{broken}");
    fs::remove_file(&last).unwrap();
    assert!(refused(&at("whole"), &[]).contains("1 of 4 shards are not there yet"));
    let mut left = before;
    left.remove("rollouts-00003.parquet");
    assert_eq!(files(&at("whole")), left);
}
