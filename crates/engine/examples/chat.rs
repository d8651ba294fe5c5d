//! Renders chat templates: reads one JSON object per line, `{"template": ..., "bos_token": ..., "eos_token": ..., "cases":
//! [{"messages": [...], "add_generation_prompt": true, "args": {...}}, ...]}`, and writes for each a JSON array with
//! `{"text": ...}` or `{"error": ...}` per case. `.ci/templates` compares them with those of Jinja2.
//!
//! `cargo run --release --example chat < cases.jsonl > rendered.jsonl`

use std::collections::BTreeMap;
use std::io::{BufRead, Write};

use serde::Deserialize;
use serde_json::{Value, json};
use stackelberg_engine::{Argument, ChatTemplate, Message};

#[derive(Deserialize)]
struct Line {
    template: String,
    #[serde(default)]
    bos_token: String,
    #[serde(default)]
    eos_token: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    messages: Vec<Message>,
    add_generation_prompt: bool,
    /// The user's variables; `strftime_now` is the date.
    args: BTreeMap<String, Argument>,
}

impl Line {
    fn render(&self, case: &Case) -> stackelberg_engine::Result<String> {
        let mut template = ChatTemplate::new(&self.template, &self.bos_token, &self.eos_token);
        template.set_args(&case.args)?;
        match case.add_generation_prompt {
            true => template.prompt(&case.messages),
            false => template.conversation(&case.messages),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let line: Line = serde_json::from_str(&line?)?;
        let rendered: Vec<Value> = (line.cases.iter())
            .map(|case| match line.render(case) {
                Ok(text) => json!({ "text": text }),
                Err(error) => json!({ "error": error.to_string() }),
            })
            .collect();
        serde_json::to_writer(&mut out, &rendered)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}
