//! Adapters are merged into their base models as PEFT merges them, and what cannot be merged is refused by name.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use stackelberg_engine::Dtype;
use stackelberg_engine::model::Model;
use stackelberg_hub::Hub;
use stackelberg_registry::Registry;

type Tested = Result<(), Box<dyn Error>>;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/adapters")
}

fn registry(cache: &Path) -> Registry {
    Registry::new(Hub { packages: Some(cache.to_owned()), offline: true, ..Hub::default() })
}

/// The tensors of a file in f32.
fn tensors(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |data: &[u8]| data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    file.tensors().into_iter().map(|(name, view)| (name, numbers(view.data()))).collect()
}

/// The tensors of a folder.
fn of_folder(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    let files = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    files
        .filter(|path| path.extension().is_some_and(|end| end == "safetensors"))
        .flat_map(|path| tensors(&path))
        .collect()
}

/// An error with its causes.
fn whole(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", whole(source)))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to)
        } else {
            fs::copy(entry.path(), to).map(drop).unwrap()
        }
    }
}

#[test]
fn merged_weights_are_those_of_peft() -> Tested {
    let cache = tempfile::tempdir()?;
    for (name, rewards) in [("llama", false), ("gpt2", false), ("reward", true)] {
        let case = fixtures().join(name);
        let folder = registry(cache.path()).fetch(&case.join("adapter").to_string_lossy())?;
        let (found, expected) = (of_folder(&folder), tensors(&case.join("merged.safetensors")));
        let base = tensors(&case.join("base/model.safetensors"));
        let mut changed = 0;
        for (tensor, expected) in &expected {
            // A tied output layer is stored once.
            let Some(found) = found.get(tensor) else {
                assert_eq!(tensor, "lm_head.weight", "{name}");
                continue;
            };
            assert_eq!(found.len(), expected.len(), "{name}: {tensor}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 1e-6,
                    "{name}: {tensor}: {found} instead of {expected}"
                );
            }
            changed += usize::from(base.get(tensor) != Some(expected));
        }
        assert!(changed >= 5, "{name}: only {changed} tensors were changed");
        let model = Model::load(&folder, Dtype::F32)?;
        assert_eq!(model.score().is_some(), rewards, "{name}");
        // It is merged once.
        let written = fs::metadata(folder.join("model.safetensors"))?.modified()?;
        assert_eq!(registry(cache.path()).fetch(&case.join("adapter").to_string_lossy())?, folder);
        assert_eq!(fs::metadata(folder.join("model.safetensors"))?.modified()?, written);
    }
    Ok(())
}

/// Also if the trainer wrote the base model's `config.json` beside the adapter.
#[test]
fn a_base_that_is_read_only_is_merged() -> Tested {
    let (cache, own) = (tempfile::tempdir()?, tempfile::tempdir()?);
    copy(&fixtures().join("llama"), own.path());
    fs::copy(own.path().join("base/config.json"), own.path().join("adapter/config.json"))?;
    let base = own.path().join("base/model.safetensors");
    let mut permissions = fs::metadata(&base)?.permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&base, permissions)?;
    let folder = registry(cache.path()).fetch(&own.path().join("adapter").to_string_lossy())?;
    assert!(!fs::metadata(folder.join("model.safetensors"))?.permissions().readonly());
    Ok(())
}

#[test]
fn another_adapter_is_another_model() -> Tested {
    let cache = tempfile::tempdir()?;
    let own = tempfile::tempdir()?;
    copy(&fixtures().join("llama"), own.path());
    let adapter = own.path().join("adapter");
    let fetched = || registry(cache.path()).fetch(&adapter.to_string_lossy());
    let first = fetched()?;
    let settings = adapter.join("adapter_config.json");
    fs::write(
        &settings,
        fs::read_to_string(&settings)?.replace("\"lora_alpha\": 6", "\"lora_alpha\": 7"),
    )?;
    let second = fetched()?;
    assert_ne!(first, second);
    assert_ne!(of_folder(&first), of_folder(&second));
    // The tokenizer of the adapter is the model's.
    fs::write(adapter.join("tokenizer.json"), "{}")?;
    assert_eq!(fs::read_to_string(fetched()?.join("tokenizer.json"))?, "{}");
    Ok(())
}

#[test]
fn what_cannot_be_merged_is_refused_by_name() -> Tested {
    let cases = [
        (
            "\"peft_type\": \"LORA\"",
            "\"peft_type\": \"IA3\"",
            "peft_type IA3 cannot be merged: only LORA can",
        ),
        ("\"use_dora\": false", "\"use_dora\": true", "use_dora cannot be merged"),
        ("\"bias\": \"none\"", "\"bias\": \"all\"", "bias \"all\" cannot be merged"),
        ("\"lora_alpha\": 6", "\"lora_alpha\": null", "lora_alpha is null: it must be a finite number"),
        (
            "\"layers.1.self_attn.q_proj\": 3",
            "\".*q_proj\": 3",
            "alpha_pattern has the expression '.*q_proj'",
        ),
        ("\"../base\"", "null", "base_model_name_or_path is missing"),
        ("\"../base\"", "\"org/none\"", "the base model 'org/none'"),
        ("\"../base\"", "\"../../gpt2/base\"", "the base model has no tensor for 'lm_head'"),
    ];
    for (from, to, expected) in cases {
        let (cache, own) = (tempfile::tempdir()?, tempfile::tempdir()?);
        copy(&fixtures(), own.path());
        let adapter = own.path().join("llama/adapter");
        let settings = adapter.join("adapter_config.json");
        let text = fs::read_to_string(&settings)?;
        assert!(text.contains(from), "{from}");
        fs::write(&settings, text.replace(from, to))?;
        let error = registry(cache.path()).fetch(&adapter.to_string_lossy()).unwrap_err();
        let said = whole(&error);
        assert!(said.contains(expected), "{said}");
        // Nothing is left of a merge that failed.
        let left = fs::read_dir(cache.path().join("adapters")).map_or(0, |files| files.count());
        assert_eq!(left, 0, "{expected}");
    }
    Ok(())
}

#[test]
fn a_broken_adapter_is_refused() -> Tested {
    let (cache, own) = (tempfile::tempdir()?, tempfile::tempdir()?);
    copy(&fixtures().join("llama"), own.path());
    let adapter = own.path().join("adapter");
    let weights = adapter.join("adapter_model.safetensors");
    let refused = || registry(cache.path()).fetch(&adapter.to_string_lossy()).unwrap_err().to_string();
    let whole = fs::read(&weights)?;
    fs::write(&weights, &whole[..whole.len() - 1])?;
    assert!(refused().contains("not a whole safetensors file"), "{}", refused());
    fs::write(&weights, &whole[..4])?;
    assert!(refused().contains("not a whole safetensors file"), "{}", refused());
    let mut broken = whole.clone();
    let last = broken.len() - 4;
    broken[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&weights, broken)?;
    assert!(refused().contains("is NaN after the merge"), "{}", refused());
    fs::remove_file(&weights)?;
    assert!(refused().contains("the weights of the adapter are not there"), "{}", refused());
    Ok(())
}
