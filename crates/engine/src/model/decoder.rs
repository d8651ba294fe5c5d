//! The decoder: what it is given and what it gives, for all families, whose differences are in [`Config`].
//!
//! One forward takes a ragged list of segments, each some tokens behind a prefix of its own: all linear
//! layers run over the rows of all segments together, only attention looks at each by itself. There are two
//! ways to run it: `on_kernels` and `on_device`. It knows nothing of rewards, sampling or text.

use std::path::Path;

use candle_core::Tensor;

use super::on_device::OnDevice;
use super::on_kernels::Kernels;
use super::parts::Parts;
use super::{Architecture, Config, Weights, open};
use crate::cache::{Branches, Prefix};
use crate::error::{Error, Result};
use crate::kernel::Dtype;
use crate::place::Place;

/// A loaded model. Weights are kept once; activations are f32.
pub struct Model {
    config: Config,
    place: Place,
    /// The score head of a sequence classifier.
    score: Option<ScoreHead>,
    body: Body,
}

/// Weights, and the way to run them.
enum Body {
    Kernels(Box<Kernels>),
    Device(OnDevice),
}

/// What a sequence classifier makes of a text's last hidden state.
#[derive(Debug, Clone)]
pub struct ScoreHead {
    /// What each label is called.
    pub names: Vec<String>,
    /// Rows `[labels][d]`, f32 whatever the dtype of the rest.
    pub rows: Vec<Vec<f32>>,
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
    /// Loads an HF folder (`config.json` and safetensors) or one GGUF file, to run on the CPU.
    ///
    /// # Errors
    /// Files missing, cut short or malformed; another architecture; a tensor missing or misshapen.
    pub fn load(path: &Path, dtype: Dtype) -> Result<Self> {
        Self::load_on(path, dtype, Place::Cpu)
    }

    /// The same, to run somewhere else.
    ///
    /// # Errors
    /// As [`Model::load`]; there is no such device, it cannot keep weights so, or its memory is too small.
    pub fn load_on(path: &Path, dtype: Dtype, place: Place) -> Result<Self> {
        let (architecture, weights) = open(path)?;
        Self::assemble(architecture, &weights, dtype, place)
    }

    pub(crate) fn assemble(
        architecture: Architecture,
        weights: &Weights,
        dtype: Dtype,
        place: Place,
    ) -> Result<Self> {
        let Architecture { config, labels, .. } = architecture;
        let parts = Parts { config: &config, weights };
        let own_head = labels.is_none() && !config.tied;
        let body = match place.device()? {
            None => Body::Kernels(Box::new(Kernels::load(&parts, own_head, dtype)?)),
            Some(device) => Body::Device(OnDevice::load(&parts, own_head, dtype, place, device)?),
        };
        let score = labels.map(|labels| parts.score(labels)).transpose()?;
        weights.all_asked(&config.architecture)?;
        Ok(Self { config, place, score, body })
    }

    /// Where it runs.
    pub fn place(&self) -> Place {
        self.place
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
        let score: usize = self.score.iter().flat_map(|score| &score.rows).map(Vec::len).sum();
        score
            + match &self.body {
                Body::Kernels(body) => body.parameters(),
                Body::Device(body) => body.parameters(),
            }
    }

    /// Bytes of weights held in memory.
    pub fn bytes(&self) -> usize {
        let (embedding, layers, head) = self.sizes();
        embedding + layers + head.unwrap_or(0)
    }

    /// Bytes of weights that a forward reads, up to the hidden states.
    pub fn body_bytes(&self) -> usize {
        self.sizes().1
    }

    /// Bytes of weights that logits read.
    pub fn head_bytes(&self) -> usize {
        let (embedding, _, head) = self.sizes();
        head.unwrap_or(embedding)
    }

    fn sizes(&self) -> (usize, usize, Option<usize>) {
        match &self.body {
            Body::Kernels(body) => body.bytes(),
            Body::Device(body) => body.bytes(),
        }
    }

    /// A prefix without tokens.
    pub fn empty(&self) -> Prefix {
        match &self.body {
            Body::Kernels(body) => body.empty(),
            Body::Device(body) => body.empty(&self.config),
        }
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

    /// Logits over the vocabulary, `[n, vocabulary]`, of hidden states `[n, d]`; both f32 on the CPU.
    ///
    /// # Errors
    /// Another width.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        match &self.body {
            Body::Kernels(body) => body.logits(&self.config, hidden),
            Body::Device(body) => body.logits(&self.config, hidden),
        }
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
        // [rows, d]
        let (hidden, kept) = match &self.body {
            Body::Kernels(body) => body.forward(&self.config, segments)?,
            Body::Device(body) => body.forward(&self.config, segments)?,
        };
        let (mut out, mut start) = (Vec::with_capacity(segments.len()), 0);
        for (segment, kept) in segments.iter_mut().zip(kept) {
            let (behind, tokens) = (segment.prefix().len(), segment.tokens().to_vec());
            let hidden = hidden.narrow(0, start, tokens.len())?;
            start += tokens.len();
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

    fn fits(&self, tokens: usize) -> Result<()> {
        let context = self.context();
        if tokens > context { Err(Error::Context { tokens, context }) } else { Ok(()) }
    }
}

impl Segment<'_> {
    pub(super) fn prefix(&self) -> &Prefix {
        match self {
            Self::Read(prefix, _) => prefix,
            Self::Branch(prefix, _) => prefix,
        }
    }

    pub(super) fn tokens(&self) -> &[u32] {
        match self {
            Self::Read(_, tokens) | Self::Branch(_, tokens) => tokens,
        }
    }

    /// The tokens, each with its position in its text.
    pub(super) fn placed(&self) -> impl Iterator<Item = (u32, usize)> {
        let (past, step) = (self.prefix().len(), usize::from(matches!(self, Self::Read(..))));
        self.tokens().iter().enumerate().map(move |(i, token)| (*token, past + i * step))
    }
}
