//! `stackelberg shape` as a user runs it.

use std::fs;
use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use serde_json::{Value, json};

fn shape(args: &[&str], input: impl Into<Vec<u8>>) -> Output {
    let mut command = Command::cargo_bin("stackelberg").unwrap();
    command.arg("shape").args(args).write_stdin(input.into()).output().unwrap()
}

#[track_caller]
fn lines(args: &[&str], input: &str) -> Vec<Value> {
    let output = shape(args, input);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{args:?}: {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Exit code 2 and one line on standard error: this one. Standard output ends before the bad line.
#[track_caller]
fn refused(args: &[&str], input: impl Into<Vec<u8>>) -> String {
    let output = shape(args, input);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    error.trim_end().to_owned()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn golden(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shaping/tests/data").join(name);
    let golden: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    golden["cases"].as_array().unwrap().clone()
}

#[track_caller]
fn close(found: &Value, expected: &Value, tolerance: f64) {
    let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
    assert!((found - expected).abs() <= tolerance, "{found} is not {expected} within {tolerance:e}");
}

#[test]
fn one_line_in_one_line_out() {
    let input = r#"{"id":"a","rewards":[1,2,2.5,0.5,-1,0,1.5,0.25,-0.5,0.75],"prompt":"is ignored"}"#;
    let found = &lines(&["--shaping", "hard", "--beta", "2", "--bound", "1"], input)[0];
    let keys: Vec<&str> = found.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = [
        "id",
        "threshold",
        "residual",
        "lowest_rewarded",
        // A field of the input that is not read.
        "prompt",
        "highest_unrewarded",
        "interval",
        "bound",
        "strength",
        "shaped",
        "utility",
        "kl",
        "ess",
        "above",
        "warnings",
    ];
    expected.sort_unstable();
    assert_eq!(keys, expected);

    // m_j for the best four of ten: e = exp(-1/2).
    let e = (-0.5f64).exp();
    let m = (7.0 + e * 0.0) / (4.0 + e * 6.0);
    close(&found["threshold"], &json!(m), 1e-15);
    close(&found["utility"]["shaped"], &json!(m), 1e-15);
    close(&found["utility"]["base"], &json!(0.7), 1e-15);
    // The follower that is shown r itself at strength 1/2.
    let rewards = numbers(&found_rewards(input));
    let z: f64 = rewards.iter().map(|r| (r / 2.0).exp()).sum();
    let raw: f64 = rewards.iter().map(|r| r * (r / 2.0).exp()).sum::<f64>() / z;
    close(&found["utility"]["raw"], &json!(raw), 1e-14);
    close(&found["kl"]["raw"], &json!(raw / 2.0 - (z / 10.0).ln()), 1e-14);
    assert_eq!(found["shaped"], json!([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]));
    assert_eq!(found["lowest_rewarded"], 1.0);
    assert_eq!(found["highest_unrewarded"], 0.75);
    assert_eq!(
        (&found["id"], &found["bound"], &found["strength"]),
        (&json!("a"), &json!(1.0), &json!(0.5))
    );
    assert_eq!((&found["above"], &found["warnings"]), (&json!(4), &json!([])));
    assert_eq!(found["interval"]["level"], 0.835);
    assert!(
        found["interval"]["low"].as_f64().unwrap() < m
            && found["interval"]["high"].as_f64().unwrap() > m
    );
}

fn found_rewards(input: &str) -> Value {
    serde_json::from_str::<Value>(input).unwrap()["rewards"].clone()
}

#[test]
fn warnings_are_given_where_they_hold() {
    let warnings = |args: &[&str], input: &str| lines(args, input)[0]["warnings"].to_string();
    let one = "only one response reaches the threshold";
    assert!(warnings(&["--bound", "12"], r#"{"rewards":[0,1,5]}"#).contains(one));
    assert!(!warnings(&["--bound", "0.1"], r#"{"rewards":[0,4,5]}"#).contains(one));
    // Nearly all mass is on the one that reaches it.
    assert!(!warnings(&["--bound", "12"], r#"{"rewards":[3,1,0],"logits":[10,0,0]}"#).contains(one));
    let equal = "all rewards are equal";
    assert!(warnings(&[], r#"{"rewards":[5,1,1],"weights":[0,1,1]}"#).contains(equal));
    assert!(!warnings(&[], r#"{"rewards":[1,1.0000001]}"#).contains(equal));
    // The level asked for is the level of the interval.
    let level = |asked: &str| {
        lines(&["--level", asked], r#"{"rewards":[1,2,3]}"#)[0]["interval"]["level"].clone()
    };
    assert_eq!((level("0.8"), level("0.5")), (json!(0.76), json!(0.47)));
}

#[test]
fn ids_come_back_as_they_were() {
    for id in ["12345678901234567890123", "1.50", "\"caf\\u00e9\"", "null"] {
        let output = shape(&[], format!("{{\"id\":{id},\"rewards\":[1]}}"));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with(&format!("{{\"id\":{id},")), "{text}");
    }
}

#[test]
fn fields_without_meaning_are_null() {
    let input = "{\"id\":7,\"rewards\":[1,2,4],\"logits\":[0,0,-1]}\n\n{\"rewards\":[3,3]}\r\n";
    let found = lines(&["--shaping", "meanstd", "--strength", "1"], input);
    for key in
        ["threshold", "residual", "lowest_rewarded", "highest_unrewarded", "interval", "bound", "above"]
    {
        assert!(found[0][key].is_null(), "{key}");
    }
    let (fused, shaped) = (numbers(&found[0]["fused"]), numbers(&found[0]["shaped"]));
    assert_eq!(fused, [shaped[0], shaped[1], shaped[2] - 1.0]);
    assert_eq!((&found[0]["id"], &found[0]["chosen"]), (&json!(7), &json!(2)));
    assert!(found[1]["id"].is_null() && found[1].get("fused").is_none());
    assert_eq!(found[1]["warnings"], json!(["all rewards are equal: nothing to shape"]));
}

#[test]
fn ties_go_to_the_first() {
    let input = r#"{"rewards":[1,1,1],"logits":[0.5,0.5,0.5]}"#;
    assert_eq!(lines(&[], input)[0]["chosen"], 0);
}

#[test]
fn a_kl_budget_is_kept() {
    let input = r#"{"rewards":[1,2,2.5,0.5,-1]}"#;
    for rule in
        ["raw", "hard", "srs", "mean-soft", "minmax", "meanstd", "srs-std", "cap", "par", "log-sigmoid"]
    {
        let found = &lines(&["--shaping", rule, "--kl-budget", "0.1"], input)[0];
        let kl = found["kl"]["shaped"].as_f64().unwrap();
        assert!(kl <= 0.1 && kl > 0.05, "{rule}: {kl}");
        // KL raw is at the same strength, whether given or solved for.
        let strength = found["strength"].as_f64().unwrap();
        assert_eq!(strength == 1.0, !found["bound"].is_null(), "{rule}");
    }
    let warned = &lines(&["--kl-budget", "9"], input)[0]["warnings"];
    assert!(warned.to_string().contains("the KL budget cannot be spent"), "{warned}");
}

#[test]
fn golden_offline() {
    for case in golden("offline_soft_shape.json") {
        let option = |key: &str| case[key].to_string();
        let args = [
            "--budget",
            "reference-offline",
            "--beta",
            &option("beta"),
            "--bound",
            &option("B"),
            "--exponent-cap",
            &option("cap"),
            "--alpha",
            &option("alpha"),
        ];
        let found = &lines(&args, &json!({ "rewards": case["rewards"] }).to_string())[0];
        let scale = numbers(&case["rewards"]).into_iter().fold(1.0, |most: f64, r| most.max(r.abs()));
        close(&found["threshold"], &case["m_star"], 1e-9 * scale);
        let slope = case["B_eff"].as_f64().unwrap() * case["alpha"].as_f64().unwrap() / 4.0;
        for (found, expected) in
            found["shaped"].as_array().unwrap().iter().zip(case["shaped"].as_array().unwrap())
        {
            close(found, expected, 1e-12 + 1e-9 * scale * slope);
        }
    }
}

#[test]
fn golden_args_steps() {
    // All cases of one method and one set of options make one run.
    for (method, rule) in [
        ("soft", "srs"),
        ("raw", "raw"),
        ("minmax", "minmax"),
        ("meanstd", "meanstd"),
        ("cap", "cap"),
        ("meansoft", "mean-soft"),
    ] {
        for case in golden("args_step.json") {
            let option = |key: &str| case[key].to_string();
            let strength = match (method, case["beta"].as_f64()) {
                ("soft", Some(beta)) => beta.recip().to_string(),
                _ => option("weight"),
            };
            let args = [
                "--shaping",
                rule,
                "--budget",
                "reference-step",
                "--strength",
                &strength,
                "--bound",
                &option("B"),
                "--alpha",
                &option("alpha"),
                "--cap",
                &option("cap"),
                "--stretch",
                &option("stretch"),
            ];
            let input = json!({ "rewards": case["rewards"], "logits": case["logits"] }).to_string();
            let found = &lines(&args, &input)[0];
            assert_eq!(found["chosen"], case["f64"][method]["argmax"], "{method}");
            let scale =
                numbers(&case["rewards"]).into_iter().fold(1.0, |most: f64, r| most.max(r.abs()));
            let golden = &case["f64"][method];
            let scaled = if rule == "minmax" { strength.parse::<f64>().unwrap() } else { 1.0 };
            for (key, factor) in [("fused", 1.0), ("shaped", scaled)] {
                let expected = golden[key].as_array().into_iter().flatten();
                for (found, expected) in found[key].as_array().unwrap().iter().zip(expected) {
                    close(&json!(found.as_f64().unwrap() * factor), expected, 1e-6 * scale);
                }
            }
            if rule == "srs" {
                close(&found["threshold"], &golden["m"], 2e-7 * scale);
            }
            if golden["B_eff"].is_f64() {
                close(&found["bound"], &golden["B_eff"], 1e-12 * scale);
            }
        }
    }
}

#[test]
fn a_file_appears_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    fs::write(&input, "\u{feff}{\"rewards\":[1,2]}\n{\"rewards\":[3,5]}").unwrap();
    let args = [input.to_str().unwrap(), "--out", out.to_str().unwrap()];
    assert!(lines(&args, "").is_empty());
    let written = fs::read_to_string(&out).unwrap();
    assert_eq!(written.lines().count(), 2);

    // A bad line leaves what was there, and nothing beside it.
    fs::write(&input, "{\"rewards\":[1,2]}\n{\"rewards\":[3,null]}\n").unwrap();
    let error = refused(&args, "");
    let place = format!("error: {}:2: rewards[1]: invalid type: null, expected f64", input.display());
    assert!(error.starts_with(&place), "{error}");
    assert_eq!(fs::read_to_string(&out).unwrap(), written);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);

    // In place of its own input, through a link.
    #[cfg(unix)]
    {
        fs::write(&input, "{\"rewards\":[1,2]}\n").unwrap();
        let link = folder.path().join("link.jsonl");
        std::os::unix::fs::symlink(&input, &link).unwrap();
        lines(&[input.to_str().unwrap(), "--out", link.to_str().unwrap()], "");
        assert!(link.is_symlink());
        assert!(fs::read_to_string(&input).unwrap().contains("threshold"));
    }
}

#[cfg(unix)]
#[test]
fn what_was_there_is_respected() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("private.jsonl");
    fs::write(&out, "old").unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o600)).unwrap();
    lines(&["--out", out.to_str().unwrap()], "{\"rewards\":[1]}");
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    for dash in ["-", "/dev/stdout"] {
        assert_eq!(lines(&["--out", dash], "{\"rewards\":[1]}").len(), 1);
    }
    assert!(!Path::new("-").exists());
    let nowhere = folder.path().join("nowhere");
    std::os::unix::fs::symlink("gone", &nowhere).unwrap();
    assert!(refused(&["--out", nowhere.to_str().unwrap()], "").ends_with("it is a link to nothing"));

    // Ctrl-C in the middle of the input: nothing is left behind.
    let binary = assert_cmd::cargo::cargo_bin("stackelberg");
    let late = folder.path().join("late.jsonl");
    let mut command = std::process::Command::new(binary);
    let stdin = std::process::Stdio::piped();
    let mut child = command.args(["shape", "--out"]).arg(&late).stdin(stdin).spawn().unwrap();
    let partial = || fs::read_dir(folder.path()).unwrap().count() > 2;
    let began = std::time::Instant::now();
    while !partial() {
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "the output is not opened");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // Waiting would close the input, and its end would race with the signal.
    let input = child.stdin.take();
    std::thread::sleep(std::time::Duration::from_millis(100)); // the handler is set right after
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(input);
    assert!(!partial() && !late.exists());
}

#[test]
fn bad_lines_are_named() {
    let good = "{\"rewards\":[1,2]}\n";
    for (line, expected) in [
        (r#"{"rewards":[]}"#, "no rewards: at least one is needed"),
        (
            r#"{"rewards":[1,NaN]}"#,
            "rewards[1]: expected value at column 15 (NaN and Infinity are not JSON)",
        ),
        (
            r#"{"rewards":[1,1e999]}"#,
            "rewards[1]: number out of range at column 19 (NaN and Infinity are not JSON)",
        ),
        (r#"{"rewards":[1,"2"]}"#, "rewards[1]: invalid type: string \"2\", expected f64 at column 17"),
        (r#"{"reward":[1]}"#, "missing field `rewards` at column 14"),
        (r#"{"rewards":[1,2],"weights":[1]}"#, "weights has 1 entries but there are 2 rewards"),
        (r#"{"rewards":[1,2],"weights":[1,-1]}"#, "weights[1] is -1: a weight cannot be negative"),
        (
            r#"{"rewards":[1],"weights":[1],"logits":[1]}"#,
            "weights and logits exclude each other: give one",
        ),
        (r#"[null,[1,2],null,null]"#, "not a JSON object: write one {...} per line"),
        (r#"{"id":true,"rewards":[1]}"#, "id: must be a string or a number"),
        (r#"{"id":[1],"rewards":[1]}"#, "id: must be a string or a number"),
        (
            r#"{"rewards":[1]} {"rewards":[1]}"#,
            "more than one JSON value on the line: write one object per line",
        ),
        (r#"{"rewards":[1"#, "rewards: EOF while parsing a list: the line breaks off"),
    ] {
        let found = refused(&[], format!("{good}{line}\n"));
        assert_eq!(found, format!("error: <stdin>:2: {expected}"));
    }
    let latin = [good.as_bytes(), b"{\"id\":\"caf\xe9\",\"rewards\":[1]}"].concat();
    let found = refused(&[], latin);
    assert_eq!(found, "error: <stdin>:2: not UTF-8 from byte 11 of the line on: save the file as UTF-8");
}

#[test]
fn bad_settings_are_named() {
    let input = r#"{"rewards":[1,2]}"#;
    for (args, expected) in [
        (["--strength", "-1"], "strength is -1: it must be zero or more, and finite"),
        (["--beta", "0"], "beta is 0: it must be above zero, and finite"),
        (["--bound", "-2"], "bound is -2: it must be zero or more, and finite"),
        (["--alpha", "-0.5"], "alpha is -0.5: it must be above zero, and finite"),
        (["--ref-quantile", "2"], "ref-quantile is 2: it must be between 0 and 1"),
        (["--level", "1"], "level is 1: it must be between 0.5 and 0.99"),
        (["--kl-budget", "-1"], "kl-budget is -1: it must be zero or more nats, and finite"),
    ] {
        assert_eq!(refused(&args, input), format!("error: {expected}"));
    }
    for args in [
        &["--strength", "1", "--beta", "1"][..],
        &["--bound", "1", "--kl-budget", "1"],
        &["--shaping", "softmax"],
        &["--budget", "reference"],
        &["--cap", "much"],
    ] {
        let output = shape(args, input);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty());
    }
    let unused = ["--shaping", "raw", "--alpha", "3", "--cap", "2", "--stretch", "2", "--bound", "1"];
    assert_eq!(numbers(&lines(&unused, input)[0]["shaped"]), [1.0, 2.0]);
}

#[test]
fn files_that_are_not_there() {
    let missing = refused(&["no/such/file.jsonl"], "");
    assert!(missing.starts_with("error: cannot read no/such/file.jsonl: No such file"), "{missing}");
    let unwritable = refused(&["--out", "no/such/folder/out.jsonl"], "{\"rewards\":[1]}");
    assert!(
        unwritable.starts_with("error: cannot write no/such/folder/out.jsonl: No such file"),
        "{unwritable}"
    );
    assert_eq!(refused(&["--summary"], "\n"), "error: <stdin> has no lines: nothing to summarise");
    assert!(lines(&[], "").is_empty());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_and_a_closed_pipe_is_not() {
    let full = refused(&["--out", "/dev/full"], "{\"rewards\":[1]}");
    assert!(full.contains("No space left on device"), "{full}");

    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("many.jsonl");
    fs::write(&input, "{\"rewards\":[1,2,3]}\n".repeat(20_000)).unwrap();
    let binary = assert_cmd::cargo::cargo_bin("stackelberg");
    let mut child = std::process::Command::new(binary)
        .arg("shape")
        .arg(&input)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(output.stderr.is_empty(), "{:?}", String::from_utf8(output.stderr));
}

/// Gzipped lines are shaped as plain ones are, from a file of any name and from standard input; errors count its lines.
#[test]
fn gzipped_lines_are_shaped() {
    let folder = tempfile::tempdir().unwrap();
    let zip = |text: &str| {
        let plain = folder.path().join("plain");
        fs::write(&plain, text).unwrap();
        let zipped = std::process::Command::new("gzip").arg("-c").arg(&plain).output().unwrap();
        assert!(zipped.status.success() && zipped.stdout.starts_with(&[0x1f, 0x8b]));
        zipped.stdout
    };
    let text = "{\"id\": 1, \"rewards\": [0.5, 2.0, -1.0]}\n\n{\"id\": 2, \"rewards\": [3, 1]}\n";
    let (plain, bytes) = (shape(&["-"], text), zip(text));
    assert!(plain.status.success() && plain.stdout.iter().filter(|byte| **byte == b'\n').count() == 2);
    for name in ["rows.jsonl.gz", "rows"] {
        let file = folder.path().join(name);
        fs::write(&file, &bytes).unwrap();
        let zipped = shape(&[file.to_str().unwrap()], "");
        assert!(zipped.status.success(), "{}", String::from_utf8_lossy(&zipped.stderr));
        assert_eq!(zipped.stdout, plain.stdout, "{name}");
    }
    assert_eq!(shape(&["-"], bytes.clone()).stdout, plain.stdout);
    // Two gzip files, one behind the other, are one.
    let joined = shape(&["-"], [bytes.clone(), bytes.clone()].concat());
    assert_eq!(joined.stdout, plain.stdout.repeat(2));
    let bad = refused(&["-"], zip("{\"rewards\": [1]}\n{\"rewards\": []}\n"));
    assert!(bad.starts_with("error: <stdin>:2: "), "{bad}");
    let cut = refused(&["-"], &bytes[..bytes.len() - 12]);
    assert!(cut.starts_with("error: "), "{cut}");
}

#[test]
fn a_summary_for_people() {
    let input =
        (0..50).map(|i| json!({ "rewards": [0.0, 1.0, f64::from(i) / 10.0] }).to_string() + "\n");
    let input: String = input.collect::<String>() + "{\"rewards\":[2,2,2]}\n";
    let output = shape(&["--summary", "--strength", "1", "--bound", "2"], input);
    assert!(output.status.success());
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap());
}

#[test]
fn help_and_version() {
    let run =
        |arg: &str| Command::cargo_bin("stackelberg").unwrap().args(["shape", arg]).output().unwrap();
    insta::assert_snapshot!(String::from_utf8(run("--help").stdout).unwrap());
    let version = Command::cargo_bin("stackelberg").unwrap().arg("--version").output().unwrap();
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        format!("stackelberg {}\n", env!("CARGO_PKG_VERSION"))
    );
}
