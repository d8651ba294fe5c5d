//! The forward in candle's own operations, which run on CUDA, on Metal and, for comparison, on the CPU.
//!
//! Linear layers read inputs that are rounded as their weights are kept, as the kernels of the CPU do; all that lies
//! between them (norms, rotations, attention, keys and values) is f32. Rows come in and go out on the CPU: a step's
//! hidden states and logits are needed there anyway.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;

use candle_core::{D, DType, Device, Tensor, WithDType};
use half::bf16;

use super::decoder::Segment;
use super::parts::{Normed, Parts, Stored};
use super::{Config, QkNorm};
use crate::cache::{Kept, Memory, Prefix, slots};
use crate::error::{Error, Result};
use crate::kernel::{self, Activation, Dtype, Layout, share};
use crate::place::Place;

/// Weights on a device.
pub(super) struct OnDevice {
    device: Device,
    embedding: Linear,
    /// Positions that were learned, `[context, d]`.
    positions: Option<Tensor>,
    layers: Vec<Layer>,
    norm: Norm,
    /// `None`: tied to the embedding.
    head: Option<Linear>,
}

struct Layer {
    /// Rows of queries, keys and values.
    qkv: Linear,
    qk_norm: Option<[Norm; 2]>,
    output: Linear,
    /// Rows of the gate, if there is one, and of what it opens.
    up: Linear,
    down: Linear,
}

/// A linear layer and the norms around it.
struct Linear {
    before: Option<Norm>,
    /// `[n, k]`
    weight: Tensor,
    /// What its inputs are rounded to.
    rounded: DType,
    bias: Option<Tensor>,
    after: Option<Norm>,
}

struct Norm {
    weight: Tensor,
    /// `None`: RMSNorm, which does not take the mean away.
    bias: Option<Tensor>,
    eps: f64,
}

/// Rows of a forward that belong to one text.
struct Run {
    rows: Range<usize>,
    /// Tokens before them.
    past: usize,
    /// Keys and values of those, where they are not among the run's own.
    before: Option<Tensor>,
    /// Where the rows' own keys and values go, and from which slot on.
    own: Tensor,
    from: usize,
    /// By the window of a layer.
    views: HashMap<Option<usize>, View>,
}

/// What the rows of a run see.
struct View {
    /// The first token that any sees.
    start: usize,
    /// `[rows, keys]`: 0 where a row sees a key, else -∞. `None`: all see all.
    mask: Option<Tensor>,
}

/// One rotation's cosines and sines, `[rows, 1, half]`.
type Angles = (Tensor, Tensor);

impl OnDevice {
    /// Reads all weights; `head`: whether the output layer is not the embedding table.
    ///
    /// # Errors
    /// As [`super::Model::load_on`].
    pub(super) fn load(
        parts: &Parts<'_>,
        head: bool,
        dtype: Dtype,
        place: Place,
        device: Device,
    ) -> Result<Self> {
        let rounded = match dtype {
            Dtype::F32 => DType::F32,
            Dtype::Bf16 => DType::BF16,
            Dtype::Int8 => {
                let what = "weights are kept there as bf16 or f32; int8 is for the device cpu".into();
                return Err(Error::Place { place, what });
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

    /// Numbers that make up the model, but for its score head.
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

    /// Bytes of the embedding table, of all layers, and of the output layer if it is another.
    pub(super) fn bytes(&self) -> (usize, usize, Option<usize>) {
        let layer =
            |l: &Layer| [&l.qkv, &l.output, &l.up, &l.down].map(Linear::bytes).iter().sum::<usize>();
        let layers = self.layers.iter().map(layer).sum();
        (self.embedding.bytes(), layers, self.head.as_ref().map(Linear::bytes))
    }

    pub(super) fn empty(&self, config: &Config) -> Prefix {
        Prefix::on_device(layout(config), &self.device)
    }

    /// Hidden states after the final norm of the tokens of all segments, `[rows, d]`, and what each segment keeps
    /// beside its prefix.
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
            let attended = attend(config, layer, i, &qkv, &angles, &runs)?; // [rows, heads * dim]
            hidden = (hidden + layer.output.apply(&attended)?)?;
            let inner = open(config, &layer.up.apply(&hidden)?)?; // [rows, intermediate]
            hidden = (hidden + layer.down.apply(&inner)?)?;
        }
        let hidden = self.norm.apply(&hidden)?.to_device(&Device::Cpu)?;
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
        Ok(capped(logits, config.logit_cap)?.to_device(&Device::Cpu)?)
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

    /// The angles of all rows, of each rotation.
    fn angles(&self, config: &Config, places: &[u32]) -> Result<Vec<Angles>> {
        let of = |rotary: &kernel::Rotary| -> Result<Angles> {
            let (rows, half) = (places.len(), rotary.frequencies.len());
            let angles = places.iter().flat_map(|at| rotary.frequencies.iter().map(|f| *at as f32 * f));
            let (cos, sin): (Vec<f32>, Vec<f32>) =
                angles.map(|angle| (angle.cos() * rotary.factor, angle.sin() * rotary.factor)).unzip();
            let put = |numbers| Tensor::from_vec(numbers, (rows, 1, half), &self.device);
            Ok((put(cos)?, put(sin)?))
        };
        config.rotary.iter().map(of).collect()
    }

    /// Which rows belong to which segment, where their keys and values go, and what they see.
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
                if !views.contains_key(&sight.window) {
                    let view = View::new(past, count, reads, sight.window, &self.device)?;
                    views.insert(sight.window, view);
                }
            }
            start += count;
            Ok(Run { rows: start - count..start, past, before, own, from, views })
        };
        segments.iter_mut().map(run).collect()
    }
}

impl View {
    /// Of `count` tokens behind `past` others: each behind the one before it if it `reads`, else each alone.
    fn new(
        past: usize,
        count: usize,
        reads: bool,
        window: Option<usize>,
        device: &Device,
    ) -> Result<Self> {
        let first = |place: usize| window.map_or(0, |window| (place + 1).saturating_sub(window));
        let start = first(past);
        if count == 1 {
            return Ok(Self { start, mask: None });
        }
        let sees = |row: usize, key: usize| match reads {
            true => key <= past + row && key >= first(past + row),
            false => key < past || key == past + row,
        };
        let keys = start..past + count;
        let mask = (0..count).flat_map(|row| {
            keys.clone().map(move |key| if sees(row, key) { 0f32 } else { f32::NEG_INFINITY })
        });
        let mask = Tensor::from_vec(mask.collect::<Vec<_>>(), (count, keys.len()), device)?;
        Ok(Self { start, mask: Some(mask) })
    }
}

/// Attention of one layer: q, k and v of all rows side by side to `[rows, heads * dim]`. Keys and values go where
/// the runs say.
fn attend(
    config: &Config,
    layer: &Layer,
    number: usize,
    qkv: &Tensor,
    angles: &[Angles],
    runs: &[Run],
) -> Result<Tensor> {
    let Config { heads, kv_heads, head_dim: dim, .. } = *config;
    let (rows, sight) = (qkv.dim(0)?, config.sight[number]);
    let part = |first: usize, count: usize| qkv.narrow(1, first * dim, count * dim)?.contiguous();
    let (mut q, mut k, v) = (part(0, heads)?, part(heads, kv_heads)?, part(heads + kv_heads, kv_heads)?);
    if let Some([q_norm, k_norm]) = &layer.qk_norm {
        let over = |heads: usize| match config.qk_norm {
            Some(QkNorm::All) => (rows, heads * dim),
            _ => (rows * heads, dim),
        };
        q = q_norm.apply(&q.reshape(over(heads))?)?;
        k = k_norm.apply(&k.reshape(over(kv_heads))?)?;
    }
    let (q, k) = (q.reshape((rows, heads, dim))?, k.reshape((rows, kv_heads, dim))?);
    let angles = sight.rotary.map(|rotary| &angles[rotary]);
    let q = (rotate(q, angles)? * f64::from(config.attention_scale))?;
    let kv = Tensor::cat(&[rotate(k, angles)?, v.reshape((rows, kv_heads, dim))?], 1)?;
    let (q, kv) = (q.transpose(0, 1)?.contiguous()?, kv.transpose(0, 1)?.contiguous()?);
    let mut attended = Vec::with_capacity(runs.len());
    for run in runs {
        let Run { rows, past, before, own, from, views } = run;
        let of_run = |all: &Tensor| all.narrow(1, rows.start, rows.len())?.contiguous();
        // [2 kv_heads, slots, dim]
        let in_layer = |slots: &Tensor| slots.narrow(0, number * 2 * kv_heads, 2 * kv_heads);
        let own = in_layer(own)?;
        own.slice_set(&of_run(&kv)?, 1, *from)?;
        let View { start, mask } = &views[&sight.window];
        let seen = match before {
            // The rows' keys stand behind those of the text.
            _ if from == past => vec![own.narrow(1, *start, past - start + rows.len())?],
            Some(before) if past > start => {
                vec![in_layer(before)?.narrow(1, *start, past - start)?, own]
            }
            _ => vec![own],
        };
        attended.push(look_back(config, &of_run(&q)?, &seen, mask.as_ref())?);
    }
    let attended = Tensor::cat(&attended, 1)?; // [heads, rows, dim]
    Ok(attended.transpose(0, 1)?.contiguous()?.reshape((rows, heads * dim))?)
}

/// Attention of queries `[heads, rows, dim]` over keys and values `[2 kv_heads, tokens, dim]` of some stretches, one
/// behind the other; nothing of them is copied.
fn look_back(config: &Config, q: &Tensor, seen: &[Tensor], mask: Option<&Tensor>) -> Result<Tensor> {
    let (kv_heads, (heads, rows, dim)) = (config.kv_heads, q.dims3()?);
    // All heads of a group are rows of one product.
    let q = q.reshape((kv_heads, heads / kv_heads * rows, dim))?;
    let scores = seen.iter().map(|kv| q.matmul(&kv.narrow(0, 0, kv_heads)?.t()?));
    let scores = Tensor::cat(&scores.collect::<candle_core::Result<Vec<_>>>()?, 2)?;
    let scores = capped(scores, config.attention_cap)?;
    let scores = match mask {
        Some(mask) => scores.reshape((heads, rows, mask.dim(1)?))?.broadcast_add(mask)?,
        None => scores,
    };
    let shares = softmax(&scores)?.reshape((kv_heads, heads / kv_heads * rows, ()))?;
    let (mut sum, mut from) = (None, 0);
    for kv in seen {
        let shares = shares.narrow(2, from, kv.dim(1)?)?.contiguous()?;
        let part = shares.matmul(&kv.narrow(0, kv_heads, kv_heads)?)?;
        from += kv.dim(1)?;
        sum = Some(match sum {
            Some(sum) => (sum + part)?,
            None => part,
        });
    }
    sum.map_or(Err(Error::NoTokens), |sum| Ok(sum.reshape((heads, rows, dim))?))
}

/// Turns rows of heads `[rows, heads, dim]` to their positions.
fn rotate(x: Tensor, angles: Option<&Angles>) -> Result<Tensor> {
    let Some((cos, sin)) = angles else { return Ok(x) };
    let (half, dim) = (cos.dim(D::Minus1)?, x.dim(D::Minus1)?);
    let (a, b) = (x.narrow(2, 0, half)?.contiguous()?, x.narrow(2, half, half)?.contiguous()?);
    let first = (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?;
    let second = (b.broadcast_mul(cos)? + a.broadcast_mul(sin)?)?;
    let still = x.narrow(2, 2 * half, dim - 2 * half)?;
    let parts = [first, second, still];
    Ok(Tensor::cat(&parts[..if dim == 2 * half { 2 } else { 3 }], 2)?)
}

/// What lies between the two linear layers of a feed-forward part: f(gate) times up, or f(up).
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

/// `c tanh(x / c)`, if there is a cap `c`.
fn capped(x: Tensor, cap: Option<f32>) -> Result<Tensor> {
    let Some(cap) = cap.map(f64::from) else { return Ok(x) };
    Ok(((x / cap)?.tanh()? * cap)?)
}

/// Over the last dimension.
fn softmax(x: &Tensor) -> Result<Tensor> {
    let masses = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
    Ok(masses.broadcast_div(&masses.sum_keepdim(D::Minus1)?)?)
}

impl Linear {
    /// `x Wᵀ + b` between its norms: x `[rows, k]` to `[rows, n]`, f32.
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let normed = self.before.as_ref().map(|norm| norm.apply(x)).transpose()?;
        let x = normed.as_ref().unwrap_or(x);
        let x = x.to_dtype(self.rounded)?.to_dtype(self.weight.dtype())?;
        let y = x.matmul(&self.weight.t()?)?.to_dtype(DType::F32)?;
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        self.after.as_ref().map_or(Ok(y.clone()), |norm| norm.apply(&y))
    }

    fn parameters(&self) -> usize {
        let norms: usize = self.before.iter().chain(&self.after).map(Norm::parameters).sum();
        norms + self.weight.elem_count() + self.bias.as_ref().map_or(0, Tensor::elem_count)
    }

    fn bytes(&self) -> usize {
        self.weight.elem_count() * self.weight.dtype().size_in_bytes()
    }
}

impl Norm {
    /// Norms rows of its width.
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let x = match &self.bias {
            Some(_) => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
            None => x.clone(),
        };
        let size = (x.sqr()?.mean_keepdim(D::Minus1)? + self.eps)?.sqrt()?;
        let x = x.broadcast_div(&size)?.broadcast_mul(&self.weight)?;
        match &self.bias {
            Some(bias) => Ok(x.broadcast_add(bias)?),
            None => Ok(x),
        }
    }

    fn parameters(&self) -> usize {
        self.weight.elem_count() + self.bias.as_ref().map_or(0, Tensor::elem_count)
    }
}

/// Brings weights to a device.
struct Loader<'a> {
    device: &'a Device,
    rounded: DType,
}

impl Loader<'_> {
    fn linear(&self, parts: Normed<'_>) -> Result<Linear> {
        let norm = |norm: Option<kernel::Norm>| norm.map(|norm| self.norm(&norm)).transpose();
        let bias = parts.linear.bias.as_deref().map(|bias| self.list(bias)).transpose()?;
        let (before, after) = (norm(parts.before)?, norm(parts.after)?);
        Ok(Linear { before, weight: self.weight(&parts.linear)?, rounded: self.rounded, bias, after })
    }

    fn norm(&self, norm: &kernel::Norm) -> Result<Norm> {
        let (weight, bias, eps) = norm.numbers();
        let bias = bias.map(|bias| self.list(bias)).transpose()?;
        Ok(Norm { weight: self.list(weight)?, bias, eps: eps.into() })
    }

    fn list(&self, numbers: &[f32]) -> Result<Tensor> {
        Ok(Tensor::from_slice(numbers, numbers.len(), self.device)?)
    }

    fn weight(&self, stored: &Stored<'_>) -> Result<Tensor> {
        let shape = (stored.outputs(), stored.inputs);
        Ok(match (self.rounded, self.device) {
            // On the CPU candle multiplies no bf16: what is rounded to it is kept as f32.
            (DType::BF16, Device::Cpu) => {
                let weight = read(stored, |x| bf16::from_f32(x).to_f32())?;
                Tensor::from_vec(weight, shape, self.device)?
            }
            (DType::BF16, _) => Tensor::from_vec(read(stored, bf16::from_f32)?, shape, self.device)?,
            _ => Tensor::from_vec(read(stored, |x| x)?, shape, self.device)?,
        })
    }
}

/// Numbers read at once by a thread.
const BLOCK: usize = 1 << 18;

/// All numbers of a matrix, on several threads.
fn read<T: WithDType>(stored: &Stored<'_>, round: impl Fn(f32) -> T + Sync) -> Result<Vec<T>> {
    let (n, k) = (stored.outputs(), stored.inputs);
    let block = BLOCK.div_ceil(k);
    let mut all = vec![T::zero(); n * k];
    let failed = Mutex::new(None);
    share(all.chunks_mut(block * k).enumerate(), |(i, to)| {
        let mut rows = vec![0f32; to.len()];
        match stored.read(i * block..i * block + to.len() / k, &mut rows) {
            Ok(()) => to.iter_mut().zip(rows).for_each(|(to, x)| *to = round(x)),
            Err(error) => *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(error),
        }
    });
    failed.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(all), Err)
}

/// The shape of the keys and values.
fn layout(config: &Config) -> Layout {
    let Config { layers, kv_heads, head_dim: dim, .. } = *config;
    Layout { layers, kv_heads, dim }
}
