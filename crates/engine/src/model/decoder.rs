//! The decoder, read top to bottom: one for all families, whose differences are in [`Config`].
//!
//! One forward takes a ragged list of segments, each some tokens behind a prefix of its own: all linear
//! layers run over the rows of all segments together, only attention looks at each by itself. It knows
//! nothing of rewards, sampling or text.

use std::path::Path;

use candle_core::{Device, Tensor};

use super::parts::Parts;
use super::{Architecture, Config, Weights, open};
use crate::cache::{Branches, Prefix};
use crate::error::{Error, Result};
use crate::kernel::{Attention, Dtype, Keys, Layout, Norm, Packed, Run, attend, tanh_all};

/// A loaded model. Weights are kept once; activations are f32.
pub struct Model {
    pub(super) config: Config,
    pub(super) embedding: Packed,
    /// Positions that were learned, `[context][d]`.
    pub(super) positions: Option<Vec<f32>>,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Norm,
    /// `None`: tied to the embedding.
    pub(super) head: Option<Packed>,
    /// The score head of a sequence classifier.
    pub(super) score: Option<ScoreHead>,
    pub(super) attention: Attention,
}

/// What a sequence classifier makes of a text's last hidden state.
#[derive(Debug, Clone)]
pub struct ScoreHead {
    /// What each label is called.
    pub names: Vec<String>,
    /// Rows `[labels][d]`, f32 whatever the dtype of the rest.
    pub rows: Vec<Vec<f32>>,
}

pub(super) struct Layer {
    /// The norm before it if there is one, then rows of q, k and v, one after the other.
    pub(super) qkv: Packed,
    pub(super) qk_norm: Option<[Norm; 2]>,
    pub(super) output: Residual,
    /// The norm before it if there is one; then f(gate) times up, or f(up).
    pub(super) up: Packed,
    pub(super) down: Residual,
}

/// A linear layer whose outputs are added to the hidden states.
pub(super) struct Residual {
    pub(super) linear: Packed,
    /// What they go through first.
    pub(super) norm: Option<Norm>,
}

impl Residual {
    /// x `[m, k]`, hidden `[m, d]`.
    fn add(&self, x: &[f32], hidden: &mut [f32], scratch: &mut Vec<f32>) {
        let Some(norm) = &self.norm else { return self.linear.apply(x, hidden, true) };
        scratch.resize(hidden.len(), 0.0);
        self.linear.apply(x, scratch, false);
        norm.apply(scratch);
        hidden.iter_mut().zip(scratch).for_each(|(hidden, x)| *hidden += *x);
    }
}

impl Layer {
    /// Norms the queries and the keys of rows `[(heads + 2 kv_heads) dim]`.
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
        let model = Parts { config: &config, weights, dtype }.model(labels)?;
        weights.all_asked(&config.architecture)?;
        Ok(model)
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Most tokens that a prefix can hold.
    pub fn context(&self) -> usize {
        self.config.context
    }

    /// The score head of a sequence classifier; `None` for a language model.
    pub fn score(&self) -> Option<&ScoreHead> {
        self.score.as_ref()
    }

    /// Numbers that make up the model.
    pub fn parameters(&self) -> usize {
        let norm = |norm: &Option<Norm>| norm.as_ref().map_or(0, Norm::parameters);
        let residual = |r: &Residual| r.linear.parameters() + norm(&r.norm);
        let layer = |l: &Layer| {
            let qk: usize = l.qk_norm.iter().flatten().map(Norm::parameters).sum();
            l.qkv.parameters() + qk + residual(&l.output) + l.up.parameters() + residual(&l.down)
        };
        let score = self.score.as_ref().map_or(0, |score| score.rows.iter().map(Vec::len).sum());
        let positions = self.positions.as_ref().map_or(0, Vec::len);
        let head = self.head.as_ref().map_or(0, Packed::parameters);
        let layers: usize = self.layers.iter().map(layer).sum();
        self.embedding.parameters() + positions + layers + self.norm.parameters() + head + score
    }

    /// Bytes of weights held in memory.
    pub fn bytes(&self) -> usize {
        let own_head = self.head.as_ref().map_or(0, Packed::bytes);
        self.embedding.bytes() + own_head + self.body_bytes()
    }

    /// Bytes of weights that a forward reads, up to the hidden states.
    pub fn body_bytes(&self) -> usize {
        let layer =
            |l: &Layer| l.qkv.bytes() + l.output.linear.bytes() + l.up.bytes() + l.down.linear.bytes();
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
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        let Some(cap) = self.config.logit_cap else { return Ok(head.forward(hidden)?) };
        let logits = head.forward(hidden)?;
        let mut capped: Vec<f32> = logits.flatten_all()?.to_vec1()?;
        capped.iter_mut().for_each(|x| *x /= cap);
        tanh_all(&mut capped);
        capped.iter_mut().for_each(|x| *x *= cap);
        Ok(Tensor::from_vec(capped, logits.shape(), &Device::Cpu)?)
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
        let mut hidden = self.embed(segments); // [rows, d]
        let mut runs = runs(segments, &mut kept);
        let angles = self.attention.angles(&runs);
        let (d, rows) = (self.config.hidden, hidden.len() / self.config.hidden);
        let mut qkv = vec![0f32; rows * self.attention.width()];
        let mut attended = vec![0f32; rows * self.attention.heads * self.attention.layout.dim];
        let (mut inner, mut scratch) = (vec![0f32; rows * self.config.intermediate], Vec::new());
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

    fn embed(&self, segments: &[Segment<'_>]) -> Vec<f32> {
        let d = self.config.hidden;
        let mut rows =
            vec![0f32; segments.iter().map(|segment| segment.tokens().len()).sum::<usize>() * d];
        let tokens = segments.iter().flat_map(Segment::placed);
        for (row, (token, position)) in rows.chunks_exact_mut(d).zip(tokens) {
            self.embedding.row(token as usize, row);
            row.iter_mut().for_each(|x| *x *= self.config.embedding_scale);
            if let Some(positions) = &self.positions {
                row.iter_mut().zip(&positions[position * d..]).for_each(|(x, place)| *x += place);
            }
        }
        rows
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

    /// The tokens, each with its position in its text.
    fn placed(&self) -> impl Iterator<Item = (u32, usize)> {
        let (past, step) = (self.prefix().len(), usize::from(matches!(self, Self::Read(..))));
        self.tokens().iter().enumerate().map(move |(i, token)| (*token, past + i * step))
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
