//! The encoder of the BERT family, read top to bottom: tokens in, hidden states out.
//!
//! A forward takes any number of texts, one behind the other and none padded: linear layers run over the
//! rows of all of them, only attention looks at each by itself. So a text's states are the same to the bit
//! whatever shares the forward.

use std::path::Path;

use super::config::{Config, Names};
use crate::error::Result;
use crate::kernel::{Activation, BothWays, Dtype, Norm, Packed};
use crate::model::{Weights, stacked};

pub(super) struct Encoder {
    hidden: usize,
    /// Width of the embeddings, `e`.
    embedding: usize,
    heads: usize,
    /// `[vocabulary][e]`.
    words: Vec<f32>,
    /// Positions and the first type, added: `[tokens][e]`.
    positions: Vec<f32>,
    norm: Norm,
    /// From embeddings to states, where they differ in width.
    project: Option<Linear>,
    layers: Vec<Layer>,
    activation: Activation,
    /// The layer behind the first token's state, if there is one.
    pooler: Option<Linear>,
}

pub(crate) struct Linear {
    weight: Packed,
    bias: Vec<f32>,
}

struct Layer {
    /// Rows of q, k and v, one after the other.
    qkv: Linear,
    output: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    output_norm: Norm,
}

impl Encoder {
    pub(super) fn load(folder: &Path, config: &Config) -> Result<Self> {
        let weights = Weights::open_hf(folder)?;
        let known = ["", "bert.", "roberta.", "electra.", "distilbert."];
        let holds =
            |prefix: &&str| weights.contains(&format!("{prefix}embeddings.word_embeddings.weight"));
        let prefix = known.into_iter().find(holds).unwrap_or_default();
        Reader { weights, prefix, config }.encoder()
    }

    /// Most tokens of a text.
    pub(super) fn context(&self) -> usize {
        self.positions.len() / self.embedding
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
    pub(super) fn forward(&self, texts: &[&[u32]]) -> Vec<f32> {
        let (d, rows) = (self.hidden, texts.iter().map(|text| text.len()).sum::<usize>());
        let mut x = self.embed(texts, rows);
        let mut attention = BothWays::new(self.heads, d / self.heads);
        let (mut qkv, mut attended, mut inner) = (Vec::new(), vec![0f32; rows * d], Vec::new());
        for layer in &self.layers {
            layer.qkv.forward(&x, rows, &mut qkv); // [rows, 3 d]
            let mut first = 0;
            for text in texts {
                let (from, to) = (first * d, (first + text.len()) * d);
                attention.attend(&qkv[3 * from..3 * to], &mut attended[from..to]);
                first += text.len();
            }
            layer.output.add_to(&mut x, &attended);
            layer.attention_norm.apply(&mut x);
            layer.up.forward(&x, rows, &mut inner); // [rows, intermediate]
            self.activation.apply(&mut inner);
            layer.down.add_to(&mut x, &inner);
            layer.output_norm.apply(&mut x);
        }
        x
    }

    /// `tanh(W x + b)` of a first token's state; the state itself where there is no pooler.
    pub(super) fn pooler(&self, state: &[f32]) -> Vec<f32> {
        let Some(pooler) = &self.pooler else { return state.to_vec() };
        let mut y = Vec::new();
        pooler.forward(state, 1, &mut y);
        crate::kernel::tanh_all(&mut y);
        y
    }

    fn embed(&self, texts: &[&[u32]], rows: usize) -> Vec<f32> {
        let d = self.embedding;
        let mut x = Vec::with_capacity(rows * d);
        for text in texts {
            for (&token, position) in text.iter().zip(self.positions.chunks_exact(d)) {
                let word = &self.words[token as usize * d..][..d];
                x.extend(word.iter().zip(position).map(|(word, position)| word + position));
            }
        }
        self.norm.apply(&mut x);
        let Some(project) = &self.project else { return x };
        let mut y = Vec::new();
        project.forward(&x, rows, &mut y);
        y
    }
}

impl Linear {
    /// A layer `[n, k]` with its bias.
    pub(crate) fn load(weights: &Weights, name: &str, n: usize, k: usize) -> Result<Self> {
        let matrix = weights.matrix(&format!("{name}.weight"), n, k)?;
        let weight = Packed::new(n, k, Dtype::F32, |rows, to: &mut [f32]| matrix.read(rows, to))?;
        Ok(Self { weight, bias: weights.vector(&format!("{name}.bias"), n)? })
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

/// Takes an encoder's parts out of the weights.
struct Reader<'a> {
    weights: Weights,
    prefix: &'static str,
    config: &'a Config,
}

impl Reader<'_> {
    fn encoder(&self) -> Result<Encoder> {
        let Config {
            hidden, embedding, heads, positions: rows, first_position, vocabulary, types, ..
        } = *self.config;
        let mut positions = self.table("embeddings.position_embeddings.weight", rows, embedding)?;
        positions.drain(..first_position * embedding);
        if types > 0 {
            let types = self.table("embeddings.token_type_embeddings.weight", types, embedding)?;
            for row in positions.chunks_exact_mut(embedding) {
                row.iter_mut().zip(&types).for_each(|(x, kind)| *x += kind);
            }
        }
        let project = match embedding == hidden {
            true => None,
            false => Some(self.linear("embeddings_project", hidden, embedding)?),
        };
        let pooler = match self.weights.contains(&self.name("pooler.dense.weight")) {
            true => Some(self.linear("pooler.dense", hidden, hidden)?),
            false => None,
        };
        Ok(Encoder {
            hidden,
            embedding,
            heads,
            words: self.table("embeddings.word_embeddings.weight", vocabulary, embedding)?,
            positions,
            norm: self.norm("embeddings.LayerNorm", embedding)?,
            project,
            layers: (0..self.config.layers).map(|i| self.layer(i)).collect::<Result<_>>()?,
            activation: self.config.activation,
            pooler,
        })
    }

    fn layer(&self, i: usize) -> Result<Layer> {
        let Config { hidden, intermediate, .. } = *self.config;
        let [layers, qkv, output, attention_norm, up, down, output_norm] = match self.config.names {
            Names::Bert => [
                "encoder.layer",
                "attention.self",
                "attention.output.dense",
                "attention.output.LayerNorm",
                "intermediate.dense",
                "output.dense",
                "output.LayerNorm",
            ],
            Names::DistilBert => [
                "transformer.layer",
                "attention",
                "attention.out_lin",
                "sa_layer_norm",
                "ffn.lin1",
                "ffn.lin2",
                "output_layer_norm",
            ],
        };
        let part = |name: &str| format!("{layers}.{i}.{name}");
        Ok(Layer {
            qkv: self.qkv(&part(qkv))?,
            output: self.linear(&part(output), hidden, hidden)?,
            attention_norm: self.norm(&part(attention_norm), hidden)?,
            up: self.linear(&part(up), intermediate, hidden)?,
            down: self.linear(&part(down), hidden, intermediate)?,
            output_norm: self.norm(&part(output_norm), hidden)?,
        })
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn table(&self, name: &str, n: usize, k: usize) -> Result<Vec<f32>> {
        let matrix = self.weights.matrix(&self.name(name), n, k)?;
        let mut rows = vec![0.0; n * k];
        matrix.read(0..n, &mut rows)?;
        Ok(rows)
    }

    fn linear(&self, name: &str, n: usize, k: usize) -> Result<Linear> {
        Linear::load(&self.weights, &self.name(name), n, k)
    }

    fn qkv(&self, name: &str) -> Result<Linear> {
        let d = self.config.hidden;
        let (mut parts, mut bias) = (Vec::new(), Vec::new());
        let parts_of_it = match self.config.names {
            Names::Bert => ["query", "key", "value"],
            Names::DistilBert => ["q_lin", "k_lin", "v_lin"],
        };
        for part in parts_of_it {
            let name = self.name(&format!("{name}.{part}"));
            parts.push((self.weights.matrix(&format!("{name}.weight"), d, d)?, d));
            bias.extend(self.weights.vector(&format!("{name}.bias"), d)?);
        }
        let rows = |rows: std::ops::Range<usize>, to: &mut [f32]| stacked(&parts, d, rows, to);
        Ok(Linear { weight: Packed::new(3 * d, d, Dtype::F32, rows)?, bias })
    }

    /// Old checkpoints call weight and bias gamma and beta.
    fn norm(&self, name: &str, width: usize) -> Result<Norm> {
        let name = self.name(name);
        let old = self.weights.contains(&format!("{name}.gamma"));
        let [weight, bias] = if old { ["gamma", "beta"] } else { ["weight", "bias"] };
        let vector = |part: &str| self.weights.vector(&format!("{name}.{part}"), width);
        Ok(Norm::layer(vector(weight)?, vector(bias)?, self.config.norm_eps))
    }
}
