//! The tensors of a checkpoint, from safetensors (one file or several shards) or GGUF. A few rows are read at a time, on
//! several threads, so that no second copy of the model is ever in memory. A memory map would count as one.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Seek};
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Content;
use safetensors::Dtype;

use super::family::Family;
use super::files::{safetensors_header, weight_files};
use super::lengths;
use super::matrix::{Kind, Matrix, deinterleaved};
use crate::error::{Error, Result, unwinding};

/// The tensors of a checkpoint, by name.
pub(crate) struct Weights {
    path: PathBuf,
    files: Vec<(PathBuf, File)>,
    tensors: HashMap<String, Stored>,
    naming: Naming,
    /// Names of the tensors that have been requested.
    asked: RefCell<HashSet<String>>,
}

/// How requested names map to stored names, and how rows are stored.
#[derive(Debug, Clone)]
pub(crate) enum Naming {
    /// Tensors are stored under the requested names.
    Own,
    /// Tensors are stored under the names that Hugging Face uses for this family.
    Hf {
        family: Family,
        /// Prefix of the names inside the model.
        prefix: &'static str,
    },
    /// Tensors are stored under the requested names, with rows in the order of GGUF.
    Gguf(Family),
}

/// Known prefixes of tensor names. Multimodal models have the text model under a prefix of its own.
const PREFIXES: [&str; 5] =
    ["model.", "", "transformer.", "language_model.model.", "model.language_model."];
/// Numbers that are read at once to be checked.
const AT_ONCE: usize = 1 << 20;
/// Tensors outside of the base model.
const HEADS: [&str; 3] = ["output.weight", "score.weight", "regression_head.weight"];

/// The location and type of a stored tensor.
struct Stored {
    file: usize,
    offset: u64,
    kind: Kind,
    shape: Vec<usize>,
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
                    // Buffers of other types are not needed. A request for one reports it as missing.
                    _ => continue,
                };
                let offset = data + info.data_offsets.0 as u64;
                tensors
                    .insert(name, Stored { file: files.len(), offset, kind, shape: info.shape.clone() });
            }
            files.push((path, file));
        }
        let (naming, asked) = (Naming::Own, RefCell::default());
        Ok(Self { path: folder.to_owned(), files, tensors, naming, asked })
    }

    /// Opens a GGUF file: its tensors and its header.
    pub(crate) fn open_gguf(path: &Path) -> Result<(Self, Content)> {
        let file = File::open(path).map_err(Error::read(path))?;
        let size = file.metadata().map_err(Error::read(path))?.len();
        let mut reader = BufReader::with_capacity(1 << 20, &file);
        lengths::check(&mut reader, size).map_err(|e| broken_gguf(path, &e.to_string()))?;
        reader.rewind().map_err(Error::read(path))?;
        let content = unwinding(|| Content::read(&mut reader));
        let content = content.unwrap_or_else(|| Err(candle_core::Error::msg("it cannot be read")));
        let content = content.map_err(|e| broken_gguf(path, &e.to_string()))?;
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
            // No tensor is as large as that.
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
        let (naming, asked) = (Naming::Own, RefCell::default());
        Ok((Self { path: path.to_owned(), files, tensors, naming, asked }, content))
    }

    /// Sets how requested names map to stored names.
    pub(super) fn name_as(&mut self, naming: Naming) {
        self.naming = naming;
    }

    /// From now on, tensors are requested by the names of GGUF and stored under the Hugging Face names of this family.
    pub(super) fn name_as_hf(&mut self, family: Family) {
        let embedding = family.hf_name("token_embd.weight");
        let holds = |prefix: &&str| self.tensors.contains_key(&format!("{prefix}{embedding}"));
        let prefix = PREFIXES.into_iter().find(holds).unwrap_or("model.");
        self.naming = Naming::Hf { family, prefix };
    }

    /// The name under which a tensor is stored.
    fn stored_name(&self, name: &str) -> String {
        match self.naming {
            Naming::Own | Naming::Gguf(_) => name.to_owned(),
            Naming::Hf { family, prefix } => {
                let own = family.hf_name(name);
                let inside = !HEADS.contains(&name);
                let prefix = if inside { prefix } else { prefix.strip_suffix("model.").unwrap_or("") };
                let both = format!("{prefix}{own}");
                // The head of a multimodal model is stored inside or outside of its text model.
                if inside || self.tensors.contains_key(&both) { both } else { own }
            }
        }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(&self.stored_name(name))
    }

    /// Checks that every stored tensor was requested. Otherwise the model would not be the one that was trained.
    ///
    /// # Errors
    /// A tensor was not requested.
    pub(super) fn all_asked(&self, architecture: &str) -> Result<()> {
        let asked = self.asked.borrow();
        let prefix = match self.naming {
            Naming::Hf { prefix, .. } if prefix.contains("language") => prefix,
            _ => "",
        };
        let mut left: Vec<&String> = self
            .tensors
            .keys()
            .filter(|name| !asked.contains(*name) && !needless(name, prefix))
            .collect();
        left.sort_unstable();
        let Some(first) = left.first() else { return Ok(()) };
        let more = if left.len() > 1 { format!(" and {} more", left.len() - 1) } else { String::new() };
        let what =
            format!("a {architecture} has no tensor '{first}'{more}: the file is another model's");
        Err(Error::invalid(&self.path, what))
    }

    /// Checks that all numbers of the model's tensors are finite.
    ///
    /// # Errors
    /// A tensor has NaN or infinity (the first one by name), or cannot be read.
    pub(super) fn all_finite(&self) -> Result<()> {
        let mut tensors: Vec<_> = self.tensors.iter().filter(|(name, _)| !needless(name, "")).collect();
        tensors.sort_unstable_by_key(|(name, _)| *name);
        let mut numbers = Vec::new();
        for (name, stored) in tensors {
            let k = stored.shape.last().copied().unwrap_or(1);
            let rows = stored.shape.iter().product::<usize>().checked_div(k).unwrap_or(0);
            let at_once = (AT_ONCE / k.max(1)).max(1);
            let matrix = self.of(stored, k);
            for first in (0..rows).step_by(at_once) {
                let last = (first + at_once).min(rows);
                numbers.resize((last - first) * k, 0.0);
                matrix.read(first..last, &mut numbers)?;
                if let Some(at) = numbers.iter().position(|x| !x.is_finite()) {
                    let (file, at, value) = (&self.files[stored.file].0, first * k + at, numbers[at]);
                    let what = format!(
                        "number {at} of the tensor '{name}' is {value}: the weights are broken; use another checkpoint"
                    );
                    return Err(Error::invalid(file, what));
                }
            }
        }
        Ok(())
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<&Stored> {
        let (name, path) = (self.stored_name(name), self.path.clone());
        self.asked.borrow_mut().insert(name.clone());
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
        self.of(stored, n).read_stored(0..1, &mut numbers)?;
        Ok(numbers)
    }

    /// A bias of queries or keys, `[heads * dim]`, in the order of the rows of [`rotary`](Self::rotary).
    pub(super) fn rotary_bias(&self, name: &str, heads: usize, dim: usize) -> Result<Vec<f32>> {
        let stored = self.vector(name, heads * dim)?;
        if !matches!(self.naming, Naming::Gguf(family) if family.interleaved()) {
            return Ok(stored);
        }
        Ok((0..heads * dim).map(|row| stored[deinterleaved(row, dim)]).collect())
    }

    /// The file or folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The weight of a norm, `[n]`. Some families store it minus one, which is added back.
    pub(super) fn norm(&self, name: &str, n: usize) -> Result<Vec<f32>> {
        let mut weight = self.vector(name, n)?;
        if matches!(self.naming, Naming::Hf { family, .. } if family.norms_from_one()) {
            weight.iter_mut().for_each(|w| *w += 1.0);
        }
        Ok(weight)
    }

    /// The weight of a linear layer, `[n, k]`. Some families store it transposed.
    pub(super) fn linear(&self, name: &str, n: usize, k: usize) -> Result<Matrix<'_>> {
        if !matches!(self.naming, Naming::Hf { family, .. } if family.transposed()) {
            return self.matrix(name, n, k);
        }
        let columns = self.matrix(name, k, n)?;
        let mut stored = vec![0.0; n * k];
        columns.read(0..k, &mut stored)?;
        let mut turned = vec![0.0; n * k];
        for (i, column) in stored.chunks_exact(n).enumerate() {
            turned.iter_mut().skip(i).step_by(k).zip(column).for_each(|(to, x)| *to = *x);
        }
        Ok(Matrix { k, turned: Some(turned), ..columns })
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

    /// The weight of queries or keys, `[heads * dim, k]`, with rows in the order of rotation by halves: pairs
    /// `(0, d/2), (1, d/2 + 1)...`. GGUF stores some families interleaved, `(0, 1), (2, 3)...`.
    pub(crate) fn rotary(&self, name: &str, heads: usize, dim: usize, k: usize) -> Result<Matrix<'_>> {
        let matrix = self.linear(name, heads * dim, k)?;
        let interleaved = matches!(self.naming, Naming::Gguf(family) if family.interleaved());
        Ok(Matrix { interleaved: interleaved.then_some(dim), ..matrix })
    }

    fn of(&self, stored: &Stored, k: usize) -> Matrix<'_> {
        let Stored { file, offset, kind, .. } = *stored;
        Matrix { file: &self.files[file], offset, kind, k, first: 0, interleaved: None, turned: None }
    }
}

/// Whether a stored tensor need not be requested: tables that follow from the configuration, a tied output layer, and
/// everything outside of the text model.
fn needless(name: &str, prefix: &str) -> bool {
    let follows = ["rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias"];
    let tied = ["lm_head.weight", "output.weight", "language_model.lm_head.weight"];
    follows.iter().any(|end| name.ends_with(end)) || tied.contains(&name) || !name.starts_with(prefix)
}

fn broken_gguf(path: &Path, said: &str) -> Error {
    // Behind the first line, there is only a backtrace.
    let said = said.lines().next().unwrap_or_default().trim();
    Error::invalid(path, format!("not a whole GGUF file ({said}): download it again"))
}
