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
