//! The encoder: tokens to hidden states.
//!
//! A forward pass takes any number of texts without padding. Linear layers run over the rows of all texts together; only
//! attention treats each text separately. Results are batch-invariant: the hidden states of a text are bit-identical at
//! any batch size.

use super::linear::Linear;
use super::relative::{Distances, Relative};
use crate::kernel::{Activation, Angles, Bias, BothWays, Norm, Rotary, tanh_all, turn};
use crate::tokenizer::Tokens;

/// The weights of an encoder.
pub(super) struct Encoder {
    pub(super) hidden: usize,
    /// Width of the embeddings, `e`.
    pub(super) embedding: usize,
    pub(super) heads: usize,
    /// The maximum number of tokens of a text.
    pub(super) context: usize,
    /// Token embeddings, `[vocabulary][e]`.
    pub(super) words: Vec<f32>,
    /// Position embeddings, `[tokens][e]`; empty if positions are not learned.
    pub(super) positions: Vec<f32>,
    /// Token type embeddings, `[types][e]`; empty if there are none.
    pub(super) kinds: Vec<f32>,
    /// The norm of the embeddings, before or after the projection.
    pub(super) norm: Norm,
    /// The projection from embeddings to hidden states, if they differ in width.
    pub(super) project: Option<Linear>,
    /// The rotations that the layers choose from.
    pub(super) rotary: Vec<Rotary>,
    /// Relative positions, for layers that use them.
    pub(super) distances: Option<Distances>,
    pub(super) layers: Vec<Layer>,
    /// Applied to the outputs of `up`, unless that layer applies it itself.
    pub(super) activation: Option<Activation>,
    /// The norm after the last layer.
    pub(super) last_norm: Option<Norm>,
    /// The pooler's layer, if the model has one.
    pub(super) pooler: Option<Linear>,
}

/// One layer, with a norm after each of its two blocks. If the norms are before the blocks, they are in `qkv` and `up`.
pub(super) struct Layer {
    /// Rows of queries, keys and values.
    pub(super) qkv: Linear,
    /// Index of the layer's rotation, if it has one.
    pub(super) rotary: Option<usize>,
    /// The maximum distance of a visible token; `None` means all tokens are visible.
    pub(super) window: Option<usize>,
    /// The bias on attention scores from relative positions.
    pub(super) relative: Option<Relative>,
    pub(super) output: Linear,
    pub(super) attention_norm: Option<Norm>,
    pub(super) up: Linear,
    pub(super) down: Linear,
    pub(super) output_norm: Option<Norm>,
}

impl Encoder {
    /// The maximum number of tokens of a text.
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

    /// Hidden states of texts, `[rows, d]`: the tokens of the first text, then those of the second, and so on.
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

    /// The pooler: `tanh(W x + b)` of a first token's hidden state, or the state itself if the model has no pooler.
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
        // If the tokenizer has more types than the model, the last type of the model stands for the others.
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
        // Some models normalise before the projection, some after it.
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
