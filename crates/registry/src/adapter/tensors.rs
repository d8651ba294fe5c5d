//! Tensors of safetensors files, read and overwritten one at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use stackelberg_engine::model::safetensors_header;

use crate::error::{Error, Result};

/// The location of a tensor.
#[derive(Debug, Clone)]
pub(super) struct Tensor {
    file: PathBuf,
    offset: u64,
    dtype: Dtype,
    pub(super) shape: Vec<usize>,
}

/// The tensors of a file, by name.
pub(super) fn list(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let mut file = File::open(path).map_err(|e| stackelberg_data::Error::read(path, e))?;
    let (data, metadata) = safetensors_header(path, &mut file)?;
    let tensor = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let offset = data + info.data_offsets.0 as u64;
        (name, Tensor { file: path.to_owned(), offset, dtype: info.dtype, shape: info.shape.clone() })
    };
    Ok(metadata.tensors().into_iter().map(tensor).collect())
}

impl Tensor {
    /// The same tensor in another file of the same layout.
    pub(super) fn moved(&self, file: PathBuf) -> Self {
        Self { file, ..self.clone() }
    }

    /// The file that it is in.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Its numbers.
    pub(super) fn read(&self) -> Result<Vec<f32>> {
        let width = self.width()?;
        let mut bytes = vec![0; self.len() * width];
        let mut file =
            File::open(&self.file).map_err(|e| stackelberg_data::Error::read(&self.file, e))?;
        file.seek(SeekFrom::Start(self.offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|e| stackelberg_data::Error::read(&self.file, e))?;
        Ok(match self.dtype {
            Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Dtype::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            _ => bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
        })
    }

    /// Overwrites its numbers, rounded to its data type.
    pub(super) fn write(&self, numbers: &[f32]) -> Result<()> {
        let bytes: Vec<u8> = match self.dtype {
            Dtype::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Dtype::F16 => numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            _ => numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
        };
        let write = || {
            let mut file = File::options().write(true).open(&self.file)?;
            file.seek(SeekFrom::Start(self.offset))?;
            file.write_all(&bytes)
        };
        Ok(write().map_err(|e: std::io::Error| stackelberg_data::Error::write(&self.file, e))?)
    }

    /// The width of a number in bytes.
    fn width(&self) -> Result<usize> {
        match self.dtype {
            Dtype::F32 => Ok(4),
            Dtype::F16 | Dtype::BF16 => Ok(2),
            other => Err(Error::invalid(
                &self.file,
                format!("a tensor of {other:?} cannot be merged: only F32, F16 and BF16 can"),
            )),
        }
    }
}
