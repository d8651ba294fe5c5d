//! Where a model's tensors come from: safetensors (one file or sharded) or GGUF, read one tensor at a
//! time, so that no second copy of the model is ever in memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::Content;
use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device};

use crate::error::{Error, Result};

/// Tensors by their Hugging Face names, as f32.
pub(crate) enum Weights {
    Hf { path: PathBuf, tensors: MmapedSafetensors },
    Gguf { path: PathBuf, file: BufReader<File>, content: Content },
}

impl Weights {
    /// Opens the weights of a folder.
    pub(crate) fn open_hf(folder: &Path) -> Result<Self> {
        let files = weight_files(folder)?;
        for file in &files {
            check_safetensors(file)?;
        }
        // SAFETY: the files are only read; a file changed from outside while mapped gives wrong numbers,
        // as it would for every other reader of weights.
        #[allow(unsafe_code)]
        let tensors = unsafe { MmapedSafetensors::multi(&files) };
        let tensors = tensors.map_err(|e| Error::invalid(folder, e))?;
        Ok(Self::Hf { path: folder.to_owned(), tensors })
    }

    pub(crate) fn open_gguf(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::read(path))?;
        let mut file = BufReader::with_capacity(1 << 20, file);
        let content = Content::read(&mut file).map_err(|e| broken_gguf(path, &e))?;
        Ok(Self::Gguf { path: path.to_owned(), file, content })
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Hf { path, .. } | Self::Gguf { path, .. } => path,
        }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        match self {
            Self::Hf { tensors, .. } => tensors.get(name).is_ok(),
            Self::Gguf { content, .. } => content.tensor_infos.contains_key(&gguf_name(name)),
        }
    }

    /// A tensor of the given shape, row by row.
    pub(crate) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let path = self.path().to_owned();
        let missing = |name: &str| Error::MissingTensor { path: path.clone(), name: name.to_owned() };
        let (tensor, name) = match self {
            Self::Hf { tensors, .. } => {
                tensors.get(name).map_err(|_| missing(name))?;
                let tensor = tensors.load(name, &Device::Cpu).map_err(|e| Error::invalid(&path, e))?;
                (tensor, name.to_owned())
            }
            Self::Gguf { file, content, .. } => {
                let name = gguf_name(name);
                let info = content.tensor_infos.get(&name).ok_or_else(|| missing(&name))?;
                if info.shape.dims() != shape {
                    let found = info.shape.dims().to_vec();
                    return Err(Error::TensorShape { path, name, found, expected: shape.to_vec() });
                }
                let tensor = info.read(file, content.tensor_data_offset, &Device::Cpu);
                let tensor = tensor.and_then(|t| t.dequantize(&Device::Cpu));
                (tensor.map_err(|e| broken_gguf(&path, &e))?, name)
            }
        };
        if tensor.dims() != shape {
            let found = tensor.dims().to_vec();
            return Err(Error::TensorShape { path, name, found, expected: shape.to_vec() });
        }
        let flat = tensor.to_dtype(DType::F32)?.flatten_all()?;
        Ok(flat.to_vec1()?)
    }

    /// GGUF keeps the rows of q and k in the order of interleaved rotation, head by head: pairs
    /// `(0, 1), (2, 3)...` instead of `(0, d/2), (1, d/2 + 1)...`. This puts them back.
    pub(crate) fn take_rotary(
        &mut self,
        name: &str,
        heads: usize,
        dim: usize,
        k: usize,
    ) -> Result<Vec<f32>> {
        let rows = self.take(name, &[heads * dim, k])?;
        if matches!(self, Self::Hf { .. }) {
            return Ok(rows);
        }
        let mut ordered = Vec::with_capacity(rows.len());
        for head in 0..heads {
            for half in 0..2 {
                for pair in 0..dim / 2 {
                    let row = head * dim + 2 * pair + half;
                    ordered.extend_from_slice(&rows[row * k..(row + 1) * k]);
                }
            }
        }
        Ok(ordered)
    }
}

fn broken_gguf(path: &Path, error: &candle_core::Error) -> Error {
    // The first line says what; the rest is a backtrace.
    let said = error.to_string();
    let said = said.lines().next().unwrap_or_default().trim();
    Error::invalid(path, format!("not a whole GGUF file ({said}): download it again"))
}

/// The names that llama.cpp gives to the same tensors.
fn gguf_name(name: &str) -> String {
    let Some(rest) = name.strip_prefix("model.layers.") else {
        let own = match name {
            "model.embed_tokens.weight" => "token_embd.weight",
            "model.norm.weight" => "output_norm.weight",
            "lm_head.weight" => "output.weight",
            other => other,
        };
        return own.to_owned();
    };
    let (layer, part) = rest.split_once('.').unwrap_or((rest, ""));
    let own = match part {
        "self_attn.q_proj.weight" => "attn_q.weight",
        "self_attn.k_proj.weight" => "attn_k.weight",
        "self_attn.v_proj.weight" => "attn_v.weight",
        "self_attn.o_proj.weight" => "attn_output.weight",
        "mlp.gate_proj.weight" => "ffn_gate.weight",
        "mlp.up_proj.weight" => "ffn_up.weight",
        "mlp.down_proj.weight" => "ffn_down.weight",
        "input_layernorm.weight" => "attn_norm.weight",
        "post_attention_layernorm.weight" => "ffn_norm.weight",
        other => other,
    };
    format!("blk.{layer}.{own}")
}

/// `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
pub(crate) fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let single = folder.join("model.safetensors");
    let index = folder.join("model.safetensors.index.json");
    if index.is_file() {
        return shards(folder, &index);
    }
    if single.is_file() {
        return Ok(vec![single]);
    }
    let pickle = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
    let what = match pickle.iter().any(|name| folder.join(name).exists()) {
        true => "the weights are a pickle (.bin), which can run code; convert them to safetensors",
        false => "neither model.safetensors nor model.safetensors.index.json is there",
    };
    Err(Error::invalid(folder, what))
}

fn shards(folder: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string(index).map_err(Error::read(index))?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| Error::invalid(index, e))?;
    let map: HashMap<String, String> =
        serde_json::from_value(value["weight_map"].clone()).map_err(|e| Error::invalid(index, e))?;
    let mut names: Vec<&String> = map.values().collect();
    names.sort_unstable();
    names.dedup();
    if let Some(name) = names.iter().find(|name| name.contains(['/', '\\'])) {
        return Err(Error::invalid(index, format!("names the shard '{name}', outside its own folder")));
    }
    let files: Vec<PathBuf> = names.into_iter().map(|name| folder.join(name)).collect();
    match files.iter().find(|file| !file.is_file()) {
        Some(file) => Err(Error::invalid(index, format!("the shard {} is not there", file.display()))),
        None => Ok(files),
    }
}

/// A truncated file would otherwise fail with words that do not help.
fn check_safetensors(path: &Path) -> Result<()> {
    let broken = |what: String| {
        Error::invalid(path, format!("not a whole safetensors file ({what}): download it again"))
    };
    let mut file = File::open(path).map_err(Error::read(path))?;
    let size = file.seek(std::io::SeekFrom::End(0)).map_err(Error::read(path))?;
    file.rewind().map_err(Error::read(path))?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| broken("no header".into()))?;
    let header = u64::from_le_bytes(length);
    if header > size.saturating_sub(8) {
        return Err(broken(format!("a header of {header} bytes in a file of {size}")));
    }
    let mut text = vec![0; header as usize];
    file.read_exact(&mut text).map_err(|_| broken("a cut header".into()))?;
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|e| broken(e.to_string()))?;
    let ends =
        value.as_object().into_iter().flatten().filter_map(|(_, t)| t["data_offsets"][1].as_u64());
    let needed = 8 + header + ends.max().unwrap_or(0);
    if needed > size {
        Err(broken(format!("{needed} bytes are announced, {size} are there")))
    } else {
        Ok(())
    }
}
