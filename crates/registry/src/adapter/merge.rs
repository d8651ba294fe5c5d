//! The merge itself: W + (alpha / r) B A for each layer that the adapter has matrices for.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use stackelberg_data::atomic;
use stackelberg_engine::model::weight_files;

use super::config::Config;
use super::tensors::{Tensor, list};
use crate::error::{Error, Result};

/// The prefix of names in adapters.
const PREFIX: &str = "base_model.model.";
/// The parts of a layer's adapter, as they follow its name.
const PARTS: [&str; 4] = [".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B"];
/// The file of tensors that the base model does not have.
const NEW: &str = "adapter.safetensors";

/// Writes the weights of the merged model to a folder, beside its other files.
///
/// # Errors
/// A tensor of the adapter fits no tensor of the base model, or a file cannot be read or written.
pub(super) fn merge(base: &Path, adapter: &Path, config: &Config, to: &Path) -> Result<()> {
    let mut stored = BTreeMap::new();
    let mut files = Vec::new();
    for file in weight_files(base)? {
        let copy = to.join(file.file_name().unwrap_or_default());
        copy_contents(&file, &copy)?;
        stored.extend(list(&file)?.into_iter().map(|(name, tensor)| (name, tensor.moved(copy.clone()))));
        files.push(copy);
    }
    let own = list(adapter)?;
    let mut new = BTreeMap::new();
    for (name, tensor) in &own {
        let Some(name) = name.strip_prefix(PREFIX) else {
            return Err(Error::invalid(
                adapter,
                format!("the tensor '{name}' does not begin with '{PREFIX}'"),
            ));
        };
        let part = PARTS.into_iter().find_map(|part| Some((name.strip_suffix(part)?, part)));
        match part {
            Some((module, ".lora_A.weight" | ".lora_embedding_A")) => {
                let target = find(&stored, &format!("{module}.weight"))
                    .ok_or_else(|| Error::invalid(adapter, missing(module)))?;
                add(target, Layer::read(adapter, &own, module, config)?, config, module, adapter)?;
            }
            // Read together with the first one.
            Some((module, part)) => {
                let first = part.replace("_B", "_A");
                if !own.contains_key(&format!("{PREFIX}{module}{first}")) {
                    return Err(Error::invalid(adapter, format!("'{module}' has a matrix B and no A")));
                }
            }
            None if name.contains(".lora_") => {
                return Err(Error::invalid(
                    adapter,
                    format!("the tensor '{name}' cannot be merged: merge the adapter with PEFT"),
                ));
            }
            // A module that was saved as a whole.
            None => match find(&stored, name) {
                Some(target) if target.shape == tensor.shape => target.write(&tensor.read()?)?,
                Some(target) => {
                    let (own, other) = (&tensor.shape, &target.shape);
                    let what = format!(
                        "'{name}' has the shape {own:?} and in the base model {other:?}: another vocabulary cannot be merged"
                    );
                    return Err(Error::invalid(adapter, what));
                }
                None if config.classifies => {
                    new.insert(name.to_owned(), tensor);
                }
                None => return Err(Error::invalid(adapter, missing(name))),
            },
        }
    }
    if config.classifies {
        classifier(&to.join("config.json"), &new, adapter)?;
    }
    if !new.is_empty() {
        write_new(&to.join(NEW), &new)?;
        files.push(to.join(NEW));
    }
    index(to, &stored, &new, &files)
}

/// Copies a file without its permissions: the copy is written to.
fn copy_contents(from: &Path, to: &Path) -> Result<()> {
    let mut source = fs::File::open(from).map_err(|e| stackelberg_data::Error::read(from, e))?;
    let copied = fs::File::create(to).and_then(|mut copy| io::copy(&mut source, &mut copy));
    copied.map_err(|e| stackelberg_data::Error::write(to, e))?;
    Ok(())
}

fn missing(name: &str) -> String {
    format!(
        "the base model has no tensor for '{name}', so that it cannot be merged: is base_model_name_or_path another model, or is the layer tied to the embeddings?"
    )
}

/// The stored tensor of this name. Base models are stored with or without the prefix of the model inside.
fn find<'a>(stored: &'a BTreeMap<String, Tensor>, name: &str) -> Option<&'a Tensor> {
    let without = ["model.", "transformer."].into_iter().find_map(|prefix| name.strip_prefix(prefix));
    stored.get(name).or_else(|| stored.get(without?))
}

/// The two matrices of a layer.
struct Layer {
    /// `[r, k]`.
    a: Vec<f32>,
    /// `[n, r]`.
    b: Vec<f32>,
    rank: usize,
    /// Of an embedding or a layer that is stored transposed: the product is added transposed.
    transposed: bool,
    shape: [usize; 2],
}

impl Layer {
    fn read(
        adapter: &Path,
        own: &BTreeMap<String, Tensor>,
        module: &str,
        config: &Config,
    ) -> Result<Self> {
        let find = |part: &str| own.get(&format!("{PREFIX}{module}{part}"));
        let embeds = find(PARTS[2]).is_some();
        let [first, second] = if embeds { [PARTS[2], PARTS[3]] } else { [PARTS[0], PARTS[1]] };
        let (Some(a), Some(b)) = (find(first), find(second)) else {
            return Err(Error::invalid(adapter, format!("'{module}' has a matrix A and no B")));
        };
        let (&[rank, k], &[n, other]) = (&a.shape[..], &b.shape[..]) else {
            return Err(Error::invalid(
                adapter,
                format!("the matrices of '{module}' do not have two dimensions: they cannot be merged"),
            ));
        };
        if rank != other || rank == 0 {
            return Err(Error::invalid(
                adapter,
                format!("the matrices of '{module}' have the ranks {rank} and {other}"),
            ));
        }
        let transposed = embeds || config.transposed;
        let shape = if transposed { [k, n] } else { [n, k] };
        Ok(Self { a: a.read()?, b: b.read()?, rank, transposed, shape })
    }
}

/// W += scale B A.
fn add(target: &Tensor, layer: Layer, config: &Config, module: &str, adapter: &Path) -> Result<()> {
    if target.shape != layer.shape {
        let (own, other) = (layer.shape, &target.shape);
        let what = format!(
            "'{module}' has the shape {own:?} and in the base model {other:?}: is the base another model?"
        );
        return Err(Error::invalid(adapter, what));
    }
    let Layer { a, b, rank, transposed, shape: [_, width] } = layer;
    let scale = config.scale(module, rank) as f32;
    let mut numbers = target.read()?;
    numbers.par_chunks_mut(width.max(1)).enumerate().for_each(|(row, to)| {
        let mut sums = vec![0f32; width];
        for r in 0..rank {
            // Stored transposed, row i has A[., i] and column j has B[j, .].
            let factor = if transposed { a[r * (a.len() / rank) + row] } else { b[row * rank + r] };
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum += factor * if transposed { b[j * rank + r] } else { a[r * width + j] };
            }
        }
        to.iter_mut().zip(sums).for_each(|(to, sum)| *to += scale * sum);
    });
    if let Some(at) = numbers.iter().position(|x| !x.is_finite()) {
        return Err(Error::invalid(
            adapter,
            format!("'{module}' is {} after the merge: the adapter is broken", numbers[at]),
        ));
    }
    target.write(&numbers)
}

/// Makes the configuration that of a classifier with as many labels as its head has rows.
fn classifier(path: &Path, new: &BTreeMap<String, &Tensor>, adapter: &Path) -> Result<()> {
    let text = fs::read_to_string(path).map_err(|e| stackelberg_data::Error::read(path, e))?;
    let mut config: Value = serde_json::from_str(&text).map_err(|e| Error::invalid(path, e))?;
    let Some(name) = config["architectures"][0].as_str().map(str::to_owned) else {
        return Err(Error::invalid(path, "it names no architecture"));
    };
    let head = new.get("score.weight").map(|head| head.shape[0]);
    if let Some(family) = name.strip_suffix("ForCausalLM") {
        let Some(labels) = head else {
            return Err(Error::invalid(
                adapter,
                "it has no 'score.weight': a reward model needs the score head in modules_to_save",
            ));
        };
        config["architectures"] = json!([format!("{family}ForSequenceClassification")]);
        config["num_labels"] = json!(labels);
        if let Some(fields) = config.as_object_mut() {
            fields.remove("id2label");
            fields.remove("label2id");
        }
    }
    let text = serde_json::to_vec_pretty(&config).map_err(|e| Error::invalid(path, e))?;
    Ok(atomic::write(path, &text)?)
}

/// Writes tensors as f32.
fn write_new(path: &Path, new: &BTreeMap<String, &Tensor>) -> Result<()> {
    let mut read = Vec::with_capacity(new.len());
    for (name, tensor) in new {
        let bytes: Vec<u8> = tensor.read()?.iter().flat_map(|x| x.to_le_bytes()).collect();
        read.push((name, tensor.shape.clone(), bytes));
    }
    let mut views = Vec::with_capacity(read.len());
    for (name, shape, bytes) in &read {
        let view =
            TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(|e| Error::invalid(path, e))?;
        views.push((name.as_str(), view));
    }
    safetensors::serialize_to_file(views, None, path).map_err(|e| Error::invalid(path, e))
}

/// Writes the index of the files, if there are several.
fn index(
    to: &Path,
    stored: &BTreeMap<String, Tensor>,
    new: &BTreeMap<String, &Tensor>,
    files: &[PathBuf],
) -> Result<()> {
    if files.len() < 2 {
        return Ok(());
    }
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let old = stored.iter().map(|(tensor, at)| (tensor.clone(), name(at.file())));
    let map: BTreeMap<String, String> =
        old.chain(new.keys().map(|tensor| (tensor.clone(), NEW.to_owned()))).collect();
    let path = to.join("model.safetensors.index.json");
    let text = serde_json::to_vec(&json!({ "metadata": {}, "weight_map": map }))
        .map_err(|e| Error::invalid(&path, e))?;
    Ok(atomic::write(&path, &text)?)
}
