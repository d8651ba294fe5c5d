//! The forward pass by candle's operations, which run on CUDA, on Metal and, for comparison, on the CPU.
//!
//! As in the CPU kernels, the inputs of linear layers are rounded to the dtype of the weights, and everything between
//! them (norms, rotations, attention, keys and values) is f32. Hidden states and logits are returned on the CPU, because
//! decoding needs them there.

mod attention;
mod linear;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use candle_core::{DType, Device as TensorDevice, Tensor};

use super::config::Config;
use super::parts::{Normed, Parts};
use super::segment::Segment;
use crate::cache::{Kept, Memory, Prefix, slots};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernel::{self, Activation, Dtype, KvDtype, Layout};
use attention::{Angles, Run, View, attend, capped};
use linear::{Linear, Loader, Norm};

/// The weights on a device.
pub(super) struct OnDevice {
    device: TensorDevice,
    embedding: Linear,
    /// Learned position embeddings, `[context, d]`.
    positions: Option<Tensor>,
    layers: Vec<Layer>,
    norm: Norm,
    /// `None` if the output layer is the embedding table.
    head: Option<Linear>,
}

struct Layer {
    /// Rows of queries, keys and values.
    qkv: Linear,
    qk_norm: Option<[Norm; 2]>,
    output: Linear,
    /// Rows of the gate, if there is one, then of the up projection.
    up: Linear,
    down: Linear,
}

impl OnDevice {
    /// Reads all weights. `head` says whether the output layer has weights of its own.
    ///
    /// # Errors
    /// As [`super::Model::load_on`].
    pub(super) fn load(
        parts: &Parts<'_>,
        head: bool,
        dtype: Dtype,
        place: Device,
        device: TensorDevice,
    ) -> Result<Self> {
        let rounded = match dtype {
            Dtype::F32 => DType::F32,
            Dtype::Bf16 | Dtype::Native => DType::BF16,
            Dtype::Int8 | Dtype::Q4 => {
                let what =
                    format!("weights in {dtype} are for the device cpu: give the dtype bf16 or f32");
                return Err(Error::Device { place: place.to_string(), what });
            }
        };
        let load = Loader { device: &device, rounded };
        let bare = |linear| load.linear(Normed { before: None, linear, after: None });
        let Config { context, hidden, layers, .. } = *parts.config;
        let layer = |i: usize| -> Result<Layer> {
            let layer = parts.layer(i)?;
            let qk_norm = match layer.qk_norm {
                Some([q, k]) => Some([load.norm(&q)?, load.norm(&k)?]),
                None => None,
            };
            let (qkv, output) = (load.linear(layer.qkv)?, load.linear(layer.output)?);
            Ok(Layer {
                qkv,
                qk_norm,
                output,
                up: load.linear(layer.up)?,
                down: load.linear(layer.down)?,
            })
        };
        let positions = parts.positions()?;
        let positions = positions.map(|all| Tensor::from_vec(all, (context, hidden), &device));
        Ok(Self {
            embedding: bare(parts.embedding()?)?,
            positions: positions.transpose()?,
            head: head.then(|| bare(parts.head()?)).transpose()?,
            layers: (0..layers).map(layer).collect::<Result<_>>()?,
            norm: load.norm(&parts.norm("output_norm", hidden)?)?,
            device,
        })
    }

    /// Number of parameters without the score head.
    pub(super) fn parameters(&self) -> usize {
        let layer = |l: &Layer| {
            let qk: usize = l.qk_norm.iter().flatten().map(Norm::parameters).sum();
            qk + [&l.qkv, &l.output, &l.up, &l.down].map(Linear::parameters).iter().sum::<usize>()
        };
        let positions = self.positions.as_ref().map_or(0, Tensor::elem_count);
        let head = self.head.as_ref().map_or(0, Linear::parameters);
        let layers: usize = self.layers.iter().map(layer).sum();
        self.embedding.parameters() + positions + layers + self.norm.parameters() + head
    }

    /// Sizes in bytes of the embedding table, of all layers, and of the output layer if it has weights of its own.
    pub(super) fn bytes(&self) -> (usize, usize, Option<usize>) {
        let layer =
            |l: &Layer| [&l.qkv, &l.output, &l.up, &l.down].map(Linear::bytes).iter().sum::<usize>();
        let layers = self.layers.iter().map(layer).sum();
        (self.embedding.bytes(), layers, self.head.as_ref().map(Linear::bytes))
    }

    pub(super) fn empty(&self, config: &Config) -> Prefix {
        Prefix::on_device(layout(config), &self.device)
    }

    /// Hidden states `[rows, d]` of the tokens of all segments after the final norm, and the keys and values of each
    /// segment's candidates.
    pub(super) fn forward(
        &self,
        config: &Config,
        segments: &mut [Segment<'_>],
    ) -> Result<(Tensor, Vec<Kept>)> {
        let (tokens, places): (Vec<u32>, Vec<u32>) =
            segments.iter().flat_map(Segment::placed).map(|(token, at)| (token, at as u32)).unzip();
        let runs = self.runs(config, segments)?;
        let angles = self.angles(config, &places)?;
        let mut hidden = self.embed(config, tokens, places)?; // [rows, d]
        for (i, layer) in self.layers.iter().enumerate() {
            let qkv = layer.qkv.apply(&hidden)?; // [rows, (heads + 2 kv_heads) dim]
            let attended = attend(config, layer.qk_norm.as_ref(), i, &qkv, &angles, &runs)?; // [rows, heads * dim]
            hidden = (hidden + layer.output.apply(&attended)?)?;
            let inner = open(config, &layer.up.apply(&hidden)?)?; // [rows, intermediate]
            hidden = (hidden + layer.down.apply(&inner)?)?;
        }
        let hidden = self.norm.apply(&hidden)?.to_device(&TensorDevice::Cpu)?;
        let beside = |(run, segment): (Run, &Segment<'_>)| match segment {
            Segment::Read(..) => Kept::Slots(None),
            Segment::Branch(..) => Kept::Slots(Some(run.own)),
        };
        Ok((hidden, runs.into_iter().zip(&*segments).map(beside).collect()))
    }

    /// Logits `[n, vocabulary]` of hidden states `[n, d]`.
    pub(super) fn logits(&self, config: &Config, hidden: &Tensor) -> Result<Tensor> {
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        let logits = head.apply(&hidden.to_device(&self.device)?)?;
        Ok(capped(logits, config.logit_cap)?.to_device(&TensorDevice::Cpu)?)
    }

    fn embed(&self, config: &Config, tokens: Vec<u32>, places: Vec<u32>) -> Result<Tensor> {
        let list = |numbers: Vec<u32>| Tensor::from_vec(numbers.clone(), numbers.len(), &self.device);
        let rows = self.embedding.weight.index_select(&list(tokens)?, 0)?.to_dtype(DType::F32)?;
        let rows = (rows * f64::from(config.embedding_scale))?;
        match &self.positions {
            Some(positions) => Ok((rows + positions.index_select(&list(places)?, 0)?)?),
            None => Ok(rows),
        }
    }

    /// The angles of all rows, for each rotation.
    fn angles(&self, config: &Config, places: &[u32]) -> Result<Vec<Angles>> {
        let of = |rotary: &kernel::Rotary| -> Result<Angles> {
            let (rows, half) = (places.len(), rotary.frequencies.len());
            let kernel::Angles { cos, sin, .. } = rotary.angles(places.iter().map(|at| *at as usize));
            let put = |numbers| Tensor::from_vec(numbers, (rows, 1, half), &self.device);
            Ok((put(cos)?, put(sin)?))
        };
        config.rotary.iter().map(of).collect()
    }

    /// The rows of each segment, the storage of its keys and values, and which keys each row sees.
    fn runs(&self, config: &Config, segments: &mut [Segment<'_>]) -> Result<Vec<Run>> {
        let mut start = 0;
        let run = |segment: &mut Segment<'_>| -> Result<Run> {
            let (past, count) = (segment.prefix().len(), segment.tokens().len());
            let reads = matches!(segment, Segment::Read(..));
            let (before, own, from) = match segment {
                Segment::Read(prefix, tokens) => match prefix.memory_mut() {
                    (len, Memory::Slots(slots)) => (None, slots.room(len, tokens.len())?, len),
                    (_, Memory::Pages(_)) => return Err(Error::OtherDevice),
                },
                Segment::Branch(prefix, _) => match prefix.memory() {
                    Memory::Slots(before) => {
                        (before.tensor(), slots(layout(config), count, &self.device)?, 0)
                    }
                    Memory::Pages(_) => return Err(Error::OtherDevice),
                },
            };
            let mut views = HashMap::new();
            for sight in &config.sight {
                if let Entry::Vacant(place) = views.entry(sight.window) {
                    place.insert(View::new(past, count, reads, sight.window, &self.device)?);
                }
            }
            start += count;
            Ok(Run { rows: start - count..start, past, before, own, from, views })
        };
        segments.iter_mut().map(run).collect()
    }
}

/// The activation of a feed-forward block: f(gate) times up, or f(up).
fn open(config: &Config, x: &Tensor) -> Result<Tensor> {
    let f = |x: &Tensor| match config.activation {
        Activation::Silu => x.silu(),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::Relu => x.relu(),
    };
    if !config.gated {
        return Ok(f(x)?);
    }
    let n = config.intermediate;
    let (gate, up) = (x.narrow(1, 0, n)?.contiguous()?, x.narrow(1, n, n)?.contiguous()?);
    Ok((f(&gate)? * up)?)
}

/// The layout of keys and values.
fn layout(config: &Config) -> Layout {
    let Config { layers, kv_heads, head_dim: dim, .. } = *config;
    Layout { layers, kv_heads, dim, kv: KvDtype::F32 }
}
