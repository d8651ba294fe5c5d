//! Help, completions and errors of options.

use crate::common::{refused, succeed};

/// The options that a help text lists.
fn options(help: &str) -> Vec<&str> {
    let lines = help.lines().map(str::trim_start);
    let names = lines.filter(|line| line.starts_with("--") || line.starts_with("-h"));
    names.map(|line| line.trim_start_matches("-h, ").split([' ', '[']).next().unwrap_or("")).collect()
}

#[test]
fn short_help_is_short() {
    let short = succeed(&["generate", "-h"]);
    assert_eq!(
        options(&short),
        [
            "--prompts",
            "--reward",
            "--method",
            "--compare",
            "--out",
            "--help",
            "--max-new-tokens",
            "--temperature",
            "--seed",
            "--model"
        ],
        "{short}"
    );
    assert!(short.contains("[PROMPT]"), "{short}");
    assert_eq!(short.matches("\n  stackelberg generate ").count(), 3, "{short}");
    assert!(short.contains("`stackelberg generate --help` has all options"), "{short}");
    let long = succeed(&["generate", "--help"]);
    assert_eq!(long.matches("\n  stackelberg generate ").count(), 3, "{long}");
    for option in ["--shaping", "--top-k", "--kl-budget", "--batch-size", "--cache-mb", "--threads"] {
        assert!(options(&long).contains(&option) && !options(&short).contains(&option), "{option}");
    }
    assert_eq!(options(&succeed(&["experiment", "run", "-h"])), ["--out", "--help"]);
    assert_eq!(options(&succeed(&["experiment", "run", "--help"])), ["--out", "--threads", "--help"]);
    for command in [
        &["rollout"][..],
        &["evaluate"],
        &["train", "value"],
        &["train", "reward"],
        &["experiment", "run"],
        &["experiment", "report"],
    ] {
        let count = |flag| options(&succeed(&[command, &[flag][..]].concat())).len();
        let (short, long) = (count("-h"), count("--help"));
        assert!(short <= 10 && short < long, "{command:?}: {short} of {long}");
        let said = succeed(&[command, &["-h"][..]].concat());
        assert!(said.contains(&format!("`stackelberg {} --help`", command.join(" "))), "{said}");
    }
}

#[test]
fn wrong_options_are_errors_of_one_line() {
    for (arguments, said) in [
        (
            &["generate", "hi", "--watch", "--no-watch"][..],
            "error: the argument '--watch' cannot be used with '--no-watch'",
        ),
        (
            &["generate", "hi", "--methd", "args"],
            "error: unexpected argument '--methd' found; a similar argument exists: '--method'",
        ),
        (&["generate", "hi", "--top-k", "many"], "error: invalid value 'many' for '--top-k <N>'"),
        (&["score"], "error: the following required arguments were not provided: --reward <NAME>"),
    ] {
        let found = refused(arguments);
        assert!(found.starts_with(said) && found.lines().count() == 1, "{found}");
    }
    // Without a command, there is help.
    assert!(refused(&[]).contains("Usage: stackelberg"));
}

#[test]
fn names_are_completed_and_errors_are_kept() {
    let script = succeed(&["completions", "bash"]);
    for names in [
        "base args cd best-of-n soft-best-of-n follower blockwise particles",
        "best draw",
        "raw hard srs mean-soft minmax meanstd srs-std cap log-sigmoid par",
        "f32 bf16 int8 q4 native",
        "cpu cuda metal candle",
        "chat raw",
        "paper reference reference-step reference-offline",
    ] {
        assert!(script.contains(&format!("\"{names}\"")), "{names}");
    }
    let said = refused(&["generate", "Hi", "--method", "agrs"]);
    assert!(said.contains("'--method <METHOD>': unknown method 'agrs': known are base, args"), "{said}");
    let said = refused(&["generate", "Hi", "--device", "gpu"]);
    assert!(said.contains("unknown device 'gpu': known are cpu, cuda, cuda:1"), "{said}");
}
