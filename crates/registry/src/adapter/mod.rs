//! Adapters (LoRA) as PEFT writes them: a folder with `adapter_config.json` and `adapter_model.safetensors`.
//!
//! An adapter is merged into its base model once, into a folder of the cache. From then on it is a model like any other, as a
//! policy, a reward model or a classifier. The merged weights have the data type of the base model's file, the sums are f32.

mod config;
mod merge;
mod tensors;

use std::fs;
use std::path::{Path, PathBuf};

use stackelberg_data::hash::{Hash, sha256_file};
use stackelberg_engine::fingerprint;
use stackelberg_hub::SourceError;
use stackelberg_hub::files::{ADAPTER, ADAPTER_TOKENIZER, ADAPTER_WEIGHTS, INDEX, WEIGHTS};

use crate::error::{Error, Result};
use config::Config;
use merge::merge;

/// Whether a path is the folder of an adapter that is not merged: there are no weights of a model beside it. Some trainers write
/// the `config.json` of the base model beside an adapter.
pub(crate) fn is_adapter(path: &Path) -> bool {
    path.join(ADAPTER).is_file() && ![WEIGHTS, INDEX].iter().any(|file| path.join(file).is_file())
}

/// Fetches a reference.
type Fetch<'a> = &'a dyn Fn(&str) -> Result<PathBuf>;

/// The folder of the model that an adapter and its base model make together, below the cache folder.
pub(crate) fn merged(adapter: &Path, cache: Option<&Path>, fetch: Fetch<'_>) -> Result<PathBuf> {
    let config = Config::read(&adapter.join(ADAPTER))?;
    let weights = adapter.join(ADAPTER_WEIGHTS);
    if !weights.is_file() {
        let what = "the weights of the adapter are not there (weights as a pickle, .bin, are not read: save them as safetensors)";
        return Err(Error::invalid(&weights, what));
    }
    let base = base_of(adapter, &config, cache, fetch)?;
    let place = place_of(adapter, &base, cache)?;
    if place.is_dir() {
        return Ok(place);
    }
    let cache = place.parent().unwrap_or(&place);
    let unwritable = |source| -> Error {
        SourceError::CacheUnwritable { path: place.clone(), variable: "STACKELBERG_CACHE", source }
            .into()
    };
    fs::create_dir_all(cache).map_err(unwritable)?;
    // It gets its name when it is complete. If another process was faster, its folder is as good.
    let folder = tempfile::tempdir_in(cache).map_err(unwritable)?;
    copy_files(&base, folder.path(), adapter)?;
    merge(&base, &weights, &config, folder.path())?;
    match fs::rename(folder.path(), &place) {
        Err(source) if !place.is_dir() => Err(unwritable(source)),
        _ => Ok(place),
    }
}

/// The folder of the base model: a path, beside the adapter or here, or a model on the hub.
fn base_of(adapter: &Path, config: &Config, cache: Option<&Path>, fetch: Fetch<'_>) -> Result<PathBuf> {
    let name = &config.base;
    let local = [adapter.join(name), PathBuf::from(name)];
    let found = match local.into_iter().find(|path| path.is_dir() && *path != *adapter) {
        Some(path) if is_adapter(&path) => merged(&path, cache, fetch),
        Some(path) => Ok(path),
        None => fetch(&format!("hf:{name}")),
    };
    let place = format!(
        "{}: the base model '{name}' (base_model_name_or_path may also name a folder)",
        adapter.join(ADAPTER).display()
    );
    let base = found.map_err(|error| error.within(place))?;
    if !base.join("config.json").is_file() {
        return Err(Error::invalid(
            &base,
            "the base model of an adapter must be a Hugging Face folder with config.json",
        ));
    }
    Ok(base)
}

/// Where the merged model is kept: one folder for each pair of base model and adapter.
fn place_of(adapter: &Path, base: &Path, cache: Option<&Path>) -> Result<PathBuf> {
    let Some(cache) = cache else {
        return Err(SourceError::NoCache { variable: "STACKELBERG_CACHE" }.into());
    };
    let mut hash = Hash::new();
    hash.update(fingerprint(base)?);
    let own = [ADAPTER, ADAPTER_WEIGHTS].into_iter().chain(ADAPTER_TOKENIZER);
    let files = own.map(|file| adapter.join(file)).chain(ADAPTER_TOKENIZER.map(|file| base.join(file)));
    for file in files.chain([base.join("config.json")]).filter(|file| file.is_file()) {
        hash.update(sha256_file(&file).map_err(|e| stackelberg_data::Error::read(&file, e))?);
        hash.update("\n");
    }
    Ok(cache.join("adapters").join(hash.hex()))
}

/// Copies what a model has besides its weights: the base model's files, and the tokenizer of the adapter if it has one.
fn copy_files(base: &Path, to: &Path, adapter: &Path) -> Result<()> {
    let copy = |from: &Path| -> Result<()> {
        let name = from.file_name().unwrap_or_default();
        fs::copy(from, to.join(name)).map_err(|e| stackelberg_data::Error::read(from, e))?;
        Ok(())
    };
    let listed = fs::read_dir(base).map_err(|e| stackelberg_data::Error::read(base, e))?;
    for file in listed.flatten().map(|entry| entry.path()).filter(|path| path.is_file()) {
        let small = file
            .extension()
            .is_some_and(|end| ["json", "jinja", "txt", "model"].iter().any(|e| end == *e));
        if small && !file.to_string_lossy().ends_with(".index.json") {
            copy(&file)?;
        }
    }
    if adapter.join("tokenizer.json").is_file() {
        ADAPTER_TOKENIZER
            .map(|file| adapter.join(file))
            .iter()
            .filter(|file| file.is_file())
            .try_for_each(|file| copy(file))?;
    }
    Ok(())
}
