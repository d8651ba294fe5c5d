//! An encoder, read top to bottom: tokens in, hidden states out.
//!
//! A forward takes any number of texts, one behind the other and none padded: linear layers run over the
//! rows of all of them, only attention looks at each by itself. So a text's states are the same to the bit
//! whatever shares the forward.

use std::path::Path;

use super::config::Config;
use super::parts;
use super::relative::{Distances, Relative};
use crate::error::Result;
use crate::kernel::{Activation, Angles, Bias, BothWays, Dtype, Norm, Packed, Rotary, tanh_all, turn};
use crate::model::Weights;
use crate::tokenizer::Tokens;

pub(super) struct Encoder {
    pub(super) hidden: usize,
    /// Width of the embeddings, `e`.
    pub(super) embedding: usize,
    pub(super) heads: usize,
    /// Most tokens of a text.
    pub(super) context: usize,
    /// `[vocabulary][e]`.
    pub(super) words: Vec<f32>,
    /// `[tokens][e]`; empty where positions are not learned.
    pub(super) positions: Vec<f32>,
    /// Kinds of text, `[kinds][e]`; empty where there are none.
    pub(super) kinds: Vec<f32>,
    /// Of embeddings, or of what they are brought to.
    pub(super) norm: Norm,
    /// From embeddings to states, where they differ in width.
    pub(super) project: Option<Linear>,
    /// The rotations that layers choose from.
    pub(super) rotary: Vec<Rotary>,
    /// How far apart tokens are, for layers that ask.
    pub(super) distances: Option<Distances>,
    pub(super) layers: Vec<Layer>,
    /// What `up` goes through, unless it does so itself.
    pub(super) activation: Option<Activation>,
    /// Behind the layers.
    pub(super) last_norm: Option<Norm>,
    /// The layer behind the first token's state, if there is one.
    pub(super) pooler: Option<Linear>,
}

pub(crate) struct Linear {
    pub(super) weight: Packed,
    /// Zeros where there is none.
    pub(super) bias: Vec<f32>,
}

/// A layer, normed behind its two parts; where it is normed before them, the norms lie in `qkv` and `up`.
pub(super) struct Layer {
    /// Rows of q, k and v, one after the other.
    pub(super) qkv: Linear,
    /// Which rotation, if any.
    pub(super) rotary: Option<usize>,
    /// How far a token sees; `None`: everything.
    pub(super) window: Option<usize>,
    /// What distances add to attention.
    pub(super) relative: Option<Relative>,
    pub(super) output: Linear,
    pub(super) attention_norm: Option<Norm>,
    pub(super) up: Linear,
    pub(super) down: Linear,
    pub(super) output_norm: Option<Norm>,
}

impl Encoder {
    pub(super) fn load(folder: &Path, config: &Config) -> Result<Self> {
        parts::encoder(&Weights::open_hf(folder)?, config)
    }

    /// Most tokens of a text.
    pub(super) fn context(&self) -> usize {
        self.context
    }

    pub(super) fn width(&self) -> usize {
        self.hidden
    }

    pub(super) fn vocabulary(&self) -> usize {
        self.words.len() / self.embedding
    }

    pub(super) fn has_pooler(&self) -> bool {
        self.pooler.is_some()
    }

    /// Hidden states `[rows, d]` of texts, one behind the other.
    pub(super) fn forward(&self, texts: &[Tokens]) -> Vec<f32> {
        let (d, rows) = (self.hidden, texts.iter().map(Tokens::len).sum::<usize>());
        let longest = texts.iter().map(Tokens::len).max().unwrap_or(0);
        let angles: Vec<Angles> = self.rotary.iter().map(|rotary| rotary.angles(0..longest)).collect();
        let places = self.distances.map(|distances| distances.places(longest)).unwrap_or_default();
        let mut x = self.embed(texts, rows);
        let dim = d / self.heads;
        let plain = 1.0 / (dim as f32).sqrt();
        let scale = self.distances.map_or(plain, |distances| distances.scale(dim));
        let mut attention = BothWays::new(self.heads, dim, scale);
        let (mut qkv, mut attended, mut inner) = (Vec::new(), vec![0f32; rows * d], Vec::new());
        for layer in &self.layers {
            layer.qkv.forward(&x, rows, &mut qkv); // [rows, 3 d]
            let mut first = 0;
            for text in texts {
                let (from, to) = (first * d, (first + text.len()) * d);
                let (qkv, attended) = (&mut qkv[3 * from..3 * to], &mut attended[from..to]);
                if let Some(rotary) = layer.rotary {
                    turn(qkv, self.heads, dim, &angles[rotary]);
                }
                let qkv = &*qkv;
                let mut add = layer
                    .relative
                    .as_ref()
                    .map(|relative| |head: usize, to: &mut [f32]| relative.add(qkv, &places, head, to));
                let bias = add.as_mut().map(|add| add as Bias<'_>);
                attention.attend(qkv, attended, layer.window, bias);
                first += text.len();
            }
            layer.output.add_to(&mut x, &attended);
            layer.attention_norm.iter().for_each(|norm| norm.apply(&mut x));
            layer.up.forward(&x, rows, &mut inner); // [rows, intermediate]
            self.activation.iter().for_each(|activation| activation.apply(&mut inner));
            layer.down.add_to(&mut x, &inner);
            layer.output_norm.iter().for_each(|norm| norm.apply(&mut x));
        }
        self.last_norm.iter().for_each(|norm| norm.apply(&mut x));
        x
    }

    /// `tanh(W x + b)` of a first token's state; the state itself where there is no pooler.
    pub(super) fn pooler(&self, state: &[f32]) -> Vec<f32> {
        let Some(pooler) = &self.pooler else { return state.to_vec() };
        let mut y = Vec::new();
        pooler.forward(state, 1, &mut y);
        tanh_all(&mut y);
        y
    }

    fn embed(&self, texts: &[Tokens], rows: usize) -> Vec<f32> {
        let d = self.embedding;
        let (mut x, nothing) = (Vec::with_capacity(rows * d), vec![0.0; d]);
        // The kinds that a tokenizer tells apart and the model does not are the last one.
        let kinds = (self.kinds.len() / d).saturating_sub(1);
        for text in texts {
            for (i, (&token, &kind)) in text.ids.iter().zip(&text.kinds).enumerate() {
                let word = &self.words[token as usize * d..][..d];
                let position = self.positions.get(i * d..(i + 1) * d).unwrap_or(&nothing);
                let kind = kinds.min(kind as usize) * d;
                let kind = self.kinds.get(kind..kind + d).unwrap_or(&nothing);
                let place = position.iter().zip(kind).map(|(position, kind)| position + kind);
                x.extend(word.iter().zip(place).map(|(word, place)| word + place));
            }
        }
        // Some norm embeddings, some what they are brought to.
        let before = self.norm.width() == d;
        if before {
            self.norm.apply(&mut x);
        }
        if let Some(project) = &self.project {
            let mut y = Vec::new();
            project.forward(&x, rows, &mut y);
            x = y;
        }
        if !before {
            self.norm.apply(&mut x);
        }
        x
    }
}

impl Linear {
    /// A layer `[n, k]`, with its bias if it has one.
    pub(crate) fn load(weights: &Weights, name: &str, n: usize, k: usize, biased: bool) -> Result<Self> {
        let matrix = weights.matrix(&format!("{name}.weight"), n, k)?;
        let weight = Packed::new(n, k, Dtype::F32, |rows, to: &mut [f32]| matrix.read(rows, to))?;
        Ok(Self { weight, bias: bias(weights, name, n, biased)? })
    }

    /// `y = W x + b`.
    pub(crate) fn forward(&self, x: &[f32], rows: usize, y: &mut Vec<f32>) {
        y.clear();
        (0..rows).for_each(|_| y.extend_from_slice(&self.bias));
        self.weight.apply(x, y, true);
    }

    /// `y += W x + b`.
    fn add_to(&self, y: &mut [f32], x: &[f32]) {
        for row in y.chunks_exact_mut(self.bias.len()) {
            row.iter_mut().zip(&self.bias).for_each(|(y, bias)| *y += bias);
        }
        self.weight.apply(x, y, true);
    }
}

/// A bias `[n]`; zeros where there is none.
pub(crate) fn bias(weights: &Weights, name: &str, n: usize, biased: bool) -> Result<Vec<f32>> {
    if biased { weights.vector(&format!("{name}.bias"), n) } else { Ok(vec![0.0; n]) }
}
