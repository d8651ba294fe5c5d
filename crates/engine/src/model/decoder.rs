//! The decoder of the Llama family, read top to bottom.
//!
//! One forward takes a ragged list of segments, each some tokens behind a prefix of its own: all linear
//! layers run over the rows of all segments together, only attention looks at each by itself. It knows
//! nothing of rewards, sampling or text.

use std::path::Path;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::{rms_norm, silu, softmax_last_dim};
use candle_nn::rotary_emb::rope;

use super::config::{Architecture, Config};
use super::weights::Weights;
use crate::cache::{Branches, Prefix};
use crate::error::{Error, Result};
use crate::kernel::Packed;

/// A loaded model. Weights are kept once; activations are f32.
pub struct Model {
    config: Config,
    embedding: Packed,
    layers: Vec<Layer>,
    norm: Tensor,
    /// `None`: tied to the embedding.
    head: Option<Packed>,
    /// Score rows of a sequence classifier, `[labels, d]`.
    score: Option<Tensor>,
    /// Rotary cosines and sines, `[context, head_dim / 2]`.
    cos: Tensor,
    sin: Tensor,
}

struct Layer {
    input_norm: Tensor,
    /// Rows of q, k and v, one after the other.
    qkv: Packed,
    output: Packed,
    post_norm: Tensor,
    /// Rows of gate and up.
    gate_up: Packed,
    down: Packed,
}

/// How the tokens of a segment see each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One after the other, as text.
    Sequence,
    /// Each directly behind the prefix, as alternatives.
    Branches,
}

/// Tokens to run behind a prefix.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// What was read before.
    pub prefix: &'a Prefix,
    /// The tokens.
    pub tokens: &'a [u32],
    /// How they see each other.
    pub shape: Shape,
}

/// Longest piece of a text that is run at once: bounds the memory of attention scores.
const CHUNK: usize = 128;

/// Longest context for which rotary angles are kept.
const MOST_ANGLES: usize = 1 << 17;

impl Model {
    /// Loads an HF folder (`config.json` and safetensors) or one GGUF file.
    ///
    /// # Errors
    /// Files missing, cut short or malformed; another architecture; a tensor missing or misshapen.
    pub fn load(path: &Path, dtype: DType) -> Result<Self> {
        let (architecture, mut weights) = if path.is_dir() {
            (Config::from_hf(&path.join("config.json"))?, Weights::open_hf(path)?)
        } else {
            let weights = Weights::open_gguf(path)?;
            let Weights::Gguf { content, .. } = &weights else { unreachable!("just opened as GGUF") };
            (Architecture { config: Config::from_gguf(path, content)?, labels: None }, weights)
        };
        Self::assemble(architecture, &mut weights, dtype)
    }

    fn assemble(architecture: Architecture, weights: &mut Weights, dtype: DType) -> Result<Self> {
        let Architecture { config, labels } = architecture;
        let Config { hidden: d, intermediate, heads, kv_heads, head_dim: dim, vocabulary, .. } = config;
        let vector = |weights: &mut Weights, name: &str| -> Result<Tensor> {
            Ok(Tensor::from_vec(weights.take(name, &[d])?, d, &Device::Cpu)?)
        };
        let layer = |weights: &mut Weights, i: usize| -> Result<Layer> {
            let name = |part: &str| format!("model.layers.{i}.{part}.weight");
            let mut qkv = weights.take_rotary(&name("self_attn.q_proj"), heads, dim, d)?;
            qkv.extend(weights.take_rotary(&name("self_attn.k_proj"), kv_heads, dim, d)?);
            qkv.extend(weights.take(&name("self_attn.v_proj"), &[kv_heads * dim, d])?);
            let mut gate_up = weights.take(&name("mlp.gate_proj"), &[intermediate, d])?;
            gate_up.extend(weights.take(&name("mlp.up_proj"), &[intermediate, d])?);
            let output = weights.take(&name("self_attn.o_proj"), &[d, heads * dim])?;
            let down = weights.take(&name("mlp.down_proj"), &[d, intermediate])?;
            Ok(Layer {
                input_norm: vector(weights, &name("input_layernorm"))?,
                qkv: Packed::new(&qkv, (heads + 2 * kv_heads) * dim, d, dtype)?,
                output: Packed::new(&output, d, heads * dim, dtype)?,
                post_norm: vector(weights, &name("post_attention_layernorm"))?,
                gate_up: Packed::new(&gate_up, 2 * intermediate, d, dtype)?,
                down: Packed::new(&down, d, intermediate, dtype)?,
            })
        };
        let table = |weights: &mut Weights, name: &str| -> Result<Packed> {
            Ok(Packed::new(&weights.take(name, &[vocabulary, d])?, vocabulary, d, dtype)?)
        };
        let embedding = table(weights, "model.embed_tokens.weight")?;
        let head = match labels.is_none() && !config.tied {
            true => Some(table(weights, "lm_head.weight")?),
            false => None,
        };
        let score = match labels {
            Some(labels) => {
                let rows = weights.take("score.weight", &[labels, d])?;
                Some(Tensor::from_vec(rows, (labels, d), &Device::Cpu)?)
            }
            None => None,
        };
        let layers = (0..config.layers).map(|i| layer(weights, i)).collect::<Result<_>>()?;
        let norm = vector(weights, "model.norm.weight")?;
        let mut frequencies = config.frequencies();
        if weights.contains("rope_freqs.weight") {
            // Llama 3 in GGUF: each frequency is divided by the factor stored for it.
            let factors = weights.take("rope_freqs.weight", &[dim / 2])?;
            frequencies.iter_mut().zip(factors).for_each(|(f, factor)| *f /= factor);
        }
        let context = config.context.min(MOST_ANGLES);
        let positions = Tensor::arange(0u32, context as u32, &Device::Cpu)?.to_dtype(DType::F32)?;
        let frequencies = Tensor::from_vec(frequencies, (1, dim / 2), &Device::Cpu)?;
        let angles = positions.reshape((context, 1))?.matmul(&frequencies)?;
        let (cos, sin) = (angles.cos()?, angles.sin()?);
        Ok(Self { config, embedding, layers, norm, head, score, cos, sin })
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Most tokens that a prefix can hold.
    pub fn context(&self) -> usize {
        self.config.context.min(MOST_ANGLES)
    }

    /// Score rows `[labels, d]` of a sequence classifier; `None` for a language model.
    pub fn score(&self) -> Option<&Tensor> {
        self.score.as_ref()
    }

    /// Bytes of weights held in memory.
    pub fn bytes(&self) -> usize {
        let layer = |l: &Layer| l.qkv.bytes() + l.output.bytes() + l.gate_up.bytes() + l.down.bytes();
        let head = self.head.as_ref().map_or(0, Packed::bytes);
        self.embedding.bytes() + head + self.layers.iter().map(layer).sum::<usize>()
    }

    /// A prefix without tokens.
    ///
    /// # Errors
    /// Memory.
    pub fn empty(&self) -> Result<Prefix> {
        let Config { layers, kv_heads, head_dim, .. } = self.config;
        Ok(Prefix::new(layers, kv_heads, head_dim, &Device::Cpu)?)
    }

    /// Reads a text: its prefix, and the hidden states of its tokens after the final norm, `[n, d]`.
    ///
    /// # Errors
    /// No tokens, unknown tokens, more tokens than the context holds.
    pub fn prefill(&self, tokens: &[u32]) -> Result<(Prefix, Tensor)> {
        let mut prefix = self.empty()?;
        let hidden = self.extend(&mut prefix, tokens)?;
        Ok((prefix, hidden))
    }

    /// Reads on: hidden states of the new tokens after the final norm, `[n, d]`.
    ///
    /// # Errors
    /// As [`Model::prefill`].
    pub fn extend(&self, prefix: &mut Prefix, tokens: &[u32]) -> Result<Tensor> {
        self.fits(prefix.len() + tokens.len())?;
        let mut hidden = Vec::new();
        for chunk in tokens.chunks(CHUNK) {
            let run = self.run(Segment { prefix, tokens: chunk, shape: Shape::Sequence })?;
            prefix.append(&run, 0, chunk.len())?;
            hidden.push(run.hidden);
        }
        if hidden.is_empty() {
            return Err(Error::NoTokens);
        }
        Ok(Tensor::cat(&hidden, 0)?)
    }

    /// Looks ahead: ONE forward of `k` tokens, each directly behind the shared prefix, of which nothing is
    /// copied. Hidden states `[k, d]`; [`Model::logits`] of them tells what would come next.
    ///
    /// # Errors
    /// As [`Model::prefill`].
    pub fn branch(&self, prefix: &Prefix, tokens: &[u32]) -> Result<Branches> {
        self.run(Segment { prefix, tokens, shape: Shape::Branches })
    }

    /// Logits over the vocabulary, `[n, vocabulary]`, of hidden states `[n, d]`.
    ///
    /// # Errors
    /// Another width.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(self.head.as_ref().unwrap_or(&self.embedding).forward(hidden)?)
    }

    fn run(&self, segment: Segment<'_>) -> Result<Branches> {
        self.forward(&[segment])?.pop().ok_or(Error::NoTokens)
    }

    /// The forward: any number of segments, all rows through the linear layers together.
    ///
    /// # Errors
    /// As [`Model::prefill`].
    pub fn forward(&self, segments: &[Segment<'_>]) -> Result<Vec<Branches>> {
        let Config { heads, kv_heads, head_dim: dim, norm_eps, .. } = self.config;
        let eps = norm_eps as f32;
        let rows = Rows::of(segments);
        for segment in segments {
            let deepest = if segment.shape == Shape::Branches { 1 } else { segment.tokens.len() };
            self.fits(segment.prefix.len() + deepest)?;
            if segment.tokens.is_empty() {
                return Err(Error::NoTokens);
            }
        }
        let total = rows.positions.len();
        let mut hidden = self.embed(segments)?; // [total, d]
        let positions = Tensor::new(&rows.positions[..], &Device::Cpu)?;
        let (cos, sin) = (self.cos.index_select(&positions, 0)?, self.sin.index_select(&positions, 0)?);
        let mut kept: Vec<Vec<(Tensor, Tensor)>> = segments.iter().map(|_| Vec::new()).collect();

        for (i, layer) in self.layers.iter().enumerate() {
            let normed = rms_norm(&hidden, &layer.input_norm, eps)?;
            // [total, heads + 2 kv_heads, dim] -> [heads + 2 kv_heads, total, dim]
            let qkv = layer.qkv.forward(&normed)?.reshape((total, heads + 2 * kv_heads, dim))?;
            let qkv = qkv.transpose(0, 1)?;
            let rotary = qkv.narrow(0, 0, heads + kv_heads)?.contiguous()?.unsqueeze(0)?;
            let rotary = rope(&rotary, &cos, &sin)?.squeeze(0)?;
            let q = rotary.narrow(0, 0, heads)?;
            let k = rotary.narrow(0, heads, kv_heads)?;
            let v = qkv.narrow(0, heads + kv_heads, kv_heads)?.contiguous()?;

            let mut attended = Vec::with_capacity(segments.len());
            for ((segment, range), kept) in segments.iter().zip(&rows.ranges).zip(&mut kept) {
                let cut = |t: &Tensor| t.narrow(1, range.start, range.len())?.contiguous();
                let (q, k, v) = (cut(&q)?, cut(&k)?, cut(&v)?);
                attended.push(self.attend(segment, i, &q, &k, &v)?);
                kept.push((k, v));
            }
            let attended =
                if attended.len() == 1 { attended.remove(0) } else { Tensor::cat(&attended, 0)? };
            hidden = (hidden + layer.output.forward(&attended)?)?;

            let normed = rms_norm(&hidden, &layer.post_norm, eps)?;
            let gate_up = layer.gate_up.forward(&normed)?; // [total, 2 intermediate]
            let gate = silu(&gate_up.narrow(1, 0, self.config.intermediate)?.contiguous()?)?;
            let up = gate_up.narrow(1, self.config.intermediate, self.config.intermediate)?;
            hidden = (hidden + layer.down.forward(&(gate * up)?)?)?;
        }
        let hidden = rms_norm(&hidden, &self.norm, eps)?;
        let mut out = Vec::with_capacity(segments.len());
        for ((segment, range), layers) in segments.iter().zip(&rows.ranges).zip(kept) {
            out.push(Branches {
                tokens: segment.tokens.to_vec(),
                hidden: hidden.narrow(0, range.start, range.len())?,
                layers,
                behind: segment.prefix.len(),
            });
        }
        Ok(out)
    }

    /// Attention of one segment in one layer: q `[heads, n, dim]`, k and v `[kv_heads, n, dim]` of the
    /// new tokens -> `[n, heads * dim]`.
    ///
    /// The prefix is one matrix per key-value head, shared by all query heads of its group and all rows.
    fn attend(
        &self,
        segment: &Segment<'_>,
        layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
    ) -> Result<Tensor> {
        let Config { heads, kv_heads, head_dim: dim, .. } = self.config;
        let (n, group, past) = (segment.tokens.len(), heads / kv_heads, segment.prefix.len());
        // Query heads of a group lie one after the other: a view, no copy.
        let q = (q.reshape((kv_heads, group * n, dim))? * (1.0 / (dim as f64).sqrt()))?;
        let (past_keys, past_values) = segment.prefix.layer(layer)?;
        let alone = segment.shape == Shape::Branches || n == 1;

        // Scores against the new tokens: each against itself alone, or against all before it.
        let own = if alone {
            let q = q.reshape((kv_heads, group, n, dim))?;
            q.broadcast_mul(&k.unsqueeze(1)?)?.sum_keepdim(D::Minus1)?.reshape((
                kv_heads,
                group * n,
                1,
            ))?
        } else {
            let scores = q.matmul(&k.t()?)?.reshape((kv_heads * group, n, n))?;
            scores.broadcast_add(&causal_mask(n)?)?.reshape((kv_heads, group * n, n))?
        };
        let scores = match past {
            0 => own,
            _ => Tensor::cat(&[&q.matmul(&past_keys.t()?)?, &own], 2)?,
        };
        let shares = softmax_last_dim(&scores)?;
        let own = shares.narrow(2, past, if alone { 1 } else { n })?;
        let mut attended = if alone {
            let own = own.reshape((kv_heads, group, n, 1))?;
            own.broadcast_mul(&v.unsqueeze(1)?)?.reshape((kv_heads, group * n, dim))?
        } else {
            own.contiguous()?.matmul(v)?
        };
        if past > 0 {
            let past = shares.narrow(2, 0, past)?.contiguous()?.matmul(&past_values)?;
            attended = (attended + past)?;
        }
        // [heads, n, dim] -> [n, heads * dim]
        Ok(attended
            .reshape((heads, n, dim))?
            .transpose(0, 1)?
            .contiguous()?
            .reshape((n, heads * dim))?)
    }

    fn embed(&self, segments: &[Segment<'_>]) -> Result<Tensor> {
        let d = self.config.hidden;
        let mut rows = Vec::new();
        for &token in segments.iter().flat_map(|segment| segment.tokens) {
            if token as usize >= self.config.vocabulary {
                return Err(Error::Token { token, vocabulary: self.config.vocabulary });
            }
            rows.extend(self.embedding.row(token as usize));
        }
        let count = rows.len() / d;
        Ok(Tensor::from_vec(rows, (count, d), &Device::Cpu)?)
    }

    fn fits(&self, tokens: usize) -> Result<()> {
        let context = self.context();
        if tokens > context { Err(Error::Context { tokens, context }) } else { Ok(()) }
    }
}

/// Which rows of the forward belong to which segment, and where in its text each row stands.
struct Rows {
    ranges: Vec<std::ops::Range<usize>>,
    positions: Vec<u32>,
}

impl Rows {
    fn of(segments: &[Segment<'_>]) -> Self {
        let (mut ranges, mut positions) = (Vec::new(), Vec::new());
        for segment in segments {
            let (start, past) = (positions.len(), segment.prefix.len() as u32);
            positions.extend((0..segment.tokens.len() as u32).map(|i| match segment.shape {
                Shape::Sequence => past + i,
                Shape::Branches => past,
            }));
            ranges.push(start..positions.len());
        }
        Self { ranges, positions }
    }
}

/// `[1, n, n]`: 0 where column <= row, minus infinity elsewhere.
fn causal_mask(n: usize) -> Result<Tensor> {
    let mask = (0..n * n).map(|i| if i % n > i / n { f32::NEG_INFINITY } else { 0.0 });
    Ok(Tensor::from_iter(mask, &Device::Cpu)?.reshape((1, n, n))?)
}
