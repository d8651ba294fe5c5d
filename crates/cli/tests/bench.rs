//! `stackelberg bench` on the real default model, as a user runs it.

use std::fs;

use assert_cmd::Command;
use serde_json::Value;

/// A figure and its quartiles, both possibly maps.
fn check(key: &str, figure: &Value, spread: &Value) {
    if let Some(map) = figure.as_object() {
        assert_eq!(map.len(), spread.as_object().unwrap().len(), "{key}");
        map.iter().for_each(|(at, figure)| check(&format!("{key} {at}"), figure, &spread[at]));
        return;
    }
    let [low, high] = [0, 1].map(|i| spread[i].as_f64().unwrap());
    assert!(figure.as_f64().unwrap() > 0.0 && low > 0.0 && low <= high, "{key}: {figure} {spread}");
}

fn keys(map: &Value) -> Vec<usize> {
    let mut keys: Vec<usize> = map.as_object().unwrap().keys().map(|k| k.parse().unwrap()).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn figures_are_complete_and_agree() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("figures.json");
    let mut command = Command::cargo_bin("stackelberg").unwrap();
    let output = command
        .args(["bench", "--quick", "--threads", "1", "--length", "60", "--concurrent", "1,3", "--json"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "progress is for terminals");
    let table = String::from_utf8(output.stdout).unwrap();
    for row in ["one token", "branch of 10", "batch of 4", "args, causal reward model"] {
        assert!(
            table.lines().any(|line| line.starts_with(row) && line.ends_with('%')),
            "{row}:\n{table}"
        );
    }

    let figures: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(figures["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&figures["model"], &figures["dtype"]), (&"smollm2-135m".into(), &"bf16".into()));
    assert_eq!((&figures["threads"], &figures["quick"]), (&1.into(), &true.into()));
    for key in ["cpu", "os", "arch", "kernel"] {
        assert!(!figures["machine"][key].as_str().unwrap().is_empty(), "{key}");
    }
    for key in [
        "bandwidth_gb_s",
        "load_ms",
        "prefill_ms",
        "token_ms",
        "branch_ms",
        "branch_ratio",
        "batch_tokens_per_s",
        "base_tokens_per_s",
        "args_head_tokens_per_s",
        "args_model_tokens_per_s",
        "cd_tokens_per_s",
        #[cfg(target_os = "linux")]
        "peak_rss_mb",
    ] {
        check(key, &figures[key], &figures["spread"][key]);
    }
    assert_eq!(keys(&figures["branch_ms"]), [1, 5, 10, 20, 40]);
    assert_eq!(keys(&figures["batch_tokens_per_s"]), [1, 4, 10]);

    for steps in ["token_ms", "branch_10_ms"] {
        assert!(figures["by_length"][steps]["60"].as_f64().unwrap() > 0.0, "{steps}");
    }

    assert_eq!(keys(&figures["concurrent"]), [1, 3]);
    for point in figures["concurrent"].as_object().unwrap().values() {
        let rates = point["rates"].as_object().unwrap();
        assert_eq!(rates.len(), 7);
        for (name, rate) in rates {
            for field in ["tokens_per_s", "relative_to_base", "first_token_ms"] {
                assert!(rate[field].as_f64().unwrap() > 0.0, "{name}.{field}");
            }
        }
        assert_eq!(rates["base"]["relative_to_base"], 1.0);
        // The step runs the same rows and more.
        assert!(point["step_ratio"].as_f64().unwrap() > 0.5);
    }
    assert!(table.contains("bare forward of 30 rows"), "{table}");

    let number = |value: &Value| value.as_f64().unwrap();
    let ratio = number(&figures["branch_ms"]["10"]) / number(&figures["token_ms"]);
    assert!((number(&figures["branch_ratio"]) - ratio).abs() < 1e-9);
    let limit = number(&figures["weight_mb"]) / number(&figures["bandwidth_gb_s"]);
    let fraction = number(&figures["limit_fraction"]["token_ms"]);
    assert!((fraction - limit / number(&figures["token_ms"])).abs() < 1e-9);
    assert!(figures["limit_fraction"]["load_ms"].is_null());
}

#[test]
fn bad_input_is_named() {
    for (args, said) in [
        (
            ["--threads", "0"],
            "error: invalid value '0' for '--threads <N>': it must be a whole number between 1 and ",
        ),
        (["--json", "no/such/folder/f.json"], "error: cannot write no/such/folder/f.json"),
        (["--model", "no-such-model"], "no-such-model"),
        (["--concurrent", "4,0"], "it must be a whole number between 1 and 1024"),
    ] {
        let mut command = Command::cargo_bin("stackelberg").unwrap();
        let output = command.arg("bench").args(args).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(said), "{error}");
    }
}
