//! `stackelberg models check`: what a folder is, or one line on why it cannot be used.

use std::fs;
use std::path::Path;

use crate::common::{refused, succeed};

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
