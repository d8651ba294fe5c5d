//! `stackelberg models check`: what a folder is, or one line on why it cannot be used.

use std::fs;
use std::path::Path;

use crate::common::{refused, succeed};
use crate::tiny::Tiny;

#[test]
fn folders_are_told_apart() {
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/families");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let copy = |family: &str, file: &str| {
        fs::copy(families.join(family).join(file), folder.path().join(file)).unwrap();
    };
    copy("bert", "tokenizer.json");
    copy("llama", "config.json");
    copy("llama", "model.safetensors");
    let said = succeed(&["models", "check", path]);
    for name in
        ["LlamaForCausalLM", "parameters", "as bf16", "context", "chat template    none", "self-test"]
    {
        assert!(said.contains(name), "{name}: {said}");
    }
    let config = fs::read_to_string(folder.path().join("config.json")).unwrap();
    let quantised = config.replacen('{', "{\"quantization_config\": {\"quant_method\": \"awq\"},", 1);
    fs::write(folder.path().join("config.json"), quantised).unwrap();
    assert!(
        refused(&["models", "check", path])
            .contains("the weights are quantised (awq), which is not supported")
    );

    for file in ["config.json", "model.safetensors"] {
        copy("bert", file);
    }
    assert!(
        refused(&["models", "check", path])
            .contains("has the labels bad, good: choose one behind a '#'")
    );
    let said = succeed(&["models", "check", &format!("{path}#good")]);
    for name in [
        "BertForSequenceClassification",
        "labels           bad, good",
        "reads text in the format answer",
        "self-test",
    ] {
        assert!(said.contains(name), "{name}: {said}");
    }
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/families");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let weights = folder.path().join("model.safetensors");
    // Writes a number in place of the last one of the file.
    let spoil = |number: f32| {
        let mut bytes = fs::read(&weights).unwrap();
        let last = bytes.len() - 4;
        bytes[last..].copy_from_slice(&number.to_le_bytes());
        fs::write(&weights, bytes).unwrap();
    };
    // A language model, and a classifier whose self-test is skipped.
    for (labels, tensor) in
        [(None, "number 15 of the tensor 'model.norm.weight'"), (Some(2), "score.weight[31]")]
    {
        Tiny { labels, ..Tiny::default() }.write(folder.path());
        succeed(&["models", "check", path]);
        for (number, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
            spoil(number);
            let said = refused(&["models", "check", path]);
            assert_eq!(said.lines().count(), 1, "{said}");
            let place = format!("{tensor} is {name}");
            assert!(said.contains(path) && said.contains(&place), "{said}");
        }
    }
    // A classifier that reads text.
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(families.join("bert").join(file), folder.path().join(file)).unwrap();
    }
    let label = format!("{path}#good");
    succeed(&["models", "check", &label]);
    spoil(f32::NAN);
    let said = refused(&["models", "check", &label]);
    assert!(said.contains("is NaN: the weights are broken") && said.lines().count() == 1, "{said}");
}

/// Variables of the chat template change what is laid out.
#[test]
fn templates_are_checked_with_their_variables() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    Tiny::default().write(folder.path());
    let check = |more: &[&str]| succeed(&[&["models", "check", path], more].concat());
    let refused = |more: &[&str]| refused(&[&["models", "check", path], more].concat());
    let error = refused(&["--template-arg", "n=1"]);
    assert!(error.contains("has no chat template: leave out the template's arguments"), "{error}");
    let template = "{% for m in messages %}{{ 'w1 ' * (n | default(1)) }}{% endfor %}";
    let config = serde_json::json!({ "chat_template": template }).to_string();
    fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    assert!(check(&[]).contains("chat template    1 token for 'Hi'"), "{}", check(&[]));
    let said = check(&["--template-arg", "n=3", "--template-arg", "x=y"]);
    assert!(said.contains("chat template    3 tokens for 'Hi'"), "{said}");
    let error = refused(&["--template-arg", "messages=[]"]);
    assert!(error.contains("the argument messages is set for every prompt"), "{error}");
    let bert = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/tests/families/bert#good");
    let error = crate::common::refused(&["models", "check", bert, "--template-arg", "n=1"]);
    assert!(error.contains("bert#good: this has no chat template: leave out --template-arg"), "{error}");
}
