//! The chat template: parsed, and filled in within its fuel.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stackelberg_engine::{ChatTemplate, Message};
use stackelberg_fuzz::case;

fuzz_target!(|source: &str| {
    case(|| {
        let template = ChatTemplate::new(source, "<s>", "</s>");
        let question = Message::new("user", " Why is the sky blue? ");
        let _ = template.prompt(std::slice::from_ref(&question));
        let system = Message::new("system", "Be brief.");
        let answer = Message::new("assistant", "<think>\nwell\n</think>\nGrüße");
        let _ = template.prompt(&[system, question.clone(), answer, question]);
    });
});
