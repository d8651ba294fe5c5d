//! A matrix of a checkpoint, of which a few rows are read at a time: as numbers, or in the blocks that they are stored in.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::kernel::Quant;

/// How numbers are stored.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    F32,
    F16,
    Bf16,
    Block(GgmlDType),
}

impl Kind {
    /// Size of this many numbers in bytes.
    pub(super) fn bytes(self, numbers: usize) -> usize {
        match self {
            Self::F32 => 4 * numbers,
            Self::F16 | Self::Bf16 => 2 * numbers,
            Self::Block(block) => numbers / block.block_size() * block.type_size(),
        }
    }

    /// The type of the blocks, if the kernels keep it.
    fn quant(self) -> Option<Quant> {
        let Self::Block(block) = self else { return None };
        Some(match block {
            GgmlDType::Q4_0 => Quant::Q4_0,
            GgmlDType::Q4_1 => Quant::Q4_1,
            GgmlDType::Q5_0 => Quant::Q5_0,
            GgmlDType::Q5_1 => Quant::Q5_1,
            GgmlDType::Q8_0 => Quant::Q8_0,
            GgmlDType::Q4K => Quant::Q4K,
            GgmlDType::Q5K => Quant::Q5K,
            GgmlDType::Q6K => Quant::Q6K,
            _ => return None,
        })
    }
}

/// A tensor of two dimensions, which is read by rows.
pub(crate) struct Matrix<'a> {
    pub(super) file: &'a (PathBuf, File),
    pub(super) offset: u64,
    pub(super) kind: Kind,
    pub(super) k: usize,
    /// Index of the first row.
    pub(super) first: usize,
    /// Width of a head, if the rows of each head are stored in the order of interleaved rotation.
    pub(super) interleaved: Option<usize>,
    /// All rows, if the matrix is stored transposed.
    pub(super) turned: Option<Vec<f32>>,
}

impl Matrix<'_> {
    /// The matrix without its first `first` rows.
    pub(crate) fn from(self, first: usize) -> Self {
        Self { first, ..self }
    }

    /// Whether the matrix is stored in blocks.
    pub(super) fn is_quantised(&self) -> bool {
        matches!(self.kind, Kind::Block(_))
    }

    /// The type of the matrix's blocks, if the kernels keep it.
    pub(super) fn quant(&self) -> Option<Quant> {
        self.kind.quant()
    }

    /// Reads some rows, `[rows, k]`.
    pub(crate) fn read(&self, rows: Range<usize>, to: &mut [f32]) -> Result<()> {
        if let Some(turned) = &self.turned {
            to.copy_from_slice(&turned[(rows.start + self.first) * self.k..][..rows.len() * self.k]);
            return Ok(());
        }
        self.in_order(rows, to, |rows, to| self.read_stored(rows, to))
    }

    /// Reads the blocks of some rows, as they are stored.
    pub(super) fn blocks(&self, rows: Range<usize>, to: &mut [u8]) -> Result<()> {
        self.in_order(rows, to, |rows, to| self.read_bytes(rows, to))
    }

    /// Calls `read` for stored rows that are next to each other.
    fn in_order<T>(
        &self,
        rows: Range<usize>,
        to: &mut [T],
        read: impl Fn(Range<usize>, &mut [T]) -> Result<()>,
    ) -> Result<()> {
        let width = to.len() / rows.len().max(1);
        let rows = rows.start + self.first..rows.end + self.first;
        let Some(dim) = self.interleaved else { return read(rows, to) };
        for (row, to) in rows.zip(to.chunks_exact_mut(width)) {
            let stored = deinterleaved(row, dim);
            read(stored..stored + 1, to)?;
        }
        Ok(())
    }

    fn read_bytes(&self, rows: Range<usize>, to: &mut [u8]) -> Result<()> {
        let (path, file) = self.file;
        let offset = self.offset + self.kind.bytes(rows.start * self.k) as u64;
        read_at(file, to, offset).map_err(Error::read(path))
    }

    pub(super) fn read_stored(&self, rows: Range<usize>, to: &mut [f32]) -> Result<()> {
        let mut bytes = vec![0; self.kind.bytes(rows.len() * self.k)];
        self.read_bytes(rows, &mut bytes)?;
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

/// Reads rows of several stacked matrices, each given with its number of rows.
pub(crate) fn stacked(parts: &[(Matrix<'_>, usize)], rows: Range<usize>, to: &mut [f32]) -> Result<()> {
    each_part(parts, rows, to, Matrix::read)
}

/// As [`stacked`], the blocks as they are stored. All rows have the same type.
pub(super) fn stacked_blocks(
    parts: &[(Matrix<'_>, usize)],
    rows: Range<usize>,
    to: &mut [u8],
) -> Result<()> {
    each_part(parts, rows, to, Matrix::blocks)
}

/// The type of some rows' blocks, if all of them have the same type.
pub(super) fn stacked_quant(parts: &[(Matrix<'_>, usize)], rows: &Range<usize>) -> Option<Quant> {
    let mut above = 0;
    let mut quants = parts.iter().filter_map(|(part, n)| {
        let own = rows.start.max(above)..rows.end.min(above + n);
        above += n;
        (!own.is_empty()).then(|| part.quant())
    });
    let first = quants.next()??;
    quants.all(|quant| quant == Some(first)).then_some(first)
}

fn each_part<'a, T>(
    parts: &[(Matrix<'a>, usize)],
    rows: Range<usize>,
    to: &mut [T],
    read: impl Fn(&Matrix<'a>, Range<usize>, &mut [T]) -> Result<()>,
) -> Result<()> {
    let width = to.len() / rows.len().max(1);
    let mut above = 0;
    for (part, n) in parts {
        let own = rows.start.max(above)..rows.end.min(above + n);
        if !own.is_empty() {
            let to = &mut to[(own.start - rows.start) * width..(own.end - rows.start) * width];
            read(part, own.start - above..own.end - above, to)?;
        }
        above += n;
    }
    Ok(())
}

/// The index, in the order of interleaved rotation, of the row that has index `row` in rotation by halves.
pub(super) fn deinterleaved(row: usize, dim: usize) -> usize {
    let (head, half, pair) = (row / dim, row % dim / (dim / 2), row % (dim / 2));
    head * dim + 2 * pair + half
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
