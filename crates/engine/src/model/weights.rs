//! Where a model's tensors come from: safetensors (one file or sharded) or GGUF. A few rows are read at a
//! time, from several threads, so that no second copy of the model is ever in memory; a memory map would
//! count as one.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::gguf_file::Content;
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::error::{Error, Result};

/// Tensors by their Hugging Face names.
pub(crate) struct Weights {
    path: PathBuf,
    files: Vec<(PathBuf, File)>,
    tensors: HashMap<String, Stored>,
    /// Whether names and rows are in the order of GGUF.
    gguf: bool,
}

/// Where a tensor lies.
struct Stored {
    file: usize,
    offset: u64,
    kind: Kind,
    shape: Vec<usize>,
}

#[derive(Clone, Copy)]
enum Kind {
    F32,
    F16,
    Bf16,
    Block(GgmlDType),
}

impl Kind {
    /// Bytes of so many numbers.
    fn bytes(self, numbers: usize) -> usize {
        match self {
            Self::F32 => 4 * numbers,
            Self::F16 | Self::Bf16 => 2 * numbers,
            Self::Block(block) => numbers / block.block_size() * block.type_size(),
        }
    }
}

/// A tensor of two dimensions, row by row as f32.
pub(crate) struct Matrix<'a> {
    file: &'a (PathBuf, File),
    offset: u64,
    kind: Kind,
    k: usize,
    /// Width of a head whose rows are stored in the order of interleaved rotation.
    interleaved: Option<usize>,
}

impl Weights {
    /// Opens the weights of a folder.
    pub(crate) fn open_hf(folder: &Path) -> Result<Self> {
        let (mut files, mut tensors) = (Vec::new(), HashMap::new());
        for path in weight_files(folder)? {
            let mut file = File::open(&path).map_err(Error::read(&path))?;
            let (data, header) = safetensors_header(&path, &mut file)?;
            for (name, info) in header.tensors() {
                let kind = match info.dtype {
                    Dtype::F32 => Kind::F32,
                    Dtype::F16 => Kind::F16,
                    Dtype::BF16 => Kind::Bf16,
                    // Buffers and the like; who asks for it is told that it is missing.
                    _ => continue,
                };
                let offset = data + info.data_offsets.0 as u64;
                tensors
                    .insert(name, Stored { file: files.len(), offset, kind, shape: info.shape.clone() });
            }
            files.push((path, file));
        }
        Ok(Self { path: folder.to_owned(), files, tensors, gguf: false })
    }

    /// Opens a GGUF file: its tensors and its metadata.
    pub(crate) fn open_gguf(path: &Path) -> Result<(Self, Content)> {
        let file = File::open(path).map_err(Error::read(path))?;
        let size = file.metadata().map_err(Error::read(path))?.len();
        let mut reader = BufReader::with_capacity(1 << 20, &file);
        let content = Content::read(&mut reader).map_err(|e| broken_gguf(path, &e))?;
        let mut tensors = HashMap::new();
        for (name, info) in &content.tensor_infos {
            let kind = match info.ggml_dtype {
                GgmlDType::F32 => Kind::F32,
                GgmlDType::F16 => Kind::F16,
                GgmlDType::BF16 => Kind::Bf16,
                block => Kind::Block(block),
            };
            let offset = content.tensor_data_offset.saturating_add(info.offset);
            let numbers = info.shape.dims().iter().try_fold(1usize, |all, n| all.checked_mul(*n));
            // No weights are as many as that.
            let numbers = numbers.filter(|numbers| *numbers < 1 << 48).unwrap_or(1 << 48);
            let bytes = kind.bytes(numbers) as u64;
            if offset.saturating_add(bytes) > size {
                let what = format!("'{name}' ends at byte {} of {size}", offset.saturating_add(bytes));
                return Err(Error::invalid(
                    path,
                    format!("not a whole GGUF file ({what}): download it again"),
                ));
            }
            tensors.insert(
                name.clone(),
                Stored { file: 0, offset, kind, shape: info.shape.dims().to_vec() },
            );
        }
        let files = vec![(path.to_owned(), file)];
        Ok((Self { path: path.to_owned(), files, tensors, gguf: true }, content))
    }

    /// The name under which a tensor is stored.
    fn stored_name(&self, name: &str) -> String {
        if self.gguf { gguf_name(name) } else { name.to_owned() }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(&self.stored_name(name))
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<&Stored> {
        let (name, path) = (self.stored_name(name), self.path.clone());
        match self.tensors.get(&name) {
            Some(stored) if stored.shape == shape => Ok(stored),
            Some(Stored { shape: found, .. }) => {
                let (found, expected) = (found.clone(), shape.to_vec());
                Err(Error::TensorShape { path, name, found, expected })
            }
            None => Err(Error::MissingTensor { path, name }),
        }
    }

    /// A tensor `[n]`.
    pub(crate) fn vector(&self, name: &str, n: usize) -> Result<Vec<f32>> {
        let stored = self.find(name, &[n])?;
        let mut numbers = vec![0.0; n];
        self.of(stored, n).read(0..1, &mut numbers)?;
        Ok(numbers)
    }

    /// A tensor `[n, k]`.
    pub(crate) fn matrix(&self, name: &str, n: usize, k: usize) -> Result<Matrix<'_>> {
        let stored = self.find(name, &[n, k])?;
        if let Kind::Block(block) = stored.kind
            && !k.is_multiple_of(block.block_size())
        {
            let what = format!("'{name}' has rows of {k}, not whole blocks of {}", block.block_size());
            return Err(Error::invalid(&self.path, what));
        }
        Ok(self.of(stored, k))
    }

    /// The rows of q or k, `[heads * dim, k]`, in the order of rotation by halves: pairs
    /// `(0, d/2), (1, d/2 + 1)...`. GGUF keeps them interleaved, `(0, 1), (2, 3)...`.
    pub(crate) fn rotary(&self, name: &str, heads: usize, dim: usize, k: usize) -> Result<Matrix<'_>> {
        let matrix = self.matrix(name, heads * dim, k)?;
        Ok(Matrix { interleaved: self.gguf.then_some(dim), ..matrix })
    }

    fn of(&self, stored: &Stored, k: usize) -> Matrix<'_> {
        let Stored { file, offset, kind, .. } = *stored;
        Matrix { file: &self.files[file], offset, kind, k, interleaved: None }
    }
}

impl Matrix<'_> {
    /// Some rows, `[rows, k]`.
    pub(crate) fn read(&self, rows: Range<usize>, to: &mut [f32]) -> Result<()> {
        let Some(dim) = self.interleaved else { return self.read_stored(rows, to) };
        for (row, to) in rows.zip(to.chunks_exact_mut(self.k)) {
            let (head, half, pair) = (row / dim, row % dim / (dim / 2), row % (dim / 2));
            let stored = head * dim + 2 * pair + half;
            self.read_stored(stored..stored + 1, to)?;
        }
        Ok(())
    }

    fn read_stored(&self, rows: Range<usize>, to: &mut [f32]) -> Result<()> {
        let (path, file) = self.file;
        let mut bytes = vec![0; self.kind.bytes(rows.len() * self.k)];
        let offset = self.offset + self.kind.bytes(rows.start * self.k) as u64;
        read_at(file, &mut bytes, offset).map_err(Error::read(path))?;
        match self.kind {
            Kind::F32 => {
                to.iter_mut().zip(bytes.as_chunks().0).for_each(|(to, &b)| *to = f32::from_le_bytes(b));
            }
            Kind::F16 => {
                let halves = bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32());
                to.iter_mut().zip(halves).for_each(|(to, x)| *to = x);
            }
            Kind::Bf16 => {
                let halves = bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32());
                to.iter_mut().zip(halves).for_each(|(to, x)| *to = x);
            }
            Kind::Block(block) => {
                let blocks = qtensor_from_ggml(block, &bytes, vec![to.len()], &Device::Cpu)?;
                to.copy_from_slice(&blocks.dequantize(&Device::Cpu)?.to_vec1::<f32>()?);
            }
        }
        Ok(())
    }
}

/// Rows of several matrices, one below the other, each with its number of rows.
pub(crate) fn stacked(
    parts: &[(Matrix<'_>, usize)],
    k: usize,
    rows: Range<usize>,
    to: &mut [f32],
) -> Result<()> {
    let mut above = 0;
    for (part, n) in parts {
        let own = rows.start.max(above)..rows.end.min(above + n);
        if !own.is_empty() {
            let to = &mut to[(own.start - rows.start) * k..(own.end - rows.start) * k];
            part.read(own.start - above..own.end - above, to)?;
        }
        above += n;
    }
    Ok(())
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, bytes, offset)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        (bytes, offset) = (&mut bytes[read..], offset + read as u64);
    }
    Ok(())
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

/// Where the data of a safetensors file begin, and what is there.
fn safetensors_header(path: &Path, file: &mut File) -> Result<(u64, Metadata)> {
    let broken = |what: String| {
        Error::invalid(path, format!("not a whole safetensors file ({what}): download it again"))
    };
    let size = file.seek(std::io::SeekFrom::End(0)).map_err(Error::read(path))?;
    file.rewind().map_err(Error::read(path))?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| broken("no header".into()))?;
    let header = u64::from_le_bytes(length);
    if header > size.saturating_sub(8) {
        return Err(broken(format!("a header of {header} bytes in a file of {size}")));
    }
    let mut bytes = vec![0; header as usize];
    file.read_exact(&mut bytes).map_err(|_| broken("a cut header".into()))?;
    let metadata: Metadata = serde_json::from_slice(&bytes).map_err(|e| broken(e.to_string()))?;
    let needed = (8 + header).saturating_add(metadata.data_len() as u64);
    if needed > size {
        return Err(broken(format!("{needed} bytes are announced, {size} are there")));
    }
    Ok((8 + header, metadata))
}
