//! Untrusted files: whatever is in them, loading ends with a model or an error, never with a panic.
//!
//! Each case damages one file of a tiny checkpoint (see `families/`) in a few places and loads it. `HOSTILE_CASES` sets
//! the number of cases. A failing case is reported by its number; `HOSTILE_FIRST` repeats it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use stackelberg_engine::model::Model;
use stackelberg_engine::reward::Classifier;
use stackelberg_engine::{Checkpoint, Dtype, Message, Prompt, reward::TextFormat};

use crate::common::families::{ENCODERS, FAMILIES, folder as folder_of};
use crate::common::tiny::choose_kernel;

/// Pseudo-random numbers, seeded with the number of the case.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n.max(1)
    }
}

/// Damages bytes in the first `reach` bytes of a file: flips, extreme numbers, truncation, duplication.
fn break_bytes(bytes: &mut Vec<u8>, reach: usize, dice: &mut Dice) {
    const HURT: [u64; 8] = [0, 1, u64::MAX, 1 << 63, 1 << 31, 0xffff_ffff, 1 << 40, 7];
    for _ in 0..1 + dice.below(3) {
        let at = dice.below(bytes.len().min(reach));
        match dice.below(6) {
            0 | 1 => bytes[at] ^= 1 << dice.below(8),
            2 => {
                let number = HURT[dice.below(HURT.len())].to_le_bytes();
                let n = [1, 2, 4, 8][dice.below(4)].min(bytes.len() - at);
                bytes[at..at + n].copy_from_slice(&number[..n]);
            }
            3 => bytes.truncate(at + 1),
            4 => {
                let piece = bytes[at..(at + 1 + dice.below(40)).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes[at] = dice.below(256) as u8,
        }
    }
}

/// Damages values in a JSON text: numbers, names, types.
fn break_json(text: &str, dice: &mut Dice) -> String {
    const WORDS: [&str; 16] = [
        "0",
        "-1",
        "1e308",
        "18446744073709551615",
        "null",
        "\"\"",
        "[]",
        "{}",
        "true",
        "3.5",
        "\"yarn\"",
        "\"longrope\"",
        "\"llama3\"",
        "16777217",
        "1",
        "\"gelu\"",
    ];
    let mut text = text.to_owned();
    for _ in 0..1 + dice.below(3) {
        // The values after colons.
        let colons: Vec<usize> = text.match_indices(": ").map(|(at, _)| at + 2).collect();
        let Some(&at) = colons.get(dice.below(colons.len())) else { break };
        let end = text[at..].find([',', '\n', '}']).map_or(text.len(), |end| at + end);
        text.replace_range(at..end, WORDS[dice.below(WORDS.len())]);
    }
    text
}

fn case(number: u64, folder: &Path) {
    let mut dice = Dice(number);
    dice.below(1);
    let families = [&FAMILIES[..], &ENCODERS].concat();
    let family = families[dice.below(families.len())];
    let from = folder_of(family);
    for file in ["config.json", "model.safetensors"] {
        fs::copy(from.join(file), folder.join(file)).unwrap();
    }
    fs::copy(folder_of("bert").join("tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    let rewrite = |name: &str, reach: usize, dice: &mut Dice| {
        let mut bytes = fs::read(folder.join(name)).unwrap();
        break_bytes(&mut bytes, reach, dice);
        fs::write(folder.join(name), bytes).unwrap();
    };
    match dice.below(5) {
        0 | 1 => {
            let text = fs::read_to_string(from.join("config.json")).unwrap();
            fs::write(folder.join("config.json"), break_json(&text, &mut dice)).unwrap();
        }
        2 => rewrite("model.safetensors", 3000, &mut dice),
        3 => rewrite("tokenizer.json", 3000, &mut dice),
        _ => {
            let gguf = folder.join("model.gguf");
            if fs::copy(from.join("model.gguf"), &gguf).is_ok() {
                rewrite("model.gguf", 6000, &mut dice);
                if let Ok(model) = Model::load(&gguf, Dtype::F32) {
                    let _ = model.prefill(&[5, 6, 7]);
                }
                return;
            }
        }
    }
    if Classifier::is_in(folder) {
        if let Ok(classifier) = Classifier::load(folder, Some("good")) {
            let _ = classifier.logits(&["w5 w6"]);
        }
        return;
    }
    if let Ok(checkpoint) = Checkpoint::load(folder, Dtype::F32) {
        let _ = checkpoint.tokens("w5 w6", TextFormat::Raw);
        let _ = checkpoint.model.prefill(&[5, 6, 7]).map(|(_, hidden)| checkpoint.model.logits(&hidden));
    }
}

#[test]
fn no_file_makes_it_panic() {
    let cases: u64 = std::env::var("HOSTILE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(3000);
    let first: u64 = std::env::var("HOSTILE_FIRST").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let folder = tempfile::tempdir().unwrap();
    let mut broken = Vec::new();
    for number in first..first + cases {
        if catch_unwind(AssertUnwindSafe(|| case(number, folder.path()))).is_err() {
            broken.push(number);
        }
    }
    assert!(broken.is_empty(), "these cases panic: {broken:?}");
}

/// A chat template is untrusted code: it may fail, but it must not cause a panic.
#[test]
fn no_template_makes_it_panic() {
    choose_kernel();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families");
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(from.join("llama").join(file), folder.path().join(file)).unwrap();
    }
    fs::copy(from.join("bert/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let prompt = Prompt::Messages(vec![Message::new("user", "w5")]);
    let render = |template: &str| {
        fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
        let checkpoint = Checkpoint::load(folder.path(), Dtype::F32).unwrap();
        let laid_out = checkpoint.lay_out(&prompt, None, TextFormat::Chat);
        laid_out.map(|laid_out| laid_out.text().to_owned()).map_err(|error| error.to_string())
    };
    assert_eq!(render("{{ messages[0].content }}"), Ok("w5".to_owned()));
    for template in [
        "{{ messages[7].content.strip() }}",
        "{% for x in range(10) %}{{ x",
        "{{ 1 // 0 }}",
        "{{ 'x' * -1 }}{{ messages[0]['content'][5:-9:0] }}",
        "{{ raise_exception('no system here') }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ messages | map(attribute='x') | join(1) | nosuchfilter }}",
    ] {
        let error = render(template).unwrap_err();
        assert!(error.starts_with("chat template: "), "{template}: {error}");
    }
    // A template that does not terminate is stopped.
    let endless = render(
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    );
    assert!(endless.unwrap_err().contains("chat template: "));
}

/// Sizes that overflow are refused, not wrapped around.
#[test]
fn no_size_is_too_large_to_be_refused() {
    choose_kernel();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/gpt2");
    let folder = tempfile::tempdir().unwrap();
    fs::copy(from.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let text = fs::read_to_string(from.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["n_embd"] = (1u64 << 63).into();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let error = Model::load(folder.path(), Dtype::F32).err().map(|error| error.to_string());
    assert!(error.is_some_and(|error| error.contains("the hidden size is 9223372036854775808")));
}
