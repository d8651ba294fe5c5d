//! The decoder for all families, whose differences are in [`Config`]. It knows nothing of rewards, sampling or text.
//!
//! One forward pass takes a ragged list of segments, each of which is some tokens after a prefix of its own. All linear
//! layers run over the rows of all segments together; only attention treats each segment separately. There are two
//! implementations: `on_kernels` and `on_device`.

use std::path::Path;

use candle_core::Tensor;

use super::config::Config;
use super::on_device::OnDevice;
use super::on_kernels::Kernels;
use super::open::{Architecture, open};
use super::parts::Parts;
use super::score::ScoreHead;
use super::segment::Segment;
use super::weights::Weights;
use crate::cache::{Branches, Prefix};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernel::{Dtype, KvDtype};

/// A causal language model or a sequence classifier, loaded into memory. Activations are f32.
pub struct Model {
    config: Config,
    place: Device,
    /// The score head of a sequence classifier.
    score: Option<ScoreHead>,
    body: Body,
}

/// The weights, in the form in which they run.
enum Body {
    Kernels(Box<Kernels>),
    Device(OnDevice),
}

/// Maximum number of rows of one forward pass during prefill. It bounds the memory of activations.
const CHUNK: usize = 256;

impl Model {
    /// Loads a Hugging Face folder (`config.json` and safetensors) or a GGUF file, to run on the CPU.
    ///
    /// # Errors
    /// Files are missing, truncated or malformed; the architecture is not supported; a tensor is missing or has the
    /// wrong shape.
    pub fn load(path: &Path, dtype: Dtype) -> Result<Self> {
        Self::load_on(path, dtype, Device::Cpu)
    }

    /// As [`Model::load`], to run on another device.
    ///
    /// # Errors
    /// As [`Model::load`]; there is no such device, it does not support the dtype, or its memory is too small.
    pub fn load_on(path: &Path, dtype: Dtype, place: Device) -> Result<Self> {
        let (architecture, weights) = open(path)?;
        Self::assemble(architecture, &weights, dtype, place)
    }

    pub(crate) fn assemble(
        architecture: Architecture,
        weights: &Weights,
        dtype: Dtype,
        place: Device,
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

    /// The same model, which stores the keys and values of its prefixes in this format. Prefixes that were made before cannot be
    /// used any more.
    ///
    /// # Errors
    /// The model runs on another device than the CPU, which has a format of its own.
    pub fn with_kv_dtype(mut self, kv: KvDtype) -> Result<Self> {
        match &mut self.body {
            Body::Kernels(body) => body.set_kv_dtype(kv),
            Body::Device(_) if kv == KvDtype::default() => {}
            Body::Device(_) => {
                let what = "keys and values have the format of this device: leave out their dtype";
                return Err(Error::Device { place: self.place.to_string(), what: what.to_owned() });
            }
        }
        Ok(self)
    }

    /// The device that the model runs on.
    pub fn place(&self) -> Device {
        self.place
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The maximum number of tokens of a prefix.
    pub fn context(&self) -> usize {
        self.config.context
    }

    /// The score head of a sequence classifier; `None` for a language model.
    pub fn score(&self) -> Option<&ScoreHead> {
        self.score.as_ref()
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        let score: usize = self.score.iter().flat_map(|score| &score.rows).map(Vec::len).sum();
        score
            + match &self.body {
                Body::Kernels(body) => body.parameters(),
                Body::Device(body) => body.parameters(),
            }
    }

    /// Size of the weights in memory, in bytes.
    pub fn bytes(&self) -> usize {
        let (embedding, layers, head) = self.sizes();
        embedding + layers + head.unwrap_or(0)
    }

    /// Size of the weights that a forward pass reads up to the hidden states, in bytes.
    pub fn body_bytes(&self) -> usize {
        self.sizes().1
    }

    /// Size of the weights of the output layer, in bytes.
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

    /// Tokens and bytes of a page of keys and values. Prefixes with a common beginning share full pages. `None` on a device,
    /// where a copy is made when a prefix is extended.
    pub fn page(&self) -> Option<(usize, usize)> {
        self.empty().page()
    }

    /// A prefix without tokens.
    pub fn empty(&self) -> Prefix {
        match &self.body {
            Body::Kernels(body) => body.empty(),
            Body::Device(body) => body.empty(&self.config),
        }
    }

    /// Prefills a new prefix with these tokens. Also returns the hidden states of the tokens after the final norm,
    /// `[n, d]`, f32 on the CPU.
    ///
    /// # Errors
    /// There are no tokens, unknown tokens, or more tokens than the context can hold.
    pub fn prefill(&self, tokens: &[u32]) -> Result<(Prefix, Tensor)> {
        let mut prefix = self.empty();
        let hidden = self.extend(&mut prefix, tokens)?;
        Ok((prefix, hidden))
    }

    /// Appends tokens to a prefix. Returns the hidden states of the new tokens after the final norm, `[n, d]`.
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

    /// Appends tokens to several prefixes in shared forward passes. Returns the hidden state of the last token of each
    /// sequence after the final norm, `[1, d]`.
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

    /// Appends tokens to several prefixes in shared forward passes. After each pass, `seen` gets the index of a sequence
    /// and the hidden states of its next tokens after the final norm, `[n, d]`.
    ///
    /// # Errors
    /// As [`Model::prefill`]; an error of `seen`.
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

    /// Looks ahead: runs `k` candidates for the next token in one forward pass. The prefix is shared and not copied.
    /// The result has the hidden states `[k, d]` of the candidates; their [`Model::logits`] predict the token after each
    /// candidate.
    ///
    /// # Errors
    /// As [`Model::prefill`].
    pub fn branch(&self, prefix: &Prefix, tokens: &[u32]) -> Result<Branches> {
        self.run(Segment::Branch(prefix, tokens))
    }

    /// Logits `[n, vocabulary]` of hidden states `[n, d]`, both f32 on the CPU.
    ///
    /// # Errors
    /// The hidden states have another width.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        match &self.body {
            Body::Kernels(body) => body.logits(&self.config, hidden),
            Body::Device(body) => body.logits(&self.config, hidden),
        }
    }

    fn run(&self, segment: Segment<'_>) -> Result<Branches> {
        self.forward(&mut [segment])?.pop().ok_or(Error::NoTokens)
    }

    /// The forward pass of any number of segments. All rows go through the linear layers together, so that the weights
    /// are read once for all segments. Results are batch-invariant on the CPU.
    ///
    /// # Errors
    /// As [`Model::prefill`]. After such an error, no prefix has changed.
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
