//! Rewards from programs.
#![cfg(unix)]

use std::time::{Duration, Instant};

use stackelberg_engine::reward::{RewardFormat, TextReward, TextScorer};
use stackelberg_engine::{Message, Prompt};
use stackelberg_remote::ProgramReward;

use crate::exchanges;

#[test]
fn a_program_scores() {
    // The length of each line.
    let program =
        ProgramReward::start("while read -r line; do echo \"{\\\"reward\\\": ${#line}}\"; done")
            .unwrap();
    let reward = TextReward::new(program);
    let prompt = Prompt::Messages(vec![Message::new("user", "a \"b\"")]);
    let found = reward.score(&exchanges(&prompt, &["x", "xyz"])).unwrap();
    assert_eq!(found[1] - found[0], 4.0, "response and text are each two longer: {found:?}");
    // More than a pipe holds, answered while it is written.
    let long = "y".repeat(2000);
    let many: Vec<&str> = vec![&long; 300];
    assert_eq!(reward.score(&exchanges(&prompt, &many)).unwrap().len(), 300);
    assert_eq!(reward.score(&exchanges(&prompt, &["x"])).unwrap().len(), 1);
}

#[test]
fn a_program_that_fails_is_named() {
    let prompt = Prompt::Text("a".to_owned());
    let refused = |command: &str| {
        let program = ProgramReward::start(command).unwrap().with_patience(Duration::from_millis(300));
        program.score(&exchanges(&prompt, &["x", "y"]), RewardFormat::Hh).unwrap_err().to_string()
    };
    assert!(
        refused("exit 3").contains("the program 'exit 3' ended (exit status: 3) before it had scored")
    );
    assert!(
        refused("echo nonsense; cat")
            .contains("wrote 'nonsense' where a number or {\"reward\": number}")
    );
    assert!(refused("echo 1; echo NaN; cat").contains("wrote 'NaN'"));
    let began = Instant::now();
    assert!(refused("sleep 30").contains("gave no reward within 0.3 s: does it flush its output?"));
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// A text without a reward is an error of this call. After a line that is no answer, nobody knows which text the next line is for: the
/// program is started again.
#[test]
fn one_wrong_reward_is_not_the_end() {
    let prompt = Prompt::Text("a".to_owned());
    let program = |wrong: &str| {
        let command = format!(
            "while read line; do case $line in *poison*) echo '{wrong}';; *) echo 1.5;; esac; done"
        );
        ProgramReward::start(&command).unwrap()
    };
    for wrong in ["NaN", "nan", "inf", "null", "1e999", "{\"reward\": null}"] {
        let program = program(wrong);
        let score = |texts: &[&str]| program.score(&exchanges(&prompt, texts), RewardFormat::Hh);
        let error = score(&["x", "poison", "y"]).unwrap_err().to_string();
        assert!(error.contains(&format!("wrote '{wrong}' where a number")), "{error}");
        assert_eq!(score(&["x", "y"]).unwrap(), [1.5, 1.5], "{wrong}");
    }
    for wrong in ["nonsense", "{\"score\": 1}", "", "[1]"] {
        let program = program(wrong);
        let score = |texts: &[&str]| program.score(&exchanges(&prompt, texts), RewardFormat::Hh);
        let error = score(&["x", "poison", "y"]).unwrap_err().to_string();
        assert!(error.contains(&format!("wrote '{wrong}' where a number")), "{error}");
        assert_eq!(score(&["x", "y"]).unwrap(), [1.5, 1.5], "{wrong}");
    }
}

/// A program that a text brings down is started again for the next texts.
#[test]
fn a_program_that_ends_is_started_again() {
    let prompt = Prompt::Text("a".to_owned());
    let program = ProgramReward::start(
        "while read line; do case $line in *poison*) exit 7;; *) echo 1.5;; esac; done",
    )
    .unwrap();
    let score = |texts: &[&str]| program.score(&exchanges(&prompt, texts), RewardFormat::Hh);
    for _ in 0..3 {
        let error = score(&["x", "poison", "y"]).unwrap_err().to_string();
        assert!(error.contains("ended (exit status: 7) before it had scored all texts"), "{error}");
        assert_eq!(score(&["x", "y"]).unwrap(), [1.5, 1.5]);
    }
}
