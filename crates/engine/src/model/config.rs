//! The shape of a decoder, independent of the file format.

use std::path::Path;

use crate::error::{Error, Result};
use crate::kernel::{Activation, Rotary, Sight};

/// The shape of a decoder, and the properties in which families differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Name of the architecture in the checkpoint.
    pub architecture: String,
    /// Width of the hidden states, `d`.
    pub hidden: usize,
    /// Width of the feed-forward layers.
    pub intermediate: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key-value heads. Each one serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Size of the vocabulary.
    pub vocabulary: usize,
    /// Maximum number of tokens of a sequence.
    pub context: usize,
    /// Epsilon of the norms.
    pub norm_eps: f32,
    /// Whether norms are LayerNorm with a bias; otherwise they are RMSNorm.
    pub layer_norm: bool,
    /// The position of the norms in a layer.
    pub norms: Norms,
    /// The norm of queries and keys before they are rotated, if there is one.
    pub qk_norm: Option<QkNorm>,
    /// Which linear layers have a bias.
    pub bias: Bias,
    /// Activation of the feed-forward layers.
    pub activation: Activation,
    /// Whether the feed-forward layers have a gate.
    pub gated: bool,
    /// Factor on the products of queries and keys.
    pub attention_scale: f32,
    /// `Some(c)`: attention scores are soft-capped, `s` becomes `c tanh(s / c)`.
    pub attention_cap: Option<f32>,
    /// `Some(c)`: logits are soft-capped, `x` becomes `c tanh(x / c)`.
    pub logit_cap: Option<f32>,
    /// Factor on the embeddings.
    pub embedding_scale: f32,
    /// Whether positions are learned embeddings, as in GPT-2; otherwise they are rotations.
    pub learned_positions: bool,
    /// The rotations that the layers choose from.
    pub(crate) rotary: Vec<Rotary>,
    /// Rotation and attention window of each layer.
    pub(crate) sight: Vec<Sight>,
    /// Whether the output layer is the embedding table.
    pub tied: bool,
    /// End-of-sequence tokens.
    pub eos: Vec<u32>,
}

/// The position of the norms around attention and feed-forward blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norms {
    /// Before each block, as in most families.
    Before,
    /// After each block, before the residual is added, as in OLMo 2.
    After,
    /// Before and after each block, as in Gemma 2 and 3.
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

/// The numbers that one norm of queries and keys extends over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head by itself, as in Qwen3 and Gemma 3.
    Head,
    /// All heads together, as in OLMo 2.
    All,
}

/// Which linear layers have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bias {
    /// The layers of queries, keys and values.
    pub qkv: bool,
    /// The output layer of attention.
    pub output: bool,
    /// The feed-forward layers.
    pub feed_forward: bool,
}

impl Config {
    /// Checks that sizes and factors make sense. Otherwise a bad configuration would cause a panic much later.
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
