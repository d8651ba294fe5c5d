//! The forward pass by this crate's kernels, on the CPU, in f32 with weights of any [`Dtype`].

use candle_core::{Device, Tensor};

use super::blocks::{Blocks, is_sensitive};
use super::config::Config;
use super::parts::{Normed, Parts, Stored};
use super::segment::Segment;
use crate::cache::{Kept, Memory, Prefix};
use crate::error::{Error, Result};
use crate::kernel::{
    Activation, Attention, Dtype, Keys, KvDtype, Layout, Norm, Packed, Run, Variant, attend, tanh_all,
};

/// The weights, packed for the kernels.
pub(super) struct Kernels {
    embedding: Packed,
    /// Learned position embeddings, `[context][d]`.
    positions: Option<Vec<f32>>,
    layers: Vec<Layer>,
    norm: Norm,
    /// `None` if the output layer is the embedding table.
    head: Option<Packed>,
    attention: Attention,
}

struct Layer {
    /// Rows of queries, keys and values, with the norm before them if there is one.
    qkv: Packed,
    qk_norm: Option<[Norm; 2]>,
    output: Residual,
    /// f(gate) times up, or f(up), with the norm before it if there is one.
    up: Packed,
    down: Residual,
}

/// A linear layer whose outputs are added to the hidden states.
struct Residual {
    linear: Packed,
    /// Applied to the outputs before they are added.
    norm: Option<Norm>,
}

impl Residual {
    fn load(parts: Normed<'_>, dtype: Dtype) -> Result<Self> {
        Ok(Self { linear: packed(parts.linear, dtype)?, norm: parts.after })
    }

    /// Adds the layer's outputs for x `[m, k]` to `hidden` `[m, d]`.
    fn add(&self, x: &[f32], hidden: &mut [f32], scratch: &mut Vec<f32>) {
        let Some(norm) = &self.norm else { return self.linear.apply(x, hidden, true) };
        scratch.resize(hidden.len(), 0.0);
        self.linear.apply(x, scratch, false);
        norm.apply(scratch);
        hidden.iter_mut().zip(scratch).for_each(|(hidden, x)| *hidden += *x);
    }
}

impl Layer {
    /// Normalises queries and keys in rows `[(heads + 2 kv_heads) dim]`.
    fn norm_queries_and_keys(&self, attention: &Attention, qkv: &mut [f32]) {
        let Some([q_norm, k_norm]) = &self.qk_norm else { return };
        let (q, kv) =
            (attention.heads * attention.layout.dim, attention.layout.kv_heads * attention.layout.dim);
        for row in qkv.chunks_exact_mut(q + 2 * kv) {
            q_norm.apply(&mut row[..q]);
            k_norm.apply(&mut row[q..q + kv]);
        }
    }
}

impl Kernels {
    /// Reads all weights. `head` says whether the output layer has weights of its own.
    pub(super) fn load(parts: &Parts<'_>, head: bool, dtype: Dtype) -> Result<Self> {
        let config = parts.config;
        let Config { layers, heads, kv_heads, head_dim: dim, .. } = *config;
        let table = |stored: Stored<'_>| {
            let dtype = of_sensitive(dtype, &stored);
            packed(stored, dtype)
        };
        Ok(Self {
            embedding: table(parts.embedding()?)?,
            positions: parts.positions()?,
            head: head.then(|| table(parts.head()?)).transpose()?,
            layers: (0..layers).map(|i| Layer::load(parts, i, dtype)).collect::<Result<_>>()?,
            norm: parts.norm("output_norm", config.hidden)?,
            attention: Attention {
                heads,
                layout: Layout { layers, kv_heads, dim, kv: KvDtype::default() },
                scale: config.attention_scale,
                cap: config.attention_cap,
                rotary: config.rotary.clone(),
                sight: config.sight.clone(),
            },
        })
    }

    /// Stores keys and values of prefixes from now on in this format.
    pub(super) fn set_kv_dtype(&mut self, kv: KvDtype) {
        self.attention.layout.kv = kv;
    }

    /// Number of parameters without the score head.
    pub(super) fn parameters(&self) -> usize {
        let norm = |norm: &Option<Norm>| norm.as_ref().map_or(0, Norm::parameters);
        let residual = |r: &Residual| r.linear.parameters() + norm(&r.norm);
        let layer = |l: &Layer| {
            let qk: usize = l.qk_norm.iter().flatten().map(Norm::parameters).sum();
            l.qkv.parameters() + qk + residual(&l.output) + l.up.parameters() + residual(&l.down)
        };
        let positions = self.positions.as_ref().map_or(0, Vec::len);
        let head = self.head.as_ref().map_or(0, Packed::parameters);
        let layers: usize = self.layers.iter().map(layer).sum();
        self.embedding.parameters() + positions + layers + self.norm.parameters() + head
    }

    /// Sizes in bytes of the embedding table, of all layers, and of the output layer if it has weights of its own.
    pub(super) fn bytes(&self) -> (usize, usize, Option<usize>) {
        let layer =
            |l: &Layer| l.qkv.bytes() + l.output.linear.bytes() + l.up.bytes() + l.down.linear.bytes();
        let layers = self.layers.iter().map(layer).sum();
        (self.embedding.bytes(), layers, self.head.as_ref().map(Packed::bytes))
    }

    pub(super) fn empty(&self) -> Prefix {
        Prefix::in_pages(self.attention.layout)
    }

    /// Hidden states `[rows, d]` of the tokens of all segments after the final norm, and the keys and values of each
    /// segment's candidates.
    pub(super) fn forward(
        &self,
        config: &Config,
        segments: &mut [Segment<'_>],
    ) -> Result<(Tensor, Vec<Kept>)> {
        let mut kept: Vec<Vec<f32>> = segments.iter().map(|segment| self.beside(segment)).collect();
        let mut hidden = self.embed(config, segments); // [rows, d]
        let mut runs = runs(segments, &mut kept, self.attention.layout.kv)?;
        let angles = self.attention.angles(&runs);
        let (d, rows) = (config.hidden, hidden.len() / config.hidden);
        let mut qkv = vec![0f32; rows * self.attention.width()];
        let mut attended = vec![0f32; rows * self.attention.heads * self.attention.layout.dim];
        let (mut inner, mut scratch) = (vec![0f32; rows * config.intermediate], Vec::new());
        for (i, layer) in self.layers.iter().enumerate() {
            layer.qkv.apply(&hidden, &mut qkv, false);
            layer.norm_queries_and_keys(&self.attention, &mut qkv);
            attend(&self.attention, i, &qkv, &angles, &mut runs, &mut attended);
            layer.output.add(&attended, &mut hidden, &mut scratch);
            layer.up.apply(&hidden, &mut inner, false);
            layer.down.add(&inner, &mut hidden, &mut scratch);
        }
        self.norm.apply(&mut hidden);
        let hidden = Tensor::from_vec(hidden, (rows, d), &Device::Cpu)?;
        Ok((hidden, kept.into_iter().map(Kept::Rows).collect()))
    }

    /// Logits `[n, vocabulary]` of hidden states `[n, d]`.
    pub(super) fn logits(&self, config: &Config, hidden: &Tensor) -> Result<Tensor> {
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        let logits = head.forward(hidden)?;
        let Some(cap) = config.logit_cap else { return Ok(logits) };
        let mut capped: Vec<f32> = logits.flatten_all()?.to_vec1()?;
        capped.iter_mut().for_each(|x| *x /= cap);
        tanh_all(&mut capped);
        capped.iter_mut().for_each(|x| *x *= cap);
        Ok(Tensor::from_vec(capped, logits.shape(), &Device::Cpu)?)
    }

    /// A buffer for the keys and values of a segment's candidates.
    fn beside(&self, segment: &Segment<'_>) -> Vec<f32> {
        let Layout { layers, .. } = self.attention.layout;
        match segment {
            Segment::Read(..) => Vec::new(),
            Segment::Branch(_, tokens) => {
                vec![0.0; layers * tokens.len() * self.attention.layout.token()]
            }
        }
    }

    fn embed(&self, config: &Config, segments: &[Segment<'_>]) -> Vec<f32> {
        let d = config.hidden;
        let mut rows =
            vec![0f32; segments.iter().map(|segment| segment.tokens().len()).sum::<usize>() * d];
        let tokens = segments.iter().flat_map(Segment::placed);
        for (row, (token, position)) in rows.chunks_exact_mut(d).zip(tokens) {
            self.embedding.row(token as usize, row);
            row.iter_mut().for_each(|x| *x *= config.embedding_scale);
            if let Some(positions) = &self.positions {
                row.iter_mut().zip(&positions[position * d..]).for_each(|(x, place)| *x += place);
            }
        }
        rows
    }
}

impl Layer {
    fn load(parts: &Parts<'_>, i: usize, dtype: Dtype) -> Result<Self> {
        let layer = parts.layer(i)?;
        let Config { gated, activation, .. } = *parts.config;
        let up = match gated {
            true => gate(&layer.up.linear, dtype, activation)?,
            false => packed(layer.up.linear, dtype)?.then(activation),
        };
        let down = match is_sensitive(i, parts.config.layers) {
            true => of_sensitive(dtype, &layer.down.linear),
            false => dtype,
        };
        Ok(Self {
            qkv: behind(packed(layer.qkv.linear, dtype)?, layer.qkv.before),
            qk_norm: layer.qk_norm,
            output: Residual::load(layer.output, dtype)?,
            up: behind(up, layer.up.before),
            down: Residual::load(layer.down, down)?,
        })
    }
}

/// The dtype of a matrix whose rounding costs the most: embeddings, output layer and some down projections.
fn of_sensitive(dtype: Dtype, stored: &Stored<'_>) -> Dtype {
    if dtype == Dtype::Q4 && !stored.is_quantised() { Dtype::Int8 } else { dtype }
}

fn packed(stored: Stored<'_>, dtype: Dtype) -> Result<Packed> {
    let (n, k) = (stored.outputs(), stored.inputs);
    let layer = match Blocks::of(&stored, dtype) {
        Some(blocks) => Packed::stored(n, k, Variant::detect(), &blocks)?,
        None => Packed::new(n, k, dtype, |rows, to: &mut [f32]| stored.read(rows, to))?,
    };
    Ok(match stored.bias {
        Some(bias) => layer.with_bias(bias),
        None => layer,
    })
}

/// A gated layer, stored as the rows of the gate and then those of the up projection.
fn gate(stored: &Stored<'_>, dtype: Dtype, activation: Activation) -> Result<Packed> {
    let (n, k) = (stored.outputs() / 2, stored.inputs);
    if let Some(blocks) = Blocks::of(stored, dtype) {
        return Packed::stored_gated(n, k, activation, &blocks);
    }
    Packed::gated(
        n,
        k,
        dtype,
        activation,
        |rows, to: &mut [f32]| stored.read(rows, to),
        |rows, to: &mut [f32]| stored.read(rows.start + n..rows.end + n, to),
    )
}

fn behind(layer: Packed, norm: Option<Norm>) -> Packed {
    match norm {
        Some(norm) => layer.after_norm(norm),
        None => layer,
    }
}

/// The rows of each segment, and the storage of its keys and values.
fn runs<'a>(
    segments: &'a mut [Segment<'_>],
    kept: &'a mut [Vec<f32>],
    kv: KvDtype,
) -> Result<Vec<Run<'a>>> {
    let mut start = 0;
    let run = |(segment, kept): (&'a mut Segment<'_>, &'a mut Vec<f32>)| {
        let (past, count) = (segment.prefix().len(), segment.tokens().len());
        let keys = match segment {
            Segment::Read(prefix, tokens) => match prefix.memory_mut() {
                (len, Memory::Pages(pages)) if pages.kv() == kv => {
                    Keys::Read(pages.room(len, tokens.len()))
                }
                _ => return Err(Error::OtherDevice),
            },
            Segment::Branch(prefix, _) => match prefix.memory() {
                Memory::Pages(pages) if pages.kv() == kv => Keys::Branch(pages.as_slice(), kept),
                _ => return Err(Error::OtherDevice),
            },
        };
        start += count;
        Ok(Run { rows: start - count..start, past, keys })
    };
    segments.iter_mut().zip(kept).map(run).collect()
}
