//! The decoder of the Llama family, read top to bottom.
//!
//! One forward takes a ragged list of segments, each some tokens behind a prefix of its own: all linear
//! layers run over the rows of all segments together, only attention looks at each by itself. It knows
//! nothing of rewards, sampling or text.

use std::path::Path;

use candle_core::{Device, Tensor};

use super::config::{Architecture, Config, open};
use super::weights::{Weights, stacked};
use crate::cache::{Branches, Prefix};
use crate::error::{Error, Result};
use crate::kernel::{Attention, Dtype, Keys, Layout, Packed, Run, attend, rms_norm};

/// A loaded model. Weights are kept once; activations are f32.
pub struct Model {
    config: Config,
    embedding: Packed,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    /// `None`: tied to the embedding.
    head: Option<Packed>,
    /// Score rows of a sequence classifier, `[labels][d]`.
    score: Option<Vec<Vec<f32>>>,
    attention: Attention,
}

struct Layer {
    /// Norm, then rows of q, k and v, one after the other.
    qkv: Packed,
    output: Packed,
    /// Norm, then silu(gate) times up.
    gate_up: Packed,
    down: Packed,
}

/// Tokens to run behind a prefix.
#[derive(Debug)]
pub enum Segment<'a> {
    /// Reads on: the tokens follow one another and become part of the prefix.
    Read(&'a mut Prefix, &'a [u32]),
    /// Looks ahead: each token stands directly behind the prefix, as an alternative.
    Branch(&'a Prefix, &'a [u32]),
}

/// Longest piece of a text that is run at once: bounds the memory of what lies between the layers.
const CHUNK: usize = 256;

impl Model {
    /// Loads an HF folder (`config.json` and safetensors) or one GGUF file.
    ///
    /// # Errors
    /// Files missing, cut short or malformed; another architecture; a tensor missing or misshapen.
    pub fn load(path: &Path, dtype: Dtype) -> Result<Self> {
        let (architecture, weights) = open(path)?;
        Self::assemble(architecture, &weights, dtype)
    }

    pub(crate) fn assemble(architecture: Architecture, weights: &Weights, dtype: Dtype) -> Result<Self> {
        let Architecture { config, labels, .. } = architecture;
        let Config { hidden: d, intermediate, heads, kv_heads, head_dim: dim, vocabulary, .. } = config;
        let (q, kv) = (heads * dim, kv_heads * dim);
        let eps = config.norm_eps as f32;
        let matrix = |name: &str, n: usize, k: usize| -> Result<Packed> {
            let matrix = weights.matrix(name, n, k)?;
            Packed::new(n, k, dtype, |rows, to: &mut [f32]| matrix.read(rows, to))
        };
        let layer = |i: usize| -> Result<Layer> {
            let name = |part: &str| format!("model.layers.{i}.{part}.weight");
            let qkv = [
                (weights.rotary(&name("self_attn.q_proj"), heads, dim, d)?, q),
                (weights.rotary(&name("self_attn.k_proj"), kv_heads, dim, d)?, kv),
                (weights.matrix(&name("self_attn.v_proj"), kv, d)?, kv),
            ];
            let qkv =
                Packed::new(q + 2 * kv, d, dtype, |rows, to: &mut [f32]| stacked(&qkv, d, rows, to))?;
            let gate = weights.matrix(&name("mlp.gate_proj"), intermediate, d)?;
            let up = weights.matrix(&name("mlp.up_proj"), intermediate, d)?;
            let gate_up = Packed::gated(
                intermediate,
                d,
                dtype,
                |rows, to: &mut [f32]| gate.read(rows, to),
                |rows, to: &mut [f32]| up.read(rows, to),
            )?;
            Ok(Layer {
                qkv: qkv.after_norm(weights.vector(&name("input_layernorm"), d)?, eps),
                output: matrix(&name("self_attn.o_proj"), d, q)?,
                gate_up: gate_up.after_norm(weights.vector(&name("post_attention_layernorm"), d)?, eps),
                down: matrix(&name("mlp.down_proj"), d, intermediate)?,
            })
        };
        let embedding = matrix("model.embed_tokens.weight", vocabulary, d)?;
        let head = match labels.is_none() && !config.tied {
            true => Some(matrix("lm_head.weight", vocabulary, d)?),
            false => None,
        };
        let score = labels.map(|labels| -> Result<Vec<Vec<f32>>> {
            let matrix = weights.matrix("score.weight", labels, d)?;
            let mut rows = vec![0.0; labels * d];
            matrix.read(0..labels, &mut rows)?;
            Ok(rows.chunks_exact(d).map(<[f32]>::to_vec).collect())
        });
        let score = score.transpose()?;
        let layers = (0..config.layers).map(layer).collect::<Result<_>>()?;
        let norm = weights.vector("model.norm.weight", d)?;
        let mut frequencies = config.frequencies();
        if weights.contains("rope_freqs.weight") {
            // Llama 3 in GGUF: each frequency is divided by the factor stored for it.
            let factors = weights.vector("rope_freqs.weight", dim / 2)?;
            frequencies.iter_mut().zip(factors).for_each(|(f, factor)| *f /= factor);
        }
        let layout = Layout { layers: config.layers, kv_heads, dim };
        let attention = Attention { heads, layout, frequencies };
        Ok(Self { config, embedding, layers, norm, head, score, attention })
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Most tokens that a prefix can hold.
    pub fn context(&self) -> usize {
        self.config.context
    }

    /// Score rows `[labels][d]` of a sequence classifier; `None` for a language model.
    pub fn score(&self) -> Option<&[Vec<f32>]> {
        self.score.as_deref()
    }

    /// Bytes of weights held in memory.
    pub fn bytes(&self) -> usize {
        let own_head = self.head.as_ref().map_or(0, Packed::bytes);
        self.embedding.bytes() + own_head + self.body_bytes()
    }

    /// Bytes of weights that a forward reads, up to the hidden states.
    pub fn body_bytes(&self) -> usize {
        let layer = |l: &Layer| l.qkv.bytes() + l.output.bytes() + l.gate_up.bytes() + l.down.bytes();
        self.layers.iter().map(layer).sum()
    }

    /// Bytes of weights that logits read.
    pub fn head_bytes(&self) -> usize {
        self.head.as_ref().unwrap_or(&self.embedding).bytes()
    }

    /// A prefix without tokens.
    pub fn empty(&self) -> Prefix {
        Prefix::new(self.attention.layout)
    }

    /// Reads a text: its prefix, and the hidden states of its tokens after the final norm, `[n, d]`.
    ///
    /// # Errors
    /// No tokens, unknown tokens, more tokens than the context holds.
    pub fn prefill(&self, tokens: &[u32]) -> Result<(Prefix, Tensor)> {
        let mut prefix = self.empty();
        let hidden = self.extend(&mut prefix, tokens)?;
        Ok((prefix, hidden))
    }

    /// Reads on: hidden states of the new tokens after the final norm, `[n, d]`.
    ///
    /// # Errors
    /// As [`Model::prefill`].
    pub fn extend(&self, prefix: &mut Prefix, tokens: &[u32]) -> Result<Tensor> {
        self.check(&Segment::Read(prefix, tokens))?;
        let mut hidden = Vec::new();
        for chunk in tokens.chunks(CHUNK) {
            hidden.push(self.run(Segment::Read(prefix, chunk))?.hidden);
        }
        if hidden.len() == 1 { Ok(hidden.remove(0)) } else { Ok(Tensor::cat(&hidden, 0)?) }
    }

    /// Reads on in several texts together, some rows at a time: the hidden state of each one's last token
    /// after the final norm, `[1, d]`.
    ///
    /// # Errors
    /// As [`Model::prefill`].
    pub fn read_all(&self, texts: &mut [(&mut Prefix, &[u32])]) -> Result<Vec<Tensor>> {
        let mut last: Vec<Option<Tensor>> = vec![None; texts.len()];
        self.read_on(texts, &mut |i, hidden| {
            // A copy: a view would keep the rows of all.
            last[i] = Some(hidden.narrow(0, hidden.dim(0)? - 1, 1)?.copy()?);
            Ok(())
        })?;
        last.into_iter().map(|hidden| hidden.ok_or(Error::NoTokens)).collect()
    }

    /// Reads on in several texts together, some rows at a time. `seen` gets the number of a text and the
    /// hidden states of its next tokens after the final norm, `[n, d]`: of each text in order, piece by piece.
    ///
    /// # Errors
    /// As [`Model::prefill`]; those of `seen`.
    pub fn read_on(
        &self,
        texts: &mut [(&mut Prefix, &[u32])],
        seen: &mut dyn FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<()> {
        for (prefix, tokens) in texts.iter_mut() {
            self.check(&Segment::Read(prefix, tokens))?;
        }
        loop {
            let (mut room, mut segments, mut reading) = (CHUNK, Vec::new(), Vec::new());
            for (i, (prefix, rest)) in texts.iter_mut().enumerate() {
                let (now, later) = rest.split_at(rest.len().min(room));
                if !now.is_empty() {
                    room -= now.len();
                    *rest = later;
                    segments.push(Segment::Read(prefix, now));
                    reading.push(i);
                }
            }
            if segments.is_empty() {
                return Ok(());
            }
            for (i, read) in reading.into_iter().zip(self.forward(&mut segments)?) {
                seen(i, &read.hidden)?;
            }
        }
    }

    /// Looks ahead: ONE forward of `k` tokens, each directly behind the shared prefix, of which nothing is
    /// copied. Hidden states `[k, d]`; [`Model::logits`] of them tells what would come next.
    ///
    /// # Errors
    /// As [`Model::prefill`].
    pub fn branch(&self, prefix: &Prefix, tokens: &[u32]) -> Result<Branches> {
        self.run(Segment::Branch(prefix, tokens))
    }

    /// Logits over the vocabulary, `[n, vocabulary]`, of hidden states `[n, d]`.
    ///
    /// # Errors
    /// Another width.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(self.head.as_ref().unwrap_or(&self.embedding).forward(hidden)?)
    }

    fn run(&self, segment: Segment<'_>) -> Result<Branches> {
        self.forward(&mut [segment])?.pop().ok_or(Error::NoTokens)
    }

    /// The forward: any number of segments, all rows through the linear layers together, so that the
    /// weights are read once for all.
    ///
    /// # Errors
    /// As [`Model::prefill`]; then no prefix has changed.
    pub fn forward(&self, segments: &mut [Segment<'_>]) -> Result<Vec<Branches>> {
        for segment in segments.iter() {
            self.check(segment)?;
        }
        let mut kept: Vec<Vec<f32>> = segments.iter().map(|segment| self.beside(segment)).collect();
        let hidden = self.embed(segments)?; // [rows, d]
        let mut runs = runs(segments, &mut kept);
        let angles = self.attention.angles(&runs);
        for (i, layer) in self.layers.iter().enumerate() {
            let qkv = layer.qkv.forward(&hidden)?; // [rows, (heads + 2 kv_heads) dim]
            let attended = attend(&self.attention, i, &qkv, &angles, &mut runs)?; // [rows, heads dim]
            layer.output.add_to(&hidden, &attended)?;
            let gated = layer.gate_up.forward(&hidden)?; // [rows, intermediate]
            layer.down.add_to(&hidden, &gated)?;
        }
        let hidden = rms_norm(&hidden, &self.norm, self.config.norm_eps as f32)?;
        let ranges: Vec<_> = runs.into_iter().map(|run| run.rows).collect();
        let mut out = Vec::with_capacity(segments.len());
        for ((segment, rows), kept) in segments.iter_mut().zip(ranges).zip(kept) {
            let hidden = hidden.narrow(0, rows.start, rows.len())?;
            let (behind, tokens) = (segment.prefix().len(), segment.tokens().to_vec());
            if let Segment::Read(prefix, tokens) = segment {
                prefix.advance(tokens);
            }
            out.push(Branches { tokens, hidden, kept, behind });
        }
        Ok(out)
    }

    fn check(&self, segment: &Segment<'_>) -> Result<()> {
        let (tokens, vocabulary) = (segment.tokens(), self.config.vocabulary);
        if let Some(&token) = tokens.iter().find(|token| **token as usize >= vocabulary) {
            return Err(Error::Token { token, vocabulary });
        }
        match (tokens.len(), segment) {
            (0, _) => Err(Error::NoTokens),
            (more, Segment::Read(prefix, _)) => self.fits(prefix.len() + more),
            (_, Segment::Branch(prefix, _)) => self.fits(prefix.len() + 1),
        }
    }

    /// Room for keys and values that stay beside the prefix.
    fn beside(&self, segment: &Segment<'_>) -> Vec<f32> {
        let Layout { layers, .. } = self.attention.layout;
        match segment {
            Segment::Read(..) => Vec::new(),
            Segment::Branch(_, tokens) => {
                vec![0.0; layers * tokens.len() * self.attention.layout.token()]
            }
        }
    }

    fn embed(&self, segments: &[Segment<'_>]) -> Result<Tensor> {
        let (d, tokens) = (self.config.hidden, segments.iter().flat_map(|segment| segment.tokens()));
        let tokens: Vec<u32> = tokens.copied().collect();
        let mut rows = vec![0f32; tokens.len() * d];
        for (row, &token) in rows.chunks_exact_mut(d).zip(&tokens) {
            self.embedding.row(token as usize, row);
        }
        Ok(Tensor::from_vec(rows, (tokens.len(), d), &Device::Cpu)?)
    }

    fn fits(&self, tokens: usize) -> Result<()> {
        let context = self.context();
        if tokens > context { Err(Error::Context { tokens, context }) } else { Ok(()) }
    }
}

impl Segment<'_> {
    fn prefix(&self) -> &Prefix {
        match self {
            Self::Read(prefix, _) => prefix,
            Self::Branch(prefix, _) => prefix,
        }
    }

    fn tokens(&self) -> &[u32] {
        match self {
            Self::Read(_, tokens) | Self::Branch(_, tokens) => tokens,
        }
    }
}

/// Which rows of the forward belong to which segment, and where their keys and values go.
fn runs<'a>(segments: &'a mut [Segment<'_>], kept: &'a mut [Vec<f32>]) -> Vec<Run<'a>> {
    let mut start = 0;
    let run = |(segment, kept): (&'a mut Segment<'_>, &'a mut Vec<f32>)| {
        let (past, count) = (segment.prefix().len(), segment.tokens().len());
        let keys = match segment {
            Segment::Read(prefix, tokens) => Keys::Read(prefix.room(tokens.len())),
            Segment::Branch(prefix, _) => Keys::Branch(prefix.pages(), kept),
        };
        start += count;
        Run { rows: start - count..start, past, keys }
    };
    segments.iter_mut().zip(kept).map(run).collect()
}
