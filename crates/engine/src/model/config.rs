//! What a decoder looks like, whichever file said so.

use std::path::Path;

use crate::error::{Error, Result};
use crate::kernel::{Activation, Rotary, Sight};

/// Shape of a decoder, and the choices in which families differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The architecture, as the checkpoint names it.
    pub architecture: String,
    /// Width of the hidden states, `d`.
    pub hidden: usize,
    /// Width of the feed-forward layers.
    pub intermediate: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Size of the vocabulary.
    pub vocabulary: usize,
    /// Most tokens that the model was made for.
    pub context: usize,
    /// Added to the mean square in norms.
    pub norm_eps: f32,
    /// Whether norms take the mean away and have a bias: LayerNorm, not RMSNorm.
    pub layer_norm: bool,
    /// Where the norms of a layer stand.
    pub norms: Norms,
    /// What is normed of queries and keys before they are rotated.
    pub qk_norm: Option<QkNorm>,
    /// Which linear layers have a bias.
    pub bias: Bias,
    /// Of the feed-forward layers.
    pub activation: Activation,
    /// Whether the feed-forward layers have a gate.
    pub gated: bool,
    /// What products of queries and keys are multiplied by.
    pub attention_scale: f32,
    /// `Some(c)`: attention scores s become `c tanh(s / c)`.
    pub attention_cap: Option<f32>,
    /// `Some(c)`: logits x become `c tanh(x / c)`.
    pub logit_cap: Option<f32>,
    /// What embeddings are multiplied by.
    pub embedding_scale: f32,
    /// Whether positions have a table of their own, as GPT-2's; else they are rotations.
    pub learned_positions: bool,
    /// The rotations that layers choose from.
    pub(crate) rotary: Vec<Rotary>,
    /// What each layer sees of the text.
    pub(crate) sight: Vec<Sight>,
    /// Whether the output layer is the embedding table.
    pub tied: bool,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
}

/// Where the norms of attention and of the feed-forward layers stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norms {
    /// Before them: most.
    Before,
    /// Behind them, before the residual is added: OLMo 2.
    After,
    /// Both: Gemma 2 and 3.
    Both,
}

impl Norms {
    pub(crate) fn before(self) -> bool {
        self != Self::After
    }

    pub(crate) fn after(self) -> bool {
        self != Self::Before
    }
}

/// What a norm of queries and keys reaches over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head by itself: Qwen3, Gemma 3.
    Head,
    /// All heads together: OLMo 2.
    All,
}

/// Which linear layers have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bias {
    /// Those of queries, keys and values.
    pub qkv: bool,
    /// That behind the attention.
    pub output: bool,
    /// Those of the feed-forward part.
    pub feed_forward: bool,
}

impl Config {
    /// Nonsense in a configuration would otherwise surface as a panic much later.
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        let sizes = [
            ("hidden size", self.hidden),
            ("intermediate size", self.intermediate),
            ("number of layers", self.layers),
            ("number of heads", self.heads),
            ("number of key-value heads", self.kv_heads),
            ("head size", self.head_dim),
            ("vocabulary size", self.vocabulary),
            ("context length", self.context),
        ];
        let refuse = |what: String| Err(Error::invalid(path, what));
        if let Some((name, size)) = sizes.into_iter().find(|(_, size)| *size == 0 || *size > 1 << 24) {
            return refuse(format!("the {name} is {size}"));
        }
        let (heads, kv, dim) = (self.heads, self.kv_heads, self.head_dim);
        if heads.saturating_mul(dim) > 1 << 24 || self.layers > 1 << 12 {
            return refuse(format!(
                "{} layers of {heads} heads of size {dim} are too many",
                self.layers
            ));
        }
        if !heads.is_multiple_of(kv) || !dim.is_multiple_of(2) {
            return refuse(format!("{heads} heads of size {dim} cannot share {kv} key-value heads"));
        }
        if let Some(rotary) = self.rotary.iter().find(|rotary| 2 * rotary.frequencies.len() > dim) {
            let width = 2 * rotary.frequencies.len();
            return refuse(format!("the rotary embedding turns {width} numbers of heads of size {dim}"));
        }
        let numbers = [self.norm_eps, self.attention_scale, self.embedding_scale];
        let caps = self.attention_cap.iter().chain(&self.logit_cap);
        if let Some(number) = numbers.iter().chain(caps).find(|x| !(x.is_finite() && **x > 0.0)) {
            return refuse(format!(
                "the norms' epsilon, a scale or a cap is {number}, not a positive number"
            ));
        }
        Ok(())
    }
}
